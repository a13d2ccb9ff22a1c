"""Numbers from a MATLAB 5 file ("MAT-File Format", MathWorks, chapter 1), without trust in it."""

import math
import os
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_HEADER = 128
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_TYPES = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_NUMERIC = range(6, 16)  # classes: double, single and integers
_COMPLEX = 0x800
_MOST_BYTES = 1 << 24  # of one array, unpacked


def read_numbers(
    path: str | os.PathLike[str], names: Collection[str]
) -> dict[str, NDArray[np.int64]]:
    """Whole numbers of some arrays of a file, as they lie there (column by column): int64 [n].

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it is no MATLAB 5 file, lacks an array, or one holds something else.
    """
    data = Path(path).read_bytes()
    try:
        order = {b"IM": "<", b"MI": ">"}[data[126:_HEADER]]
        found = dict(_arrays(data[_HEADER:], order, names))
    except (KeyError, struct.error, zlib.error, ValueError) as error:
        raise ValueError(
            f"{path}: expected a MATLAB 5 file with {', '.join(names)}, but it is damaged or "
            f"another one ({type(error).__name__}: {error})"
        ) from error
    for name in names:
        if name not in found:
            raise ValueError(f"{path}: expected a MATLAB 5 file with {', '.join(names)}, no {name}")
    return found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each element. Up to four bytes lie in the tag itself."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        begin, step = at + 8, size if kind == _COMPRESSED else -(-size // 8) * 8
        if kind >> 16:
            kind, size, begin, step = kind & 0xFFFF, kind >> 16, at + 4, 0
        if begin + size > len(data) or (begin == at + 4 and size > 4):
            raise ValueError(f"an element of {size} bytes at {at} reaches past its end")
        yield kind, data[begin : begin + size]
        at += 8 + step


def _arrays(
    data: bytes, order: str, names: Collection[str]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    for kind, content in _elements(data, order):
        if kind == _COMPRESSED:
            content = zlib.decompressobj().decompress(content, _MOST_BYTES)
            kind, content = next(_elements(content, order), (0, b""))
        if kind != _MATRIX:
            continue
        parts = list(_elements(content, order))
        kinds = [kind for kind, _ in parts[:3]]
        if kinds != [_UINT32, _INT32, _INT8]:
            continue  # an object, or a function's handle
        name = parts[2][1].decode("latin-1")
        if name in names:
            yield name, _numbers(name, parts, order)


def _numbers(name: str, parts: list[tuple[int, bytes]], order: str) -> NDArray[np.int64]:
    (flags,) = struct.unpack_from(f"{order}I", parts[0][1])
    count = math.prod(np.frombuffer(parts[1][1], f"{order}i4").tolist())
    if flags & 0xFF not in _NUMERIC or flags & _COMPLEX or len(parts) != 4:
        raise ValueError(f"{name} holds no real numbers")
    values = np.frombuffer(parts[3][1], order + _TYPES[parts[3][0]])
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} numbers, its size says {count}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    if not ((values == np.floor(values)) & (abs(values.astype(np.float64)) < 2**53)).all():
        raise ValueError(f"{name} holds numbers that are not whole")
    return values.astype(np.int64)
