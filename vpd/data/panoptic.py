"""Data sets of panoptic segmentation: a picture and the segment of each of its pixels.

```
<root>/coco/{train2017,val2017}/000000000139.jpg
<root>/coco/panoptic_{train2017,val2017}/000000000139.png
<root>/coco/annotations/{panoptic,instances}_{train2017,val2017}.json
<root>/ADEChallengeData2016/images/{training,validation}/ADE_val_00000001.jpg
<root>/ADEChallengeData2016/ade20k_panoptic_{train,val}{/ADE_val_00000001.png,.json}
<root>/ADEChallengeData2016/ade20k_instance_{train,val}.json
```
The first folder may be left out. Files of ADE20K are made from the official download by
`vpd.data.ade_panoptic`. Tabletop gives the same samples without a disk:
`vpd.data.tabletop.panoptic`.
"""

import os
from pathlib import Path
from typing import Any, Literal

from vpd.data.instances import InstanceFile
from vpd.data.pairs import Pairs, below, files_below
from vpd.data.panoptic_sets import PanopticDataset
from vpd.data.panoptic_tables import PanopticTable, read_panoptic
from vpd.data.semantic import ADE_COUNTS, ADE_FOLDERS, COCO_COUNTS, tabletop_count
from vpd.data.tabletop.pictures import Trait

PanopticName = Literal["tabletop", "coco-panoptic", "ade20k-panoptic"]
_DATED = ("train", "val")  # splits whose folders COCO calls train2017 and val2017
_COCO, _ADE = "panoptic_*.json", "ade20k_panoptic_*.json"


def panoptic_samples(
    name: PanopticName,
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    cache_dir: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    by: Trait = "shape",
) -> Any:
    """The pictures of a split with their segments, by the names that commands and configs use.

    Args:
        name: `tabletop` without a `root` is rendered (once, into a cache).
        split: e.g. val.
        root: folder of the data set.
        limit: only the first so many.
        cache_dir, workers: as `vpd.data.tabletop.load_split` takes them.
        progress: whether to show a bar while rendering.
        by: of rendered scenes: what an object's class is, its shape or its colour.

    Raises:
        ValueError: on a data set without segments or without its folder; and what readers raise.
    """
    readers = {
        "tabletop": coco_panoptic,
        "coco-panoptic": coco_panoptic,
        "ade20k-panoptic": ade20k_panoptic,
    }
    if name not in readers:
        raise ValueError(f"data set for panoptic must be one of {', '.join(readers)}, got {name!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if root is None:
        if name != "tabletop":
            raise ValueError(f"{name} is read from disk: give its folder, root")
        from vpd.data import tabletop

        if split not in tabletop.SPLITS:
            raise ValueError(f"split must be one of {', '.join(tabletop.SPLITS)}, got {split!r}")
        count = min(limit or tabletop.SPLITS[split].count, tabletop.SPLITS[split].count)
        return tabletop.panoptic(
            tabletop.load_split(split, cache_dir, workers, count, progress=progress), by
        )
    if by != "shape":
        raise ValueError(f"by={by} is of rendered scenes of Tabletop, got a data set on disk")
    found = readers[name](root, split)
    return found if limit is None else found[:limit]


def coco_panoptic(root: str | os.PathLike[str], split: str = "val") -> PanopticDataset:
    """COCO's panoptic labels (80 things, 53 stuffs), or any data set in its layout.

    Args:
        root: the folder coco, or the one that holds it.
        split: train, val, or another that has a file `annotations/panoptic_<split>.json`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the JSON file is damaged or contradicts itself.
    """
    return find_coco_panoptic(root, split).whole()


def find_coco_panoptic(root: str | os.PathLike[str], split: str) -> PanopticDataset:
    """As `coco_panoptic`, of which pictures and maps may be missing (`pairs.missing`)."""
    base, folder = below(root, "coco"), f"{split}2017" if split in _DATED else split
    table = read_panoptic(base / "annotations" / f"panoptic_{folder}.json")
    count = tabletop_count(table.names, split)
    return _matched(
        "coco-panoptic",
        split,
        table,
        base / folder,
        base / f"panoptic_{folder}",
        base / "annotations" / f"instances_{folder}.json",
        count or (COCO_COUNTS.get(split) if len(table.names) == 133 else None),
    )


def coco_panoptic_splits(root: Path) -> list[str]:
    """Splits that have a JSON file."""
    found = sorted((below(root, "coco") / "annotations").glob(_COCO))
    back = {f"{split}2017": split for split in _DATED}
    names = [path.stem.removeprefix("panoptic_") for path in found]
    return [back.get(name, name) for name in names]


def ade20k_panoptic(root: str | os.PathLike[str], split: str = "val") -> PanopticDataset:
    """ADE20K's panoptic labels (100 things, 50 stuffs); see `vpd.data.ade_panoptic`.

    Args:
        root: the folder ADEChallengeData2016, or the one that holds it.
        split: train, val, or another that has a file `ade20k_panoptic_<split>.json`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the JSON file is damaged or contradicts itself.
    """
    return find_ade20k_panoptic(root, split).whole()


def find_ade20k_panoptic(root: str | os.PathLike[str], split: str) -> PanopticDataset:
    """As `ade20k_panoptic`, of which pictures and maps may be missing (`pairs.missing`)."""
    base = below(root, "ADEChallengeData2016")
    table = read_panoptic(base / f"ade20k_panoptic_{split}.json")
    count = tabletop_count(table.names, split)
    return _matched(
        "ade20k-panoptic",
        split,
        table,
        base / "images" / ADE_FOLDERS.get(split, split),
        base / f"ade20k_panoptic_{split}",
        base / f"ade20k_instance_{split}.json",
        count or (ADE_COUNTS.get(split) if len(table.names) == 150 else None),
    )


def ade20k_panoptic_splits(root: Path) -> list[str]:
    """Splits that have a JSON file."""
    found = sorted(below(root, "ADEChallengeData2016").glob(_ADE))
    return [path.stem.removeprefix("ade20k_panoptic_") for path in found]


def _matched(
    name: str,
    split: str,
    table: PanopticTable,
    images: Path,
    maps: Path,
    instances: Path,
    published: int | None,
) -> PanopticDataset:
    """The rows of a table whose files are there, and what is missing of the others."""
    there, drawn = set(files_below(images)), set(files_below(maps))
    found, rows, missing = [], [], []
    for row, (image, ids) in enumerate(zip(table.images, table.maps, strict=True)):
        lost = [*([] if image in there else [image]), *([] if ids in drawn else [ids])]
        missing += lost
        if not lost:
            found.append((Path(image).stem, image, ids))
            rows.append(row)
    unused = tuple(sorted(drawn - set(table.maps)))
    listed = instances.is_file()
    classes = {stored: i for i, stored in enumerate(table.category_ids)}
    count = sum(table.things)
    return PanopticDataset(
        name,
        split,
        f"{count} things, {len(table.names) - count} stuffs" + (", instances" if listed else ""),
        Pairs(images, maps, tuple(found), tuple(missing), unused),
        table,
        tuple(rows),
        InstanceFile(instances, classes) if listed else None,
        published,
    )
