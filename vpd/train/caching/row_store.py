"""What frozen networks compute, kept on disk under content keys: computed once, shared by runs,
seeds and processes."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vpd.data.files import atomic_write, parse_json

__all__ = ["RowStore", "digest"]

log = logging.getLogger("vpd")

_CHUNK_BYTES = 32 * 2**20
_KEY_BYTES = 16


def digest(*parts: bytes | str | nn.Module | Mapping[str, Any]) -> str:
    """A hash of content: bytes, text, plain values, or every weight of a network with its name."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            for name, tensor in sorted(part.state_dict().items()):
                found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
                plain = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
                found.update(memoryview(plain.numpy()))
        elif isinstance(part, bytes):
            found.update(part)
        else:
            found.update(json.dumps(part, sort_keys=True).encode())
        found.update(b"\0")
    return found.hexdigest()[:32]


class RowStore:
    """Rows of tensors by key, in a folder.

    A row is one or several tensors of fixed shapes. Rows lie in chunks: safetensors files that
    appear complete or not at all and never change, so any number of processes may read and add at
    once. Chunks are memory-mapped; a damaged one is left out. Copies of a module share a store.

    Args:
        folder: Made when the first row is written. Deleting it while nothing runs is always safe.
        dtype: Of the rows on disk; they are read as float32.

    Example:
        >>> store = RowStore(Path("cache/demo"))
        >>> store.add([b"a"], [torch.ones(1, 2, 3), torch.zeros(1, 4)])
        >>> store.flush()
        >>> [part.shape for part in store.read([b"a"])]
        [torch.Size([1, 2, 3]), torch.Size([1, 4])]
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        self.folder, self.dtype = folder, dtype
        self._shapes: list[tuple[int, ...]] = []
        self._places: dict[bytes, tuple[Tensor, int]] = {}  # key -> chunk [n, V] and row in it
        self._known: set[str] = set()
        self._new: dict[bytes, Tensor] = {}
        self.refresh()

    def __contains__(self, key: bytes) -> bool:
        name = _short(key)
        return name in self._places or name in self._new

    def __len__(self) -> int:
        return len(self._places.keys() | self._new.keys())

    def __deepcopy__(self, memo: dict[int, Any]) -> RowStore:
        return self

    def refresh(self) -> None:
        """Takes in what other processes have written since."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name not in self._known:
                self._known.add(path.name)
                self._map(path)

    def _map(self, path: Path) -> None:
        try:
            shapes, keys, rows = _read_chunk(path)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            log.warning("%s: left out, it is damaged (%s)", path, error)
            return
        if rows.dtype != self.dtype or not self._fits(shapes):
            log.warning("%s: left out, its rows are of another kind", path)
            return
        for row, key in enumerate(keys.numpy()):
            self._places[bytes(key)] = (rows, row)

    def add(self, keys: Sequence[bytes], tensors: Sequence[Tensor]) -> None:
        """Adds rows; they reach the disk in large chunks, the last at :meth:`flush`.

        Args:
            keys: One per row.
            tensors: The parts of the rows, each [len(keys), ...].

        Raises:
            ValueError: Parts of other shapes than before, or values that ``dtype`` cannot hold.
        """
        parts = [tensor.detach().to("cpu", self.dtype).flatten(1) for tensor in tensors]
        rows = torch.cat(parts, dim=1)
        if not torch.isfinite(rows).all():
            largest = max(float(tensor.abs().max()) for tensor in tensors)
            kind = str(self.dtype).removeprefix("torch.")
            raise ValueError(f"expected finite values that {kind} can hold, got up to {largest:g}")
        shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
        if not self._fits(shapes):
            raise ValueError(f"{self.folder}: expected rows of {self._shapes}, got {shapes}")
        self._new.update(zip(map(_short, keys), rows.unbind(), strict=True))
        if len(self._new) * rows.shape[1] * rows.element_size() >= _CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes the rows that are not on disk yet, and takes in what others have written."""
        if self._new:
            names = b"".join(self._new)
            keys = torch.frombuffer(bytearray(names), dtype=torch.uint8).view(len(self._new), -1)
            path = self.folder / f"{digest(names)}.safetensors"
            tensors = {"keys": keys, "rows": torch.stack(list(self._new.values()))}
            data = save(tensors, metadata={"shapes": json.dumps(self._shapes)})
            with atomic_write(path) as file:
                file.write(data)
            self._new.clear()
            self._known.discard(path.name)  # a damaged file may have stood there
        self.refresh()

    def read(self, keys: Iterable[bytes]) -> tuple[Tensor, ...]:
        """The parts of some rows, float32 [len(keys), ...] on the CPU.

        Raises:
            KeyError: A key that was never added.
        """
        found = [self._row(_short(key)) for key in keys]
        sizes = [torch.Size(shape).numel() for shape in self._shapes]
        rows = torch.empty(len(found), sum(sizes), dtype=torch.float32)
        for row, stored in zip(rows, found, strict=True):  # autocast has no say in a copy
            row.copy_(stored)
        parts = zip(torch.split(rows, sizes, dim=1), self._shapes, strict=True)
        return tuple(part.reshape(len(rows), *shape) for part, shape in parts)

    def _row(self, name: bytes) -> Tensor:
        if name in self._new:
            return self._new[name]
        chunk, row = self._places[name]
        return chunk[row]

    def _fits(self, shapes: list[tuple[int, ...]]) -> bool:
        self._shapes = self._shapes or shapes
        return shapes == self._shapes


def _read_chunk(path: Path) -> tuple[list[tuple[int, ...]], Tensor, Tensor]:
    """Shapes of a row's parts, keys uint8 [n, 16] and rows [n, V]; raises nearly anything on a
    damaged file."""
    with safe_open(path, "pt") as file:
        said = parse_json(file.metadata()["shapes"], path)
        keys, rows = file.get_tensor("keys"), file.get_tensor("rows")
    shapes = [tuple(shape) for shape in said]
    if not all(isinstance(n, int) and n >= 0 for shape in shapes for n in shape):
        raise ValueError(f"expected shapes, got {said!r:.80}")
    wanted = (len(keys), sum(math.prod(shape) for shape in shapes))
    if keys.dtype != torch.uint8 or keys.shape[1:] != (_KEY_BYTES,) or rows.shape != wanted:
        raise ValueError(
            f"expected keys [n, {_KEY_BYTES}] and rows {list(wanted)}, got {keys.dtype} "
            f"{list(keys.shape)} and {list(rows.shape)}"
        )
    return shapes, keys, rows


def _short(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:_KEY_BYTES]
