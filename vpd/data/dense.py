"""Data sets with a value for every pixel, by the names that commands and configs use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

__all__ = ["DenseName", "DenseTask", "dense_count", "dense_names", "dense_samples"]

DenseTask = Literal["semantic", "panoptic", "depth"]
DenseName = Literal[
    "tabletop", "ade20k", "coco-stuff", "cityscapes", "coco-panoptic", "ade20k-panoptic", "nyuv2",
    "folder",
]  # fmt: skip
_KNOWN: dict[str, tuple[str, ...]] = {
    "semantic": ("tabletop", "ade20k", "coco-stuff", "cityscapes", "folder"),
    "panoptic": ("tabletop", "coco-panoptic", "ade20k-panoptic"),
    "depth": ("tabletop", "nyuv2", "folder"),
}
_SCENE = "room"  # of a folder's pictures
_UNITS = 1000.0  # in a metre: depth in millimetres


def dense_samples(
    task: DenseTask,
    name: DenseName,
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    targets: str | os.PathLike[str] | None = None,
    names: Sequence[str] | str | os.PathLike[str] | None = None,
    reduce_zero_label: bool | None = None,
    units_per_metre: float | None = None,
    scene: str | None = None,
    limit: int | None = None,
    cache_dir: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Any:
    """The pictures of a split with their labels, segments or depths: a sequence that reads when
    asked.

    Args:
        task: Labels, segments or depths.
        name: ``tabletop`` without a ``root`` is rendered (once, into a cache).
        split: e.g. val; of NYUv2 train or test.
        root: Folder of the data set; of ``folder`` the one that holds ``images``, and ``masks``
            (with ``classes.txt``) or ``depths``.
        images, targets: Of ``folder``: pictures, and masks or depths of the same names, if they
            are elsewhere.
        names: Of ``folder`` with masks: class names, or a file with one a line.
        reduce_zero_label: Of ``folder`` with masks: stored values are class ids plus one, and 0 is
            no class. They are class ids by default.
        units_per_metre: Of ``folder`` with depths: 1000 (the default) for millimetres, 256 for
            KITTI's files, 1 for metres.
        scene: Of ``folder`` with depths: type of the scene of all pictures, "room" by default.
        limit: Only the first so many.
        cache_dir, workers: As :func:`vpd.data.tabletop.load_split` takes them.
        progress: Show a bar while rendering.

    Raises:
        ValueError: A data set that has no such labels, or lacks a folder; and what the readers
            raise.
    """
    _check_name(task, name)
    own = {
        "images": images, "targets": targets, "names": names, "units_per_metre": units_per_metre,
        "reduce_zero_label": reduce_zero_label, "scene": scene,
    }  # fmt: skip
    own = {option: value for option, value in own.items() if value is not None}
    if own and name != "folder":
        raise ValueError(f"{next(iter(own))} is an option of data set 'folder', got {name!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if task == "panoptic":
        from vpd.data.panoptic import panoptic_samples

        where: dict[str, Any] = {"cache_dir": cache_dir, "workers": workers, "progress": progress}
        return panoptic_samples(cast(Any, name), split, root=root, limit=limit, **where)
    if name == "tabletop" and root is None:
        from vpd.data import tabletop
        from vpd.data.tabletop import pictures

        if split not in tabletop.SPLITS:
            raise ValueError(f"split must be one of {', '.join(tabletop.SPLITS)}, got {split!r}")
        count = min(limit or tabletop.SPLITS[split].count, tabletop.SPLITS[split].count)
        source = tabletop.load_split(
            split, cache_dir, workers, count, depth=task == "depth", progress=progress
        )
        return pictures.semantic(source) if task == "semantic" else pictures.depth(source)
    found = _folder(task, root, own) if name == "folder" else _on_disk(task, name, split, root)
    return found if limit is None else found[:limit]


def dense_names(
    task: DenseTask,
    name: DenseName,
    *,
    names: str | os.PathLike[str] | None = None,
    scene: str | None = None,
) -> tuple[str, ...]:
    """The classes of a data set, or its types of scenes, before it is there: as it is published.

    Args:
        task, name, names, scene: As :func:`dense_samples` takes them.

    Raises:
        ValueError: A data set that has no such labels, or a folder of masks without names.
    """
    from vpd.data.naming import class_names, read_names

    _check_name(task, name)
    if name == "tabletop":
        from vpd.data.tabletop import pictures, spec

        return pictures.SCENES if task == "depth" else spec.CLASSES
    if name != "folder":
        known = "ade20k" if name == "ade20k-panoptic" else name
        return class_names(known.replace("-", "_"))
    if task == "depth":
        return (scene or _SCENE,)
    if names is None:
        raise ValueError("data set 'folder' needs names: a file with the name of a class a line")
    return read_names(names)


def dense_count(name: DenseName, split: str) -> int | None:
    """How many pictures a split has, before it is there: as it is published; None where nothing
    is."""
    if name == "tabletop":
        from vpd.data.tabletop import SPLITS

        return SPLITS[split].count if split in SPLITS else None
    if name == "nyuv2":
        from vpd.data.depth import SYNC_COUNTS

        return SYNC_COUNTS.get(split)
    from vpd.data.semantic import ADE_COUNTS, CITYSCAPES_COUNTS, COCO_COUNTS

    for start, counts in (("ade20k", ADE_COUNTS), ("coco", COCO_COUNTS)):
        if name.startswith(start):
            return counts.get(split)
    return CITYSCAPES_COUNTS.get(split) if name == "cityscapes" else None


def _check_name(task: str, name: str) -> None:
    known = _KNOWN[task]
    if name not in known:
        raise ValueError(f"data set for {task} must be one of {', '.join(known)}, got {name!r}")


def _folder(task: str, root: Any, own: dict[str, Any]) -> Any:
    """Pictures and masks, or depths, of anyone's."""
    from vpd.data import depth, semantic

    strange = ("units_per_metre", "scene") if task == "semantic" else ("names", "reduce_zero_label")
    given = [option for option in strange if option in own]
    if given:
        of = "depths" if task == "semantic" else "masks"
        raise ValueError(f"{given[0]} is an option of a folder with {of}, the task is {task}")
    if root is not None:
        own.setdefault("images", Path(root) / "images")
        own.setdefault("targets", Path(root) / ("masks" if task == "semantic" else "depths"))
        if task == "semantic":
            own.setdefault("names", Path(root) / "classes.txt")
    wanted = ("images", "targets", "names") if task == "semantic" else ("images", "targets")
    lacking = [option for option in wanted if option not in own]
    if lacking:
        raise ValueError(
            f"data set 'folder' needs root, or {', '.join(wanted)}; got no {lacking[0]}"
        )
    if task == "semantic":
        reduced = own.get("reduce_zero_label", False)
        return semantic.image_mask_folder(own["images"], own["targets"], own["names"], reduced)
    units = own.get("units_per_metre", _UNITS)
    if not 0 < units < float("inf"):
        raise ValueError(f"units_per_metre must be a positive number, got {units}")
    place = own.get("scene", _SCENE)
    return depth.image_depth_folder(own["images"], own["targets"], 1 / units, place)


def _on_disk(task: str, name: str, split: str, root: Any) -> Any:
    from vpd.data import depth, semantic

    if root is None:
        raise ValueError(f"{name} is read from disk: give its folder, root")
    readers = {
        "tabletop": semantic.ade20k if task == "semantic" else depth.nyuv2,
        "ade20k": semantic.ade20k,
        "coco-stuff": semantic.coco_stuff,
        "cityscapes": semantic.cityscapes,
        "nyuv2": depth.nyuv2,
    }
    return readers[name](root, split)
