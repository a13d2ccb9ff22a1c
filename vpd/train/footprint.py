"""What a training run will need: trained parameters and peak memory, known before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vpd.memory import LiveBytes
from vpd.models.unet import UNetOutput
from vpd.train.loop.config import LoopConfig, resolve_precision

__all__ = ["BlankStep", "Footprint", "Part", "blank_outputs", "counted"]


@dataclass(frozen=True)
class Part:
    """Parameters of one network."""

    name: str
    total: int
    requires_grad: int
    in_optimizer: int


@dataclass(frozen=True)
class Footprint:
    """Memory of a run in bytes, its data apart. ``step`` is the most that the tensors of one step
    hold at once, gradients of weights apart."""

    parts: tuple[Part, ...]
    weights: int
    gradients: int
    optimizer: int
    average: int
    step: int
    overhead: int = 50_000_000
    """What kernels and libraries hold besides tensors: 30 to 75 MB measured, whatever the size."""

    @property
    def peak(self) -> int:
        return sum(getattr(self, name) for name in _SIZES)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "peak": self.peak}

    def table(self) -> str:
        """As text."""
        sums = [sum(getattr(p, f) for p in self.parts) for f in _COUNTS]
        rows = [(p.name, *(getattr(p, f) for f in _COUNTS)) for p in self.parts]
        lines = [f"{'parameters':<12}{'total':>14}{'requires grad':>16}{'in optimizer':>16}"]
        lines += [f"{n:<12}{a:>14,}{b:>16,}{c:>16,}" for n, a, b, c in [*rows, ("all", *sums)]]
        sizes = {k: getattr(self, k) for k in (*_SIZES, "peak")}
        memory = ", ".join(f"{name} {size / 1e9:.3g}" for name, size in sizes.items())
        return "\n".join([*lines, f"memory, GB: {memory}"])


_COUNTS = ("total", "requires_grad", "in_optimizer")
_SIZES = ("weights", "gradients", "optimizer", "average", "step", "overhead")


@dataclass(frozen=True)
class BlankStep:
    """A step of a training on tensors without values: to be run under ``FakeTensorMode``."""

    model: nn.Module
    """All networks."""
    module: Any
    """The training; its parameters are those in the optimizer."""
    loop: LoopConfig
    loss: Callable[[], Tensor]
    """All that a step does up to the backward."""
    once: Callable[[], None]
    """What is done with a row before the first step, and kept."""


def blank_outputs(out: UNetOutput) -> Callable[[Tensor], UNetOutput]:
    """Stands for a cache of a backbone's outputs, in the shapes of ``out``: from numbers of samples
    to float32 features and maps, as those that are kept come back. Ones: the system gives zeros
    their memory only when they are written to."""
    features = [feature.shape[1:] for feature in out.features]
    maps = {stride: map_.shape[1:] for stride, map_ in out.attention.items()}

    def outputs(samples: Tensor) -> UNetOutput:
        rows = len(samples)
        return UNetOutput(
            None,
            tuple(torch.ones(rows, *shape) for shape in features),
            {stride: torch.ones(rows, *shape) for stride, shape in maps.items()},
        )

    return outputs


def counted(
    model: nn.Module,
    module: nn.Module,
    loop: LoopConfig,
    loss: Callable[[], Tensor],
    second: AbstractContextManager[Any] | None = None,
) -> Footprint:
    """What a training needs, from two of its steps without values: to be called under
    ``FakeTensorMode``.

    Args:
        model: All networks.
        module: The training; its parameters are those in the optimizer.
        loop: Of its config.
        loss: All that a step does up to the backward.
        second: What the second step runs in.
    """
    bf16 = resolve_precision(loop.precision) == "bf16-mixed"
    with (
        LiveBytes([*model.parameters(), *model.buffers()]) as live,
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        # Two: the gradients of a step live until the next one's backward.
        for within in (nullcontext(), second or nullcontext()):
            with within:
                found = loss()
                module.zero_grad()
                torch.autograd.backward(found)
                del found
    gradients = _bytes(p for p in model.parameters() if p.requires_grad)
    return Footprint(
        parts=tuple(_part(name, part, module) for name, part in model.named_children()),
        weights=_bytes([*model.parameters(), *model.buffers()]),
        gradients=gradients,
        optimizer=2 * _bytes(module.parameters()),  # AdamW's two moments
        average=_bytes(module.state_dict().values()) if loop.ema is not None else 0,
        step=live.peak - gradients,
    )


def _part(name: str, part: nn.Module, module: nn.Module) -> Part:
    own = {id(p) for p in module.parameters()}
    parameters = list(part.parameters())
    return Part(
        name,
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
        sum(p.numel() for p in parameters if id(p) in own),
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
