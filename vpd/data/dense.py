"""Data sets with a value for every pixel, by the names that commands and configs use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

__all__ = ["DenseName", "dense_samples"]

DenseName = Literal["tabletop", "ade20k", "coco-stuff", "cityscapes", "nyuv2", "folder"]
_SEMANTIC = ("tabletop", "ade20k", "coco-stuff", "cityscapes", "folder")
_DEPTH = ("tabletop", "nyuv2", "folder")


def dense_samples(
    task: Literal["semantic", "depth"],
    name: DenseName,
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    targets: str | os.PathLike[str] | None = None,
    names: Sequence[str] | str | os.PathLike[str] | None = None,
    limit: int | None = None,
    cache_dir: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Any:
    """The pictures of a split with their labels or depths: a sequence that reads when asked.

    Args:
        task: Labels or depths.
        name: ``tabletop`` without a ``root`` is rendered (once, into a cache).
        split: e.g. val; of NYUv2 train or test.
        root: Folder of the data set.
        images, targets: Of ``folder``: pictures, and masks or depths of the same names.
        names: Of ``folder`` with masks: class names, or a file with one a line.
        limit: Only the first so many.
        cache_dir, workers: As :func:`vpd.data.tabletop.load_split` takes them.
        progress: Show a bar while rendering.

    Raises:
        ValueError: A data set that has no such labels, or lacks a folder; and what the readers
            raise.
    """
    known = _SEMANTIC if task == "semantic" else _DEPTH
    if name not in known:
        raise ValueError(f"data set for {task} must be one of {', '.join(known)}, got {name!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
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
    found = _on_disk(task, name, split, root, images, targets, names)
    return found if limit is None else found[:limit]


def _on_disk(
    task: str, name: str, split: str, root: Any, images: Any, targets: Any, names: Any
) -> Any:
    from vpd.data import depth, semantic

    if name == "folder":
        if images is None or targets is None or (task == "semantic" and names is None):
            wanted = "images, targets and names" if task == "semantic" else "images and targets"
            raise ValueError(f"data set 'folder' needs {wanted}")
        if task == "semantic":
            return semantic.image_mask_folder(images, targets, names)
        return depth.image_depth_folder(images, targets)
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
