"""Data sets of depth: a picture and the distance of each of its pixels, in metres.

```
<root>/nyu_depth_v2/official_splits/{train,test}/<scene type>/{rgb_00045.jpg, sync_depth_00045.png}
<root>/nyu_depth_v2/sync/<scene type>_0028b/{rgb_00045.jpg, sync_depth_00045.png}
<root>/nyu_depth_v2/train_list.txt    lines "/scene/rgb_00045.jpg /scene/sync_depth_00045.png"
```
The first folder may be left out. Tabletop gives the same samples without a disk:
`vpd.data.tabletop.depth`.
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from vpd.data.files import read_rgb, read_unchanged
from vpd.data.naming import class_names, read_names
from vpd.data.pairs import Key, Pairs, below, ending, files_below, folders_in, match
from vpd.images import EXTENSIONS

_MILLIMETRES = 0.001
_OFFICIAL_COUNTS = {"train": 795, "test": 654}
SYNC_COUNTS = {"train": 24231}
_DEPTHS = (".png", ".tif", ".tiff", ".npy")


class DepthPicture(Protocol):
    """What depth estimation reads, from disk or rendered."""

    @property
    def id(self) -> str: ...
    @property
    def scene(self) -> int: ...
    def read_image(self) -> NDArray[np.uint8]: ...
    def read_depth(self) -> NDArray[np.float32]: ...
    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]: ...


@dataclass(frozen=True)
class DepthSample:
    """One picture on disk and its depth; nothing is read before it is asked for.

    Attributes:
        scene: scene type, an index into the data set's `scenes`.
        scale: metres per stored unit.
    """

    id: str
    image_path: Path
    depth_path: Path
    scene: int
    scale: float

    def read_image(self) -> NDArray[np.uint8]:
        """The picture: uint8 [H, W, 3], RGB.

        Raises:
            OSError: if the file cannot be opened.
            ValueError: if it is no picture.
        """
        return read_rgb(self.image_path)

    def read_depth(self) -> NDArray[np.float32]:
        """Depth in metres: float32 [H, W]; 0 where nothing was measured.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no depth picture.
        """
        depth_m = _read_stored(self.depth_path).astype(np.float32) * np.float32(self.scale)
        return np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.float32(0))

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Picture and depth, checked to be of one size; raises as both and for that."""
        image, depth_m = self.read_image(), self.read_depth()
        if image.shape[:2] != depth_m.shape:
            raise ValueError(
                f"{self.depth_path}: expected depth of {image.shape[0]} x {image.shape[1]} pixels "
                f"like its picture {self.image_path}, got {depth_m.shape[0]} x {depth_m.shape[1]}"
            )
        return image, depth_m


@dataclass(frozen=True, eq=False)
class DepthDataset(Sequence[DepthSample]):
    """The pictures of a split, by index; a slice is a smaller data set.

    Attributes:
        name, split: which data set.
        variant: which of its forms on disk was found.
        scenes: names of the scene types, as prompts want them.
        pairs: the files.
        scene_ids: the scene type of each picture.
        scale: metres per stored unit.
        published: how many pictures the split of the official release has, None if unknown.
    """

    name: str
    split: str
    variant: str
    scenes: tuple[str, ...]
    pairs: Pairs
    scene_ids: tuple[int, ...]
    scale: float
    published: int | None = None

    def __len__(self) -> int:
        return len(self.pairs.rows)

    @overload
    def __getitem__(self, index: int) -> DepthSample: ...
    @overload
    def __getitem__(self, index: slice) -> "DepthDataset": ...
    def __getitem__(self, index: int | slice) -> "DepthSample | DepthDataset":
        if isinstance(index, slice):
            pairs = dataclasses.replace(self.pairs, rows=self.pairs.rows[index])
            return dataclasses.replace(self, pairs=pairs, scene_ids=self.scene_ids[index])
        key, image, depth = self.pairs.rows[index]
        paths = self.pairs.image_root / image, self.pairs.target_root / depth
        return DepthSample(key, *paths, self.scene_ids[index], self.scale)

    def whole(self) -> "DepthDataset":
        """Itself; raises FileNotFoundError if a file is missing or there are no pictures."""
        self.pairs.whole("depth picture")
        return self


def scene_type(name: str, scenes: Sequence[str]) -> int:
    """The scene type that a picture's path tells: the first of `scenes` in "<folder>_<file>".

    VPD's rule, whose outcome depends on the order: in NYUv2's list `study` comes before
    `study_room` and `kitchen` before `office_kitchen`, so the longer ones never apply.

    Args:
        name: path of the picture, with forward slashes.
        scenes: names with spaces; in paths those are underscores.

    Raises:
        ValueError: if no name is contained.
    """
    said = "_".join(name.split("/")[-2:])
    for i, scene in enumerate(scenes):
        if scene.replace(" ", "_") in said:
            return i
    raise ValueError(f"{name}: expected a scene type in the path ({', '.join(scenes)}), got none")


def nyuv2(
    root: str | os.PathLike[str],
    split: str = "test",
    list_file: str | os.PathLike[str] | None = None,
) -> DepthDataset:
    """NYU Depth v2 as BTS and VPD keep it, or any data set in its layout.

    With a list file (`list_file`, else `<split>_list.txt` beside `sync` if there is one) the
    pictures are those of its lines, below `sync` for train and `official_splits/<split>` for
    others. Without one they are all below `official_splits/<split>`, or below `sync` for train if
    there is nothing else. A file `scenes.txt`, one name a line, says which other scene types a
    data set has (Tabletop comes with one). Depth is stored in millimetres.

    Args:
        root: the folder nyu_depth_v2, or the one that holds it.
        split: train, test, or the name of another folder in `official_splits`.

    Raises:
        FileNotFoundError: if a folder, or a file of the list, is missing.
        ValueError: if a line of the list is damaged, or a path tells no scene type.
    """
    return find_nyuv2(root, split, list_file).whole()


def find_nyuv2(
    root: str | os.PathLike[str],
    split: str,
    list_file: str | os.PathLike[str] | None = None,
) -> DepthDataset:
    """As `nyuv2`, of which files may be missing (`pairs.missing`)."""
    base = below(root, "nyu_depth_v2")
    sync, official = base / "sync", base / "official_splits" / split
    usual = base / f"{split}_list.txt"
    chosen = Path(list_file) if list_file is not None else usual if usual.is_file() else None
    in_sync = split == "train" and (chosen is not None or not official.is_dir()) and sync.is_dir()
    folder = sync if in_sync else official
    if chosen is not None:
        pairs = _listed(chosen, folder)
    else:
        pairs = match(folder, folder, _frame("rgb_", ".jpg", ".png"), _frame("sync_depth_", ".png"))
    own = base / "scenes.txt"
    scenes = read_names(own) if own.is_file() else class_names("nyuv2")
    variant = "sync" if in_sync else "official_splits"
    published = (SYNC_COUNTS if in_sync else _OFFICIAL_COUNTS).get(split)
    if own.is_file():
        variant += f", {len(scenes)} scene type(s) of scenes.txt"
        published = _tabletop_count(scenes, split)
    if chosen is not None:
        variant += f", {chosen.name}"
    scene_ids = tuple(scene_type(image, scenes) for _, image, _ in pairs.rows)
    return DepthDataset("nyuv2", split, variant, scenes, pairs, scene_ids, _MILLIMETRES, published)


def nyuv2_splits(root: Path) -> list[str]:
    """Splits that have a folder of pictures."""
    base = below(root, "nyu_depth_v2")
    found = folders_in(base / "official_splits")
    return sorted({*found, *(["train"] if (base / "sync").is_dir() else [])}, reverse=True)


def _tabletop_count(scenes: tuple[str, ...], split: str) -> int | None:
    from vpd.data.tabletop.pictures import SCENES
    from vpd.data.tabletop.splits import SPLITS

    return SPLITS[split].count if scenes == SCENES and split in SPLITS else None


def _frame(prefix: str, *endings: str) -> Key:
    """A key function: "kitchen/rgb_00045.jpg" -> "kitchen/00045"."""
    without = ending(*endings)

    def key(name: str) -> str | None:
        folder, _, file = name.rpartition("/")
        stem = without(file)
        if stem is None or not stem.startswith(prefix):
            return None
        return f"{folder}/{stem.removeprefix(prefix)}"

    return key


def _listed(list_file: Path, folder: Path) -> Pairs:
    """The pairs of a list file: two columns, or a third one with the focal length (BTS)."""
    try:
        lines = list_file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{list_file}: expected a text file, but {error}") from error
    there = set(files_below(folder))
    rows, missing = [], []
    for number, line in enumerate(lines, start=1):
        columns = line.split()
        if not columns:
            continue
        if len(columns) not in (2, 3):
            raise ValueError(
                f"{list_file}, line {number}: expected a picture and its depth, two names, "
                f"got {len(columns)}: {line.strip()[:80]!r}"
            )
        image, depth = (name.lstrip("/") for name in columns[:2])
        lost = [name for name in (image, depth) if name not in there]
        missing += lost
        if not lost:
            rows.append((image.rpartition(".")[0].replace("/rgb_", "/"), image, depth))
    return Pairs(folder, folder, tuple(rows), missing=tuple(missing))


def image_depth_folder(
    images: str | os.PathLike[str],
    depths: str | os.PathLike[str],
    scale: float = _MILLIMETRES,
    scene: str = "room",
) -> DepthDataset:
    """Any two folders in which a picture and its depth have the same name up to the extension.

    Args:
        images: folder of pictures; subfolders are searched too.
        depths: folder of 16-bit PNG, 16-bit or float TIFF, or NPY files of one channel. Zero,
            negative and non-finite values are not measured.
        scale: metres per stored unit: 0.001 for millimetres, 1 / 256 for KITTI's files.
        scene: the scene type of all pictures, for the prompt.

    Raises:
        FileNotFoundError: if a folder or a depth file is missing.
        ValueError: if two files could be the same picture, or the scale is not positive.
    """
    return find_image_depths(images, depths, scale, scene).whole()


def find_image_depths(
    images: str | os.PathLike[str],
    depths: str | os.PathLike[str],
    scale: float = _MILLIMETRES,
    scene: str = "room",
) -> DepthDataset:
    """As `image_depth_folder`, of which depth files may be missing (`pairs.missing`)."""
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale must be a positive number of metres per unit, got {scale}")
    pairs = match(Path(images), Path(depths), ending(*EXTENSIONS), ending(*_DEPTHS))
    ids = (0,) * len(pairs.rows)
    return DepthDataset("folder", "all", "depths", (scene,), pairs, ids, scale)


def _read_stored(path: Path) -> NDArray[Any]:
    """uint16 or float32 [H, W] as stored."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a depth picture here, found no file")
    stored = _read_npy(path) if path.suffix.lower() == ".npy" else read_unchanged(path)
    if stored is None:
        size = path.stat().st_size
        raise ValueError(f"{path}: expected a depth picture, got {size} bytes that are none")
    if stored.ndim != 2 or stored.dtype not in (np.uint16, np.float16, np.float32, np.float64):
        raise ValueError(
            f"{path}: expected depth in one channel of 16-bit integers or floats, got "
            f"{stored.dtype} {list(stored.shape)}"
        )
    return stored


def _read_npy(path: Path) -> NDArray[Any] | None:
    try:
        # Mapped, so that a header that promises too much fails instead of taking memory.
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception:  # NumPy's reader of headers raises nearly anything
        return None
    return np.array(stored) if isinstance(stored, np.ndarray) else None
