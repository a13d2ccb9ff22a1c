"""The data that a command's options name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

__all__ = ["Data", "samples_of"]

Data = Literal["tabletop", "refcoco", "refcoco+", "refcocog", "refclef"]


def samples_of(
    data: str, root: Path | None, split: str, split_by: str | None, limit: int | None
) -> Any:
    """A data set below ``root``, or Tabletop rendered where there is none."""
    if data not in get_args(Data):
        raise ValueError(f"data with sentences must be one of {get_args(Data)}, got {data!r}")
    if root is not None:
        from vpd.data.refer import ReferDataset

        return ReferDataset(root, data, split_by, split)
    if data != "tabletop":
        raise ValueError(f"{data} is read from disk: give its folder with --root")
    from vpd.data import tabletop

    if split not in tabletop.SPLITS:
        raise ValueError(f"split must be one of {', '.join(tabletop.SPLITS)}, got {split!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    count = tabletop.SPLITS[split].count
    return tabletop.load_split(split, limit=None if limit is None else min(limit, count))
