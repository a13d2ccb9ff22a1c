"""Seconds that counted operators take on a device: a roofline (Williams et al. 2009) with what is
reached of it in practice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vpd.cost import Kind, Operation

__all__ = ["DEVICES", "Device", "Reach", "all_reduce", "devices_of", "probe", "seconds"]


@dataclass(frozen=True)
class Reach:
    """Which share of a device's peaks the kernels of a kind come to."""

    convolution: float
    matrix: float
    attention: float
    other: float
    """Of the bandwidth of its memory."""

    def of(self, kind: Kind) -> float:
        return float(getattr(self, kind))


CPU_REACH = Reach(convolution=1.0, matrix=0.95, attention=0.76, other=0.42)
"""Measured: benchmarks/scaling.py, Stable Diffusion's U-Net, frozen, in float32, on Zen 4."""
GPU_REACH = Reach(convolution=0.5, matrix=0.6, attention=0.35, other=0.75)
"""Assumed, not measured."""


@dataclass(frozen=True)
class Device:
    """What a device can do at best, by its data sheet or :func:`probe`."""

    name: str
    peaks: Mapping[str, float]
    """FLOP a second of dense matrix products, by their type; ``tf32`` stands for convolutions of
    float32, which PyTorch computes so where it can. A type without is computed as float32."""
    bandwidth: float
    """Bytes a second from its memory."""
    memory: float
    """Bytes."""
    link: float = 0.0
    """Bytes a second that each of several such devices sends in an all-reduce."""
    reach: Reach = GPU_REACH
    overhead: float = 6e-6
    """Seconds that any operator takes at least."""
    is_gpu: bool = field(default=True, kw_only=True)

    def peak(self, kind: Kind, dtype: torch.dtype) -> float:
        """FLOP a second of matrix products, convolutions or attention of a type."""
        name = str(dtype).removeprefix("torch.")
        if name == "float32" and kind == "convolution":
            name = "tf32"
        return self.peaks.get(name, self.peaks["float32"])

    @property
    def usable(self) -> float:
        """Bytes for tensors: on a GPU the context and what fragments take a tenth."""
        return self.memory * (0.9 if self.is_gpu else 1.0)


def _gpu(name: str, peaks: Mapping[str, float], bandwidth: float, gb: float, link: float) -> Device:
    """Peaks in TFLOP, bandwidth and link in GB a second, memory in GB."""
    own = {key: value * 1e12 for key, value in peaks.items()}
    return Device(name, own, bandwidth * 1e9, gb * 1e9, link * 1e9)


_A100 = {"float32": 19.5, "tf32": 156.0, "bfloat16": 312.0, "float16": 312.0}
_H100 = {"float32": 67.0, "tf32": 494.0, "bfloat16": 989.0, "float16": 989.0}
DEVICES: tuple[Device, ...] = (
    _gpu("T4", {"float32": 8.1, "float16": 65.0}, 320, 16, 6),
    _gpu("V100", {"float32": 15.7, "float16": 125.0}, 900, 32, 130),
    _gpu("A100-40", _A100, 1555, 40, 230),
    _gpu("A100-80", _A100, 2039, 80, 230),
    _gpu("H100", _H100, 3350, 80, 370),
    _gpu("H200", _H100, 4800, 141, 370),
)
"""By the makers' data sheets, matrices without sparsity. Links: what all-reduces reach over PCIe
(T4) and NVLink, a rough figure."""


def devices_of(names: Iterable[str]) -> list[Device]:
    """Devices by name; ``here`` is this machine, measured: its first GPU if it has one.

    Raises:
        ValueError: A name that is not known.
    """
    known = {device.name: device for device in DEVICES}
    here = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = []
    for name in names:
        if name != "here" and name not in known:
            raise ValueError(f"device must be one of here, {', '.join(known)}, got {name!r}")
        found.append(probe(here) if name == "here" else known[name])
    return found


def seconds(
    operations: Iterable[tuple[Operation, float]],
    device: Device,
    autocast: torch.dtype | None = None,
) -> float:
    """Time of operators one after the other.

    Args:
        operations: Each with how often it is called.
        device: Where they run.
        autocast: Type that matrix products run in. On the CPU attention that is differentiated
            is counted in float32, as it runs there; a GPU keeps to this type.
    """
    return sum(times * _seconds(own, device, autocast) for own, times in operations)


def _seconds(own: Operation, device: Device, autocast: torch.dtype | None) -> float:
    kind, reach = own.kind, device.reach
    narrowed = autocast is not None and device.is_gpu and kind == "attention"
    computed = 0.0
    if own.flop > 0:
        dtype = autocast if narrowed and autocast is not None else own.dtype
        peak = device.peak(kind, dtype) if kind != "other" else device.peaks["float32"]
        computed = own.flop / (peak * (reach.of(kind) if kind != "other" else reach.matrix))
    return max(computed, own.bytes / (device.bandwidth * reach.other), device.overhead)


def all_reduce(count: int, device: Device, processes: int) -> tuple[float, float]:
    """Summing up float32 gradients in a ring: bytes that each process sends, and seconds."""
    sent = 4 * count * 2 * (processes - 1) / processes
    if processes > 1 and not device.link:
        return sent, float("inf")
    return sent, sent / device.link if processes > 1 else 0.0


def _products(on: torch.device) -> Iterator[tuple[str, float, Callable[[], Tensor]]]:
    """What shows a device's peaks, the fastest of each type: type, FLOP, and what runs it. On a CPU
    also convolutions, as the library that multiplies matrices is not the faster one everywhere."""
    side = 8192 if on.type == "cuda" else 1024
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        a = torch.ones(side, side, dtype=dtype, device=on)
        yield name, 2.0 * side**3, partial(torch.mm, a, a)
        if on.type == "cpu":
            x = torch.ones(1, 320, 64, 64, dtype=dtype).to(memory_format=torch.channels_last)
            kernel = torch.ones(320, 320, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
            yield name, 2.0 * 9 * 320 * x.numel(), partial(F.conv2d, x, kernel, padding=1)


def probe(on: torch.device, clock: Callable[[], float] = time.perf_counter) -> Device:
    """A device of this machine: products, a sum of large arrays and one of small ones, about a
    second.

    Args:
        on: The device.
        clock: Says the seconds that count, of all or, like ``time.thread_time``, of one thread.
    """
    gpu = on.type == "cuda"

    def best(run: Callable[[], object], times: int) -> float:
        """Seconds of the fastest run."""
        found = float("inf")
        for _ in range(times + 1):  # the first warms up, and is slower
            start = clock()
            run()
            if gpu:
                torch.cuda.synchronize()
            found = min(found, clock() - start)
        return found

    peaks: dict[str, float] = {}
    for name, flop, run in _products(on):
        peaks[name] = max(flop / best(run, 10), peaks.get(name, 0.0))
    x, y = (torch.ones(2**28 if gpu else 2**24, device=on) for _ in range(2))
    bandwidth = 3 * x.nbytes / best(lambda: torch.add(x, y, out=x), 5)
    small = torch.ones(64, device=on)
    overhead = best(lambda: [small.add_(1) for _ in range(100)], 5) / 100
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if gpu:
        card = torch.cuda.get_device_properties(on)
        return Device(
            card.name, peaks, bandwidth, card.total_memory, reach=GPU_REACH, overhead=overhead
        )
    return Device(
        "this CPU", peaks, bandwidth, memory, reach=CPU_REACH, overhead=overhead, is_gpu=False
    )
