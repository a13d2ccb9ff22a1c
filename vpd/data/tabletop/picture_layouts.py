"""Writes Tabletop's semantic labels in ADE20K's layout and its depth in NYUv2's.

The readers of the real data sets read both back. Pictures are PNG, so nothing is lost. Splits that
an earlier call wrote stay; the work can be killed and repeated: rendered scenes are in the cache
(see `load_split`), written files are kept, and `tabletop.json`, which lists the splits, is last.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpd.data.files import atomic_write, write_png, write_texts
from vpd.data.pairs import folders_in
from vpd.data.semantic import ADE_FOLDERS
from vpd.data.tabletop.pictures import SCENES, semantic
from vpd.data.tabletop.spec import CLASSES, VERSION
from vpd.data.tabletop.splits import SPLITS, TabletopSplit, load_split

USUAL_SPLITS = ("train", "val", "test")
CLASS_NAMES = {"classes.txt": "".join(f"{name}\n" for name in CLASSES)}
_NOTE = "tabletop.json"
# Of one scene of a split: a file to write, and what it shows.
Files = Callable[[TabletopSplit, int], Iterator[tuple[Path, Callable[[], NDArray[Any]]]]]


def write_ade20k(
    root: str | os.PathLike[str],
    splits: Iterable[str] = USUAL_SPLITS,
    counts: Mapping[str, int] | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Writes `<root>/ADEChallengeData2016/{images,annotations,classes.txt}`.

    Labels are the position in `classes.txt` plus one (floor, wall, then the shapes), as ADE20K's;
    no pixel is without a class.

    Args:
        root: any folder; made if it is missing.
        splits: of `SPLITS`, "pretrain" excepted: it has no labels.
        counts: only the first so many scenes of a split.

    Raises:
        ValueError: on an unknown split or a count out of range, or a folder of another version.
    """
    base = Path(root) / "ADEChallengeData2016"

    def files(split: TabletopSplit, i: int) -> Iterator[tuple[Path, Callable[[], NDArray[Any]]]]:
        folder, name = ade_place(split, i)
        label = semantic(split)[i].read_label
        yield base / "annotations" / folder / name, lambda: label() + np.uint8(1)
        yield base / "images" / folder / name, lambda: split.images[i]

    write_scenes(base, splits, counts, CLASS_NAMES, files, False, cache_dir, workers, progress)


def ade_place(split: TabletopSplit, i: int) -> tuple[str, str]:
    """Folder and name of a scene's files in ADE20K's layout."""
    folder = ADE_FOLDERS.get(split.name, split.name)
    return folder, f"ADE_{split.name}_{split.seeds[i]:08d}.png"


def write_nyuv2(
    root: str | os.PathLike[str],
    splits: Iterable[str] = USUAL_SPLITS,
    counts: Mapping[str, int] | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Writes `<root>/nyu_depth_v2/{official_splits,scenes.txt}`; arguments as `write_ade20k`.

    Depth is in millimetres, as every reader of NYUv2 expects. Rounding to them moves a pixel by at
    most 0.5 mm; nothing in Tabletop is nearer than about 2 m, so by less than 0.03 %.
    """
    base = Path(root) / "nyu_depth_v2"

    def files(split: TabletopSplit, i: int) -> Iterator[tuple[Path, Callable[[], NDArray[Any]]]]:
        folder = base / "official_splits" / split.name / SCENES[0]
        depths_mm = split.depths_mm
        assert depths_mm is not None
        yield folder / f"sync_depth_{split.seeds[i]:05d}.png", lambda: depths_mm[i]
        yield folder / f"rgb_{split.seeds[i]:05d}.png", lambda: split.images[i]

    texts = {"scenes.txt": "".join(f"{name}\n" for name in SCENES)}
    write_scenes(base, splits, counts, texts, files, True, cache_dir, workers, progress)


def labelled_sizes(splits: Iterable[str], counts: Mapping[str, int] | None) -> dict[str, int]:
    """How many scenes of which split are wanted.

    Raises:
        ValueError: on an unknown split or one without labels.
    """
    sizes = {}
    for name in splits:
        if name not in SPLITS or name == "pretrain":
            labelled = ", ".join(s for s in SPLITS if s != "pretrain")
            raise ValueError(f"split must be one of {labelled}, got {name!r}")
        sizes[name] = (counts or {}).get(name, SPLITS[name].count)
    return sizes


def written_sizes(path: Path, info_of: Callable[[Any], Any]) -> dict[str, int]:
    """Splits and their sizes that an earlier call noted in a JSON file, if it is there.

    Args:
        info_of: where in the file version and splits stand.

    Raises:
        ValueError: if it is no note of this kind, or of another version.
    """
    if not path.is_file():
        return {}
    try:
        info = info_of(json.loads(path.read_bytes()))
        sizes = {str(k): int(v) for k, v in info["splits"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected a Tabletop data set or no file: {error!r}") from error
    if info.get("version") != VERSION:
        raise ValueError(
            f"{path}: expected Tabletop version {VERSION!r}, got {info.get('version')!r}; "
            "write to another folder"
        )
    return sizes


def write_scenes(
    base: Path,
    splits: Iterable[str],
    counts: Mapping[str, int] | None,
    texts: Mapping[str, str],
    files: Files,
    depth: bool,
    cache_dir: str | os.PathLike[str] | None,
    workers: int | None,
    progress: bool,
    finish: Callable[[TabletopSplit], None] | None = None,
) -> None:
    """Writes the pictures of scenes below `base`, and notes the splits in `tabletop.json`.

    Args:
        splits, counts: as `write_ade20k`; scenes that an earlier call wrote stay.
        texts: small files by name that say which data set this is.
        files: what is written of a scene.
        depth: whether that needs depth.
        finish: what is done with each split at last, as many scenes of it as are written.

    Raises:
        ValueError: as `write_ade20k`, or if the folder holds another data set.
    """
    from tqdm.auto import tqdm

    sizes = labelled_sizes(splits, counts)
    before = written_sizes(base / _NOTE, lambda note: note)
    for name, text in texts.items():
        path = base / name
        if folders_in(base) and not (path.is_file() and path.read_bytes() == text.encode()):
            raise ValueError(
                f"{path}: expected Tabletop's, beside its pictures: this is another data set; "
                "write to another folder"
            )
    write_texts(base, texts)
    whole = {**before, **{name: max(n, before.get(name, 0)) for name, n in sizes.items()}}
    for name in sizes:
        where: dict[str, Any] = {"depth": depth, "progress": progress}
        split = load_split(name, cache_dir, workers, limit=whole[name], **where)
        for i in tqdm(range(len(split)), desc=f"writing {name}", disable=not progress):
            for path, pixels in files(split, i):
                if not path.exists():
                    write_png(path, pixels())
        if finish is not None:
            finish(split)
    note = {"version": VERSION, "splits": dict(sorted(whole.items()))}
    with atomic_write(base / _NOTE) as file:
        file.write(json.dumps(note).encode())
