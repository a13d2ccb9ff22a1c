"""Says whether a folder of edited pairs is whole, before a long run finds out."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vpd.data.edit import EditDataset, split_range
from vpd.data.edit_files import pair_paths

__all__ = ["EditReport", "EditTree", "check_edits", "trees_in"]

RELEASED = {"random-sample-dataset": 451_990, "clip-filtered-dataset": 313_010}
"""Entries of InstructPix2Pix's releases."""
_SAMPLE = 16  # pairs of each folder that are read unless all are
_THREADS = 8


@dataclass(frozen=True)
class EditTree:
    """What a folder with a `seeds.json` holds.

    Attributes:
        name: the folder, as seen from the one that was asked about.
        splits: entries by split.
        missing: files that are not there, as seen from the folder.
        read: how many pairs were read.
        problems: what is wrong with those, or why the folder cannot be looked into.
    """

    name: str
    entries: int
    pairs: int
    splits: dict[str, int]
    missing: tuple[str, ...] = ()
    read: int = 0
    problems: tuple[str, ...] = ()

    @property
    def released(self) -> str | None:
        """The published data set with as many entries."""
        return next((name for name, count in RELEASED.items() if count == self.entries), None)


@dataclass(frozen=True)
class EditReport:
    """Result of `check_edits`."""

    root: Path
    trees: tuple[EditTree, ...]

    @property
    def recognised(self) -> bool:
        """Whether every folder has as many entries as a published one."""
        return all(tree.released is not None for tree in self.trees)

    @property
    def ok(self) -> bool:
        """Whether all pairs are there, and those that were read are sound."""
        return all(tree.pairs and not (tree.missing or tree.problems) for tree in self.trees)

    def table(self, names: int = 5) -> str:
        """The report as text, with at most `names` names of each kind."""
        lines = [
            f"edited pairs in {self.root}",
            f"{'folder':<12} {'entries':>8} {'pairs':>8} {'read':>6}   train/val/test   published",
        ]
        for tree in self.trees:
            split = "/".join(str(tree.splits.get(name, 0)) for name in ("train", "val", "test"))
            lines.append(
                f"{tree.name:<12} {tree.entries:>8} {tree.pairs:>8} {tree.read:>6}   {split:<14}   "
                f"{tree.released or '-'}"
            )
        for tree in self.trees:
            for fault, found in (("missing", tree.missing), ("problems", tree.problems)):
                if found:
                    more = f" and {len(found) - names} more" if len(found) > names else ""
                    first = "; ".join(found[:names])
                    lines.append(f"{tree.name}, {fault} ({len(found)}): {first}{more}")
        return "\n".join(lines)


def trees_in(root: str | os.PathLike[str]) -> list[Path]:
    """Folders with a `seeds.json`: this one, or those in it or in its folder `tabletop-ip2p`."""
    base = Path(root)
    if (base / "seeds.json").is_file():
        return [base]
    found = (*base.glob("*/seeds.json"), *base.glob("tabletop-ip2p/*/seeds.json"))
    return sorted(path.parent for path in found)


def check_edits(root: str | os.PathLike[str], *, sample: int | None = _SAMPLE) -> EditReport:
    """Counts entries and pairs, looks for every file, and reads some pairs.

    Args:
        root: a folder with `seeds.json`, or one that holds such folders.
        sample: how many pairs of each folder are read, evenly spread; None for all.

    Raises:
        FileNotFoundError: There is none.
    """
    found = trees_in(root)
    if not found:
        raise FileNotFoundError(f"{root}: expected edited pairs here (seeds.json), found nothing")
    return EditReport(Path(root), tuple(_look(Path(root), tree, sample) for tree in found))


def _look(root: Path, tree: Path, sample: int | None) -> EditTree:
    name = tree.relative_to(root).as_posix()
    try:
        data = EditDataset(tree, "all")
    except ValueError as error:
        return EditTree(name, 0, 0, {}, problems=(str(error),))
    missing = []
    for entry in data.entries:
        files = [tree / entry.name / "prompt.json"]
        files += [path for seed in entry.seeds for path in pair_paths(tree, entry.name, seed)]
        missing += [f.relative_to(tree).as_posix() for f in files if not f.is_file()]
    pairs = [(i, k) for i, entry in enumerate(data.entries) for k in range(len(entry.seeds))]
    count = len(pairs) if sample is None else min(sample, len(pairs))
    chosen = [pairs[i * len(pairs) // count] for i in range(count)]
    with ThreadPoolExecutor(_THREADS) as pool:
        faults = list(pool.map(lambda at: _fault(data, *at), chosen))
    gone = set(missing)
    return EditTree(
        name=name,
        entries=len(data),
        pairs=len(pairs),
        splits={s: len(data.entries[split_range(s, len(data))]) for s in ("train", "val", "test")},
        missing=tuple(missing),
        read=count,
        problems=tuple(f for f in faults if f is not None and not any(g in f for g in gone)),
    )


def _fault(data: EditDataset, index: int, number: int) -> str | None:
    try:
        data.pair_of(index, number)
    except (OSError, ValueError) as error:
        return str(error)
    return None
