"""InstructPix2Pix's folder of edited pairs on disk: written entry by entry, each whole or not.

```
<root>/seeds.json                         [["0000000", ["12", "345"]], ...]: entries with a pair
<root>/0000000/prompt.json                the triplet
<root>/0000000/{12_0.jpg,12_1.jpg,...}    before and after, JPEG of quality 100
<root>/0000000/metadata.jsonl             a line for each pair: its seed, and how it was made
```
An entry is finished once its `prompt.json` is there: it is written last. Entries are independent,
so several processes can write different ones.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpd.data.files import atomic_write, json_lines, parse_json, write_jpeg
from vpd.data.triplets import Triplet

__all__ = [
    "EditPair",
    "Entry",
    "NewPair",
    "entry_name",
    "is_finished",
    "pair_paths",
    "read_prompt",
    "read_seeds",
    "write_entry",
    "write_seeds",
]

_ENTRY = re.compile(r"\d{7,}")
_PLAIN = re.compile(r"[\w-]+(,[\w-]+)+")
_PAIR = re.compile(r"(.+)_([01])\.jpg")


@dataclass(frozen=True)
class Entry:
    """A line of `seeds.json`: a folder's name, and the seeds of its pairs."""

    name: str
    seeds: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class EditPair:
    """A picture before and after an edit.

    Attributes:
        id: entry and seed.
        triplet: caption, instruction, edited caption.
        before, after: uint8 [H, W, 3], RGB, of one size.
        mask: bool [H, W]: the edited object, where it was and where it is; None if unknown.
    """

    id: str
    triplet: Triplet
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class NewPair:
    """A pair to be written.

    Attributes:
        seed: what it was made from, >= 0; names its files.
        before, after: uint8 [H, W, 3], RGB, of one size.
        details: more of its line in `metadata.jsonl`.
    """

    seed: int
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = (self.before.shape, self.after.shape)
        types = (self.before.dtype, self.after.dtype)
        if shapes[0] != shapes[1] or len(shapes[0]) != 3 or any(t != np.uint8 for t in types):
            raise ValueError(
                "a pair needs two pictures uint8 [H, W, 3] of one size, got "
                f"{types[0]} {list(shapes[0])} and {types[1]} {list(shapes[1])}"
            )
        if self.seed < 0:
            raise ValueError(f"a pair's seed must be at least 0, got {self.seed}")


def entry_name(index: int) -> str:
    """The folder of a triplet: its number with seven digits."""
    return f"{index:07d}"


def pair_paths(root: str | os.PathLike[str], entry: str, seed: str) -> tuple[Path, Path]:
    """The files of a pair: before, after."""
    folder = Path(root) / entry
    return folder / f"{seed}_0.jpg", folder / f"{seed}_1.jpg"


def is_finished(root: str | os.PathLike[str], index: int) -> bool:
    """Whether an entry was written to its end."""
    return (Path(root) / entry_name(index) / "prompt.json").is_file()


def write_entry(
    root: str | os.PathLike[str], index: int, triplet: Triplet, pairs: Iterable[NewPair]
) -> None:
    """Writes the folder of a triplet with its pairs; none is fine: it is finished then, too.

    What an earlier run left in the folder is removed first.

    Raises:
        ValueError: Two pairs with one seed.
    """
    folder = Path(root) / entry_name(index)
    for path in (folder / "prompt.json", *folder.glob("*_[01].jpg")):
        path.unlink(missing_ok=True)
    rows: dict[int, dict[str, Any]] = {}
    for pair in pairs:
        if pair.seed in rows:
            raise ValueError(f"{folder}: expected a seed for each pair, got {pair.seed} twice")
        before, after = pair_paths(root, folder.name, str(pair.seed))
        write_jpeg(before, pair.before, best=True)
        write_jpeg(after, pair.after, best=True)
        rows[pair.seed] = {"seed": pair.seed, **pair.details}
    with atomic_write(folder / "metadata.jsonl") as file:
        file.write(json_lines(rows.values()).encode())
    with atomic_write(folder / "prompt.json") as file:
        file.write(json.dumps(triplet.record()).encode())


def write_seeds(root: str | os.PathLike[str]) -> list[Entry]:
    """Writes `seeds.json` from what is there: finished entries with a pair, sorted.

    Returns:
        Them.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    base = Path(root)
    if not base.is_dir():
        raise FileNotFoundError(f"{base}: expected a folder of edited pairs here, found none")
    found = []
    for folder in sorted(p for p in base.iterdir() if _ENTRY.fullmatch(p.name)):
        if not (folder / "prompt.json").is_file():
            continue
        parts = [m for m in map(_PAIR.fullmatch, sorted(os.listdir(folder))) if m]
        before, after = ({m[1] for m in parts if m[2] == side} for side in "01")
        if before & after:
            found.append(Entry(folder.name, tuple(sorted(before & after))))
    with atomic_write(base / "seeds.json") as file:
        file.write(json.dumps([[entry.name, entry.seeds] for entry in found]).encode())
    return found


def read_seeds(root: str | os.PathLike[str]) -> list[Entry]:
    """The entries that `seeds.json` lists, in its order; pictures are not looked for.

    Raises:
        FileNotFoundError: There is no such file. ValueError: It holds something else.
    """
    path = Path(root) / "seeds.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the list of edited pairs here, found no file")
    rows = parse_json(path.read_bytes(), path)
    try:
        entries = [Entry(str(name), tuple(str(seed) for seed in seeds)) for name, seeds in rows]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected [[entry, [seed, ...]], ...]: {error}") from error
    for entry in entries:
        # A name that leads elsewhere would read files outside of the folder.
        if not _PLAIN.fullmatch(",".join((entry.name, *entry.seeds))):
            raise ValueError(
                f"{path}: expected plain names of an entry and of a seed or more, got "
                f"{entry.name!r} and {list(entry.seeds)}"
            )
    return entries


def read_prompt(root: str | os.PathLike[str], entry: str) -> Triplet:
    """The triplet of an entry; its first text is `input` or `caption`.

    Raises:
        FileNotFoundError: There is no such file. ValueError: It holds something else.
    """
    path = Path(root) / entry / "prompt.json"
    return Triplet.from_record(parse_json(path.read_bytes(), path), str(path))
