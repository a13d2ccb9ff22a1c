"""Label pictures: which class a stored value means."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpd.data.files import read_unchanged
from vpd.decoding import PNG

_COLOUR_TYPE = 25  # offset in a PNG file
_PALETTE = 3


@dataclass(frozen=True)
class LabelCoding:
    """The class of every stored value; a value that is not listed must not occur.

    Attributes:
        classes: how many there are; ids are 0 .. classes - 1.
        ignore_index: the id of pixels without a class, no class itself.
        table: class or `ignore_index` by stored value, -1 where a value must not occur.
        said: the stored values in words, for messages.
    """

    classes: int
    ignore_index: int
    table: tuple[int, ...]
    said: str

    def decode(self, stored: NDArray[Any], where: object) -> NDArray[Any]:
        """Class ids of stored values.

        Args:
            stored: uint8 or uint16 [H, W].
            where: the file, for messages.

        Returns:
            uint8 [H, W], or int64 where an id is above 255.

        Raises:
            ValueError: if a value occurs that the coding does not have.
        """
        small = max(self.classes - 1, self.ignore_index) <= 255
        table = np.full(np.iinfo(stored.dtype).max + 1, -1, np.int64)
        known = self.table[: len(table)]
        table[: len(known)] = known
        counts = np.bincount(stored.ravel(), minlength=len(table))
        wrong = np.flatnonzero((table < 0) & (counts > 0))
        if wrong.size:
            more = f" and {wrong.size - 5} more" if wrong.size > 5 else ""
            raise ValueError(
                f"{where}: expected labels {self.said}, got {', '.join(map(str, wrong[:5]))}{more} "
                f"({counts[wrong].sum()} of {stored.size} pixels)"
            )
        return table.astype(np.uint8 if small else np.int64)[stored]


def direct(classes: int, ignore_index: int = 255) -> LabelCoding:
    """Stored values are class ids, and `ignore_index`."""
    _check(classes, ignore_index)
    pairs = {i: i for i in range(classes)} | {ignore_index: ignore_index}
    return _coding(classes, ignore_index, pairs, f"0..{classes - 1} or {ignore_index} (none)")


def zero_reduced(classes: int, ignore_index: int = 255) -> LabelCoding:
    """Stored values are class ids plus one; 0 and `ignore_index` are no class (ADE20K)."""
    _check(classes, ignore_index)
    pairs = {0: ignore_index, ignore_index: ignore_index} | {i + 1: i for i in range(classes)}
    return _coding(classes, ignore_index, pairs, f"1..{classes} or 0 (none)")


def mapped(
    class_of: Mapping[int, int], classes: int, said: str, ignore_index: int = 255
) -> LabelCoding:
    """Stored values stand for the classes of a mapping; `ignore_index` is none."""
    _check(classes, ignore_index)
    return _coding(classes, ignore_index, {ignore_index: ignore_index} | dict(class_of), said)


def _check(classes: int, ignore_index: int) -> None:
    if not classes <= ignore_index <= 65535:
        raise ValueError(
            f"ignore_index must be no class and fit 16 bits, {classes}..65535, got {ignore_index}"
        )


def _coding(classes: int, ignore_index: int, pairs: Mapping[int, int], said: str) -> LabelCoding:
    table = [-1] * (max(pairs) + 1)
    for value, class_id in pairs.items():
        table[value] = class_id
    return LabelCoding(classes, ignore_index, tuple(table), said)


def read_stored(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The values of a label picture as stored: uint8 or uint16 [H, W].

    Of a palette PNG these are the indices, not the colours.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no whole picture of one channel.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a label picture here, found no file")
    stored = _palette_indices(path) if _has_palette(path) else read_unchanged(path)
    if stored is None:
        size = path.stat().st_size
        raise ValueError(f"{path}: expected a label picture, got {size} bytes that are none")
    if stored.ndim != 2 or stored.dtype not in (np.uint8, np.uint16):
        channels = 1 if stored.ndim == 2 else stored.shape[2]
        raise ValueError(
            f"{path}: expected labels in one channel of 8 or 16 bits, got {channels} of "
            f"{stored.dtype}"
        )
    return stored


def _has_palette(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_COLOUR_TYPE + 1)
    return head.startswith(PNG) and head[_COLOUR_TYPE:] == bytes([_PALETTE])


def _palette_indices(path: Path) -> NDArray[Any] | None:
    """OpenCV gives the colours of a palette PNG only, so its indices come through Pillow."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return np.asarray(picture)
    # Pillow raises nearly anything on a damaged file, SyntaxError included.
    except Exception:
        return None
