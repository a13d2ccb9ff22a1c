"""What a training run will need: trained parameters and peak memory, known before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vpd.memory import LiveBytes
from vpd.tasks.refer import ReferConfig, ReferSegmenter
from vpd.train.frozen import hold_frozen
from vpd.train.loop import LoopConfig, resolve_precision
from vpd.train.refer_config import ReferTrainConfig
from vpd.train.refer_model import empty_model
from vpd.train.refer_table import Batch
from vpd.train.refer_training import ReferTraining

__all__ = ["Footprint", "Part", "counted", "footprint"]


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


def footprint(config: ReferTrainConfig) -> Footprint:
    """Works out what `vpd train` will need, by a step on tensors without values.

    Nothing is read but the foundation's config, and nothing is computed, so a full-size run takes
    seconds. Not in it: the data set, and the evaluation between steps.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):  # small constants have values
        model = empty_model(config)
        hold_frozen(model, config)
        module = ReferTraining(model, config)
        batch = _batch(config, model.config)

        def loss() -> Tensor:
            _encode_anew(model, config, batch)
            return module.loss(batch)

        return counted(model, module, config.loop, loss)


def counted(
    model: nn.Module, module: nn.Module, loop: LoopConfig, loss: Callable[[], Tensor]
) -> Footprint:
    """What a training needs, from two of its steps without values: to be called under
    ``FakeTensorMode``.

    Args:
        model: All networks.
        module: The training; its parameters are those in the optimizer.
        loop: Of its config.
        loss: All that a step does up to the backward.
    """
    bf16 = resolve_precision(loop.precision) == "bf16-mixed"
    with (
        LiveBytes([*model.parameters(), *model.buffers()]) as live,
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        for _ in range(2):  # the gradients of a step live until the next one's backward
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


def _batch(config: ReferTrainConfig, model: ReferConfig) -> Batch:
    rows, size = config.loop.micro_batch or config.loop.batch, model.image_size
    side = size // 2 ** (len(model.vae.ch_mult) - 1)
    latents = torch.zeros(-(-rows // config.together), model.unet.in_channels, side, side)
    if model.attn_t_ensemble:
        latents = torch.stack([latents] * len(model.noises), dim=1)
    return Batch(
        latents=latents,
        ids=torch.zeros(rows, config.token_length, dtype=torch.int64),
        masks=torch.zeros(rows, size, size, dtype=torch.int64),
        index=torch.arange(rows) // config.together,
        samples=torch.arange(rows),
        whole_rows=config.loop.batch,
        whole_pixels=0,
    )


def _encode_anew(model: ReferSegmenter, config: ReferTrainConfig, batch: Batch) -> None:
    """What every step does first where noise on pixels is drawn anew."""
    noise = model.config.noise
    if noise.noise_space != "pixel" or not (config.fresh_noise or noise.seed is None):
        return
    side, weight = model.config.image_size, next(model.vae.parameters())
    pictures = torch.zeros(len(batch.latents), 3, side, side, dtype=weight.dtype)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        for _ in range(sum(spec.changes_pixels for spec in model.config.noises)):
            model.vae.encode(pictures)


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
