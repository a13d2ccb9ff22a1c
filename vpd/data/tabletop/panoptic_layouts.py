"""Writes Tabletop's segments in the layouts of COCO panoptic and of ADE20K's panoptic labels.

As `picture_layouts` does: pictures are PNG, the work can be killed and repeated, splits that an
earlier call wrote stay, and JSON files come after the pictures they list.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpd.data.ade_panoptic import TABLE, prepare_ade20k
from vpd.data.files import write_texts
from vpd.data.panoptic_files import (
    category_rows,
    id_colors,
    image_row,
    segments_info,
    write_tables,
)
from vpd.data.tabletop.picture_layouts import (
    CLASS_NAMES,
    USUAL_SPLITS,
    ade_place,
    write_ade20k,
    write_scenes,
)
from vpd.data.tabletop.pictures import THINGS, panoptic
from vpd.data.tabletop.spec import CLASSES, IMAGE_SIZE, SHAPES
from vpd.data.tabletop.splits import TabletopSplit

_FIRST_CATEGORY = 1
_DATED = ("train", "val")


def write_coco_panoptic(
    root: str | os.PathLike[str],
    splits: Iterable[str] = USUAL_SPLITS,
    counts: Mapping[str, int] | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Writes `<root>/coco/{train2017, panoptic_train2017, annotations}` and the like.

    Arguments as `vpd.data.tabletop.picture_layouts.write_ade20k`. Train and val have COCO's names
    of folders, other splits their own.
    """
    base = Path(root) / "coco"

    def files(split: TabletopSplit, i: int) -> Iterator[tuple[Path, Callable[[], NDArray[Any]]]]:
        folder, name = _folder(split.name), f"{split.seeds[i]:012d}.png"
        label = panoptic(split)[i].read_label
        yield base / f"panoptic_{folder}" / name, lambda: id_colors(label().ids)
        yield base / folder / name, lambda: split.images[i]

    def finish(split: TabletopSplit) -> None:
        ids = range(_FIRST_CATEGORY, _FIRST_CATEGORY + len(CLASSES))
        images, annotations = [], []
        for seed, scene in zip(split.seeds, panoptic(split), strict=True):
            name = f"{seed:012d}.png"
            images.append(image_row(seed, name, (IMAGE_SIZE, IMAGE_SIZE)))
            info = segments_info(scene.read_label(), ids)
            annotations.append({"image_id": seed, "file_name": name, "segments_info": info})
        tables = {
            "images": images,
            "annotations": annotations,
            "categories": category_rows(CLASSES, THINGS, _FIRST_CATEGORY),
        }
        write_tables(base / "annotations" / f"panoptic_{_folder(split.name)}.json", tables)

    how: dict[str, Any] = {"cache_dir": cache_dir, "workers": workers, "progress": progress}
    write_scenes(base, splits, counts, CLASS_NAMES, files, False, finish=finish, **how)


def write_ade20k_panoptic(
    root: str | os.PathLike[str],
    splits: Iterable[str] = USUAL_SPLITS,
    counts: Mapping[str, int] | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Writes what `write_ade20k` does, maps of instances beside it, and the panoptic and instance
    labels that `vpd.data.ade_panoptic` makes of them; arguments as there."""
    base, splits = Path(root) / "ADEChallengeData2016", list(splits)
    where: dict[str, Any] = {"cache_dir": cache_dir, "workers": workers, "progress": progress}
    write_ade20k(root, splits, counts, **where)

    def files(split: TabletopSplit, i: int) -> Iterator[tuple[Path, Callable[[], NDArray[Any]]]]:
        folder, name = ade_place(split, i)
        yield base / "annotations_instance" / folder / name, lambda: _instance_map(split, i)

    heading = "category class name\n"
    first = len(CLASSES) - len(SHAPES) + 1
    rows = [f"{k}\t{first + k - 1}\t{shape}\n" for k, shape in enumerate(SHAPES, start=1)]
    write_texts(base, {TABLE: heading + "".join(rows)})
    write_scenes(base, splits, counts, CLASS_NAMES, files, False, **where)
    prepare_ade20k(base, splits, progress=progress)


def _instance_map(split: TabletopSplit, i: int) -> NDArray[np.uint8]:
    """Category and number of each pixel's object in the red and the green channel."""
    numbers = np.array(split.instances[i])
    shapes = [o.shape for o in split.scene(i).objects]
    categories = np.array([0, *(SHAPES.index(shape) + 1 for shape in shapes)], np.uint8)[numbers]
    return np.stack([categories, numbers, np.zeros_like(numbers)], axis=-1)


def _folder(split: str) -> str:
    return f"{split}2017" if split in _DATED else split
