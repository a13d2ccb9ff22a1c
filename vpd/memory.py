"""Memory: what a process holds, what a computation is going to need, and what becomes of freed
blocks."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from vpd._load import core

__all__ = [
    "FreedMemory",
    "LiveBytes",
    "peak_resident",
    "reset_peak",
    "resident",
    "set_freed_memory",
    "watch_peak",
]

FreedMemory = Literal["kept", "returned"]


def set_freed_memory(policy: FreedMemory) -> None:
    """Says what the C library does with freed memory, in this process, from now on.

    Args:
        policy: ``kept`` for the next step: fastest for small networks, which would otherwise
            get their pages anew at every step. ``returned`` to the system at once, in blocks of
            a megabyte and more: the least memory, for large networks.
    """
    core.set_freed_memory(getattr(core.FreedMemory, policy))


def _status(field: str) -> int:
    path = Path("/proc/self/status")
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{path} has no {field}: resident memory is measured on Linux only")


def resident() -> int:
    """Bytes of this process in memory. Linux."""
    return _status("VmRSS")


def peak_resident() -> int:
    """The most bytes that :func:`resident` has been since :func:`reset_peak`. Linux."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Starts :func:`peak_resident` anew. Linux."""
    Path("/proc/self/clear_refs").write_text("5")


def watch_peak(device: torch.device) -> Callable[[], int | None]:
    """Starts watching; the function it returns says the most bytes in use since: allocated on a
    GPU, else resident in this process, weights included. None where that is not known."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_allocated(device)
    try:
        reset_peak()
    except OSError:
        return lambda: None
    return peak_resident


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operators make, while these live.

    Under ``FakeTensorMode`` nothing is computed, so a computation of any size is counted in
    seconds and without its memory. Scratch memory inside of kernels is not seen, nor are weights
    that a network packs when it freezes.

    Args:
        known: Tensors that are there anyway (weights) and do not count.

    Attributes:
        now: Bytes of the living.
        peak: The most that ``now`` has been.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        # Kept, so that nobody else gets their ids.
        self._known = [one.untyped_storage() for one in filter(torch._C._has_storage, known)]
        self._seen: set[int] = {id(storage) for storage in self._known}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(made):
            if isinstance(tensor, Tensor) and torch._C._has_storage(tensor):
                self._see(tensor.untyped_storage())
        return made

    def _see(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size
