"""Says whether a data set of labels, segments or depth is whole, before a long run finds out."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpd.data import depth, panoptic, semantic
from vpd.data.pairs import folders_in

SAMPLE = 16  # pairs of each split that are read unless all are
_THREADS = 8


@dataclass(frozen=True)
class PairsSplit:
    """What a split holds.

    Attributes:
        variant: which of its forms was found.
        pairs: pictures that have their label or depth.
        published: how many the official release has, None if unknown.
        missing: pictures without label or depth, or files of a list, that are not there.
        unused: labels or depths without a picture.
        read: how many pairs were read.
        problems: what is wrong with those, or why the split cannot be looked into.
    """

    split: str
    variant: str
    pairs: int
    published: int | None
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    read: int = 0
    problems: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool | None:
        """Whether the count is the published one; None where nothing is published."""
        return None if self.published is None else self.pairs == self.published


@dataclass(frozen=True)
class PairsReport:
    """Result of `check_pairs`.

    Attributes:
        classes: names of the classes, empty for depth.
        scenes: names of the scene types, empty for labels.
    """

    layout: str
    root: Path
    classes: tuple[str, ...]
    scenes: tuple[str, ...]
    splits: tuple[PairsSplit, ...]

    @property
    def recognised(self) -> bool:
        """Whether every split that is there has exactly its published count."""
        return all(s.agrees is not False for s in self.splits) and any(
            s.agrees for s in self.splits
        )

    @property
    def ok(self) -> bool:
        """Whether every picture has its label or depth, and those that were read are sound.

        Counts may still be unusual.
        """
        return all(s.pairs and not (s.missing or s.problems) for s in self.splits)

    def table(self, names: int = 5) -> str:
        """The report as text, with at most `names` names of each kind."""
        known = "counts as published" if self.recognised else "not a published variant"
        kinds = (
            f"scene types: {len(self.scenes)}" if self.scenes else f"classes: {len(self.classes)}"
        )
        lines = [
            f"{self.layout} in {self.root}: {known}, {kinds}",
            f"{'split':<10} {'pairs':>8} {'read':>6}   published   variant",
        ]
        for s in self.splits:
            note = "-" if s.published is None else "same" if s.agrees else str(s.published)
            lines.append(f"{s.split:<10} {s.pairs:>8} {s.read:>6}   {note:<9}   {s.variant}")
        for s in self.splits:
            for fault, found in (
                ("missing", s.missing),
                ("without a picture", s.unused),
                ("problems", s.problems),
            ):
                if found:
                    more = f" and {len(found) - names} more" if len(found) > names else ""
                    first = "; ".join(found[:names])
                    lines.append(f"{s.split}, {fault} ({len(found)}): {first}{more}")
        return "\n".join(lines)


def _folder_splits(root: Path) -> list[str]:
    return ["all"] if {"images"} < set(folders_in(root)) & {"images", "masks", "depths"} else []


def _find_folder(root: Path, split: str) -> Any:
    if (root / "masks").is_dir():
        names = root / "classes.txt"
        return semantic.find_image_masks(root / "images", root / "masks", names)
    return depth.find_image_depths(root / "images", root / "depths")


# Layout -> the splits that are there, and how one is opened although files may be missing.
LAYOUTS: dict[str, tuple[Callable[[Path], list[str]], Callable[[Path, str], Any]]] = {
    "ade20k": (semantic.ade20k_splits, semantic.find_ade20k),
    "coco-stuff": (semantic.coco_stuff_splits, semantic.find_coco_stuff),
    "cityscapes": (semantic.cityscapes_splits, semantic.find_cityscapes),
    "nyuv2": (depth.nyuv2_splits, depth.find_nyuv2),
    "coco-panoptic": (panoptic.coco_panoptic_splits, panoptic.find_coco_panoptic),
    "ade20k-panoptic": (panoptic.ade20k_panoptic_splits, panoptic.find_ade20k_panoptic),
    "folder": (_folder_splits, _find_folder),
}
# A layout is there if one of these folders is.
_SIGNS = {
    "ade20k": ("ADEChallengeData2016", "images/training", "images/validation"),
    "coco-stuff": ("coco_stuff164k", "images/train2017", "images/val2017"),
    "cityscapes": ("leftImg8bit", "cityscapes/leftImg8bit"),
    "nyuv2": ("nyu_depth_v2", "official_splits", "sync"),
    "coco-panoptic": tuple(
        f"{base}panoptic_{split}2017" for base in ("", "coco/") for split in ("train", "val")
    ),
    "ade20k-panoptic": tuple(
        f"{base}ade20k_panoptic_{split}"
        for base in ("", "ADEChallengeData2016/")
        for split in ("train", "val")
    ),
}
_LOOKED_FOR = {
    "ade20k": "ADEChallengeData2016/images/{training,validation}",
    "coco-stuff": "coco_stuff164k/images/{train2017,val2017}",
    "cityscapes": "leftImg8bit/{train,val,test}",
    "nyuv2": "nyu_depth_v2/official_splits/{train,test} or nyu_depth_v2/sync",
    "coco-panoptic": "coco/annotations/panoptic_{train,val}2017.json",
    "ade20k-panoptic": "ADEChallengeData2016/ade20k_panoptic_{train,val}.json",
    "folder": "images, and masks (with classes.txt) or depths",
}


def check_pairs(
    root: str | os.PathLike[str], layout: str, *, sample: int | None = SAMPLE
) -> PairsReport:
    """Pairs the files of every split of a data set, counts them, and reads some.

    Args:
        root: as the reader of the layout takes it; of "folder" the one that holds images and
            masks (with classes.txt) or depths.
        layout: one of LAYOUTS.
        sample: how many pairs of each split are read, evenly spread; None for all.

    Raises:
        ValueError: on an unknown layout.
        FileNotFoundError: if there is nothing of this layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    splits_of, find = LAYOUTS[layout]
    splits = splits_of(Path(root))
    if not splits:
        raise FileNotFoundError(
            f"{root}: expected {layout} here ({_LOOKED_FOR[layout]}), found nothing of it"
        )
    found: list[PairsSplit] = []
    classes: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    for split in splits:
        try:
            data = find(Path(root), split)
        except (OSError, ValueError) as error:
            found.append(PairsSplit(split, "?", 0, None, problems=(str(error),)))
            continue
        classes, scenes = getattr(data, "names", ()), getattr(data, "scenes", ())
        found.append(_look(data, sample))
    return PairsReport(layout, Path(root), classes, scenes, tuple(found))


def layouts_in(root: str | os.PathLike[str]) -> list[str]:
    """Layouts of LAYOUTS whose folders are there."""
    found = [
        name
        for name, signs in _SIGNS.items()
        if any((Path(root) / sign).is_dir() for sign in signs)
    ]
    return [*found, *(["folder"] if _folder_splits(Path(root)) else [])]


def _look(data: Any, sample: int | None) -> PairsSplit:
    count = len(data) if sample is None else min(sample, len(data))
    chosen = [data[i * len(data) // count] for i in range(count)]
    with ThreadPoolExecutor(_THREADS) as pool:
        faults = list(pool.map(_fault, chosen))
    pairs = data.pairs
    return PairsSplit(
        split=data.split,
        variant=data.variant,
        pairs=len(data),
        published=data.published,
        missing=pairs.missing,
        unused=pairs.unused,
        read=count,
        problems=tuple(fault for fault in faults if fault is not None),
    )


def _fault(sample: Any) -> str | None:
    try:
        sample.read()
    except (OSError, ValueError) as error:
        return str(error)
    return None
