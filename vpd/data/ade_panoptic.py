"""Makes ADE20K's panoptic and instance labels from the official downloads.

```
<root>/ADEChallengeData2016/{images,annotations}/{training,validation}/...
<root>/ADEChallengeData2016/annotations_instance/{training,validation}/ADE_val_00000001.png
<root>/ADEChallengeData2016/ade20k_instance_catid_mapping.txt
```
Maps of instances are pictures whose red channel is the instance's category and whose green one is
its number, 0 where there is none. The table says which of the 150 classes those categories are.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpd.data.files import read_unchanged
from vpd.data.pairs import below
from vpd.data.panoptic_files import (
    category_rows,
    image_row,
    segments_info,
    write_ids,
    write_tables,
)
from vpd.data.segments import PanopticLabel, Segment, instances_of
from vpd.data.semantic import ADE_FOLDERS, SemanticDataset, ade20k, ade20k_splits

TABLE = "ade20k_instance_catid_mapping.txt"
_FIRST_THING = 256  # ids of things follow those of the classes, which fit 8 bits
_THREADS = 8


def prepare_ade20k(
    root: str | os.PathLike[str],
    splits: Iterable[str] | None = None,
    *,
    table: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> None:
    """Writes `ade20k_panoptic_<split>` with its JSON file and `ade20k_instance_<split>.json`.

    Stuff is painted from the semantic map, then things over it from the map of instances: a pixel
    of a thing class without an instance has no segment. Maps that are there are kept, JSON files
    come last, so the work can be killed and repeated.

    Args:
        root: the folder ADEChallengeData2016, or the one that holds it.
        splits: those that have a folder of pictures by default.
        table: category of instances, class id plus one, and anything, by white space; the first
            line is a heading. By default the file TABLE beside `images`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one is damaged, of another size, or has a category that the table lacks.
    """
    base = below(root, "ADEChallengeData2016")
    classes = read_table(Path(table) if table is not None else base / TABLE)
    for split in ade20k_splits(base) if splits is None else splits:
        data = ade20k(base, split)
        wrong = [c for c in classes.values() if c >= len(data.names)]
        if wrong:
            raise ValueError(
                f"{table or base / TABLE}: expected class ids up to {len(data.names)}, got "
                f"{wrong[0] + 1}"
            )
        _prepare(base, data, classes, progress)


def read_table(path: Path) -> dict[int, int]:
    """Class id by category of instances.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line does not begin with two numbers above 0, or two lines disagree.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected the table of instance categories here (category, class id, name; "
            "Mask2Former's repository has it in datasets/), found no file"
        )
    found: dict[int, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[1:], start=2):
        words = line.split()
        if not words:
            continue
        numbers = [int(word) if word.isdecimal() else 0 for word in words[:2]]
        if len(numbers) < 2 or min(numbers) < 1 or found.get(numbers[0], numbers[1]) != numbers[1]:
            raise ValueError(
                f"{path}: line {number}: expected an instance category, always with the same class "
                f"id, both from 1, got {line.strip()!r}"
            )
        found[numbers[0]] = numbers[1]
    if not found:
        raise ValueError(f"{path}: expected instance categories, got none")
    return {category: class_id - 1 for category, class_id in found.items()}


def _prepare(base: Path, data: SemanticDataset, classes: dict[int, int], progress: bool) -> None:
    from tqdm.auto import tqdm

    things = tuple(i in set(classes.values()) for i in range(len(data.names)))
    categories = category_rows(data.names, things, first=0)
    folder = base / f"ade20k_panoptic_{data.split}"

    def one(index: int) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
        sample = data[index]
        stored = base / "annotations_instance" / ADE_FOLDERS.get(data.split, data.split)
        image, classes_of = sample.read()
        found = read_instance_map(stored / f"{sample.id}.png", classes_of.shape)
        label = painted(classes_of, *found, things, classes, stored / f"{sample.id}.png")
        path = folder / f"{sample.id}.png"
        if not path.exists():
            write_ids(path, label.ids)
        info = segments_info(label, range(len(things)))
        row = image_row(sample.id, sample.image_path.name, image.shape)
        objects = [
            {
                "image_id": sample.id,
                "category_id": instance.category,
                "segmentation": instance.mask,
                "area": instance.area,
                "bbox": own["bbox"],
                "iscrowd": 0,
            }
            for instance, own in zip(
                instances_of(label, things),
                [s for s in info if things[s["category_id"]]],
                strict=True,
            )
        ]
        return row, {"image_id": sample.id, "file_name": path.name, "segments_info": info}, objects

    with ThreadPoolExecutor(_THREADS) as pool:
        work = pool.map(one, range(len(data)))
        bar = tqdm(work, desc=f"{data.split}", total=len(data), disable=not progress)
        rows = list(bar)
    images = [row for row, _, _ in rows]
    objects = [own for _, _, many in rows for own in many]
    for number, own in enumerate(objects, start=1):
        own["id"] = number
    tables = {
        f"ade20k_instance_{data.split}.json": {
            "images": images,
            "annotations": objects,
            "categories": [row for row in categories if row["isthing"]],
        },
        f"ade20k_panoptic_{data.split}.json": {
            "images": images,
            "annotations": [own for _, own, _ in rows],
            "categories": categories,
        },
    }
    for name, content in tables.items():
        write_tables(base / name, content)


def read_instance_map(
    path: Path, size: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Category and number of the instance of each pixel, uint8 [H, W] each.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no picture of three channels of 8 bits of this size.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a map of instances here, found no file")
    stored = read_unchanged(path)
    if stored is None or stored.dtype != np.uint8 or stored.shape != (*size, 3):
        got = "none" if stored is None else f"{stored.dtype} {list(stored.shape)}"
        raise ValueError(
            f"{path}: expected a map of instances, uint8 {[*size, 3]}, like its picture, got {got}"
        )
    return stored[..., 2], stored[..., 1]


def painted(
    classes: NDArray[np.integer],
    categories: NDArray[np.uint8],
    numbers: NDArray[np.uint8],
    things: tuple[bool, ...],
    class_of: dict[int, int],
    where: object,
) -> PanopticLabel:
    """Stuff from a map of classes [H, W], and things over it from maps of instances [H, W].

    Raises:
        ValueError: if an instance has several categories, or one without a class; `where` says
            whose.
    """
    ids_of = np.zeros(256, np.int32)
    for i, thing in enumerate(things):
        ids_of[i] = 0 if thing else i + 1
    ids = ids_of[classes]
    pairs = np.unique(numbers.astype(np.int32) * 256 + categories)
    segments: dict[int, int] = {}
    for pair in pairs[pairs >= 256].tolist():
        number, category = divmod(pair, 256)
        if category not in class_of:
            raise ValueError(
                f"{where}: instance {number} has category {category}, not in the table"
            )
        if _FIRST_THING + number in segments:
            raise ValueError(f"{where}: expected one category of instance {number}, got several")
        segments[_FIRST_THING + number] = class_of[category]
    own = numbers > 0
    ids[own] = _FIRST_THING + numbers[own].astype(np.int32)
    stuff = np.unique(ids[~own])
    found = [Segment(int(i), int(i) - 1) for i in stuff if i]
    return PanopticLabel(ids, (*found, *(Segment(i, c) for i, c in segments.items())))
