"""Edited pairs as a training counts them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from vpd.data import tabletop
from vpd.data.edit import EditDataset
from vpd.data.edit_files import EditPair, pair_paths
from vpd.data.tabletop.edits import TabletopEdits
from vpd.train.edit.config import EditData

__all__ = ["FilePairs", "Pairs", "TabletopPairs", "training_pairs", "val_pairs"]


class Pairs(Protocol):
    """Pairs by number. Several of them may share an entry, of which an epoch visits one."""

    counts: Sequence[int]
    """Pairs of each entry, whose numbers follow each other."""

    def key(self, number: int) -> str:
        """What the pair is known by, without reading it."""

    def pair(self, number: int) -> EditPair: ...

    def instruction(self, number: int) -> str: ...


class TabletopPairs:
    """Of Tabletop: each is an entry of its own, and rendered when it is read."""

    def __init__(self, source: TabletopEdits) -> None:
        self._source = source
        self.counts: Sequence[int] = [1] * len(source)

    def key(self, number: int) -> str:
        return self._source.id(number)

    def pair(self, number: int) -> EditPair:
        return self._source.pair(number)

    def instruction(self, number: int) -> str:
        return self._source.triplet(number).edit


class FilePairs:
    """Of a folder in InstructPix2Pix' layout."""

    def __init__(self, source: EditDataset) -> None:
        self._source = source
        self.counts: Sequence[int] = [len(entry.seeds) for entry in source.entries]
        self._starts = [0, *accumulate(self.counts)]

    def _place(self, number: int) -> tuple[int, int]:
        entry = bisect_right(self._starts, number) - 1
        return entry, number - self._starts[entry]

    def key(self, number: int) -> str:
        entry, place = self._place(number)
        own = self._source.entries[entry]
        paths = pair_paths(self._source.root.resolve(), own.name, own.seeds[place])
        return " ".join(f"{path} {_version(path)}" for path in paths)

    def pair(self, number: int) -> EditPair:
        return self._source.pair_of(*self._place(number))

    def instruction(self, number: int) -> str:
        return self._source.triplet(self._place(number)[0]).edit


def _version(path: Path) -> str:
    """Another one for other content: reading all of it would take as long as decoding it."""
    known = path.stat()
    return f"{known.st_size} {known.st_mtime_ns}"


def training_pairs(data: EditData, progress: bool = True) -> Pairs:
    """What is trained on.

    Raises:
        ValueError, OSError: There is no such split, or no such folder.
    """
    return _pairs(data, data.split, data.root, data.limit, progress)


def val_pairs(data: EditData, progress: bool = True) -> Pairs:
    """What is watched; raises as :func:`training_pairs`."""
    root = data.root if data.val_root is None else data.val_root
    return _pairs(data, data.val_split, root, data.val_limit, progress)


def _pairs(
    data: EditData, split: str, root: str | None, limit: int | None, progress: bool
) -> Pairs:
    if data.name == "tabletop":
        scenes = tabletop.load_split(split, data.cache_dir, data.workers, limit, progress=progress)
        return TabletopPairs(tabletop.edits(scenes, data.per_scene))
    assert root is not None
    own: Any = split
    source = EditDataset(root, own)
    source.entries = source.entries[:limit]
    if not source.entries:
        raise ValueError(f"{root}: expected edited pairs in its split {split!r}, found none")
    return FilePairs(source)
