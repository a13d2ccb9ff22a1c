"""What a training run will need: trained parameters and peak memory, known before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vpd.memory import LiveBytes
from vpd.models.unet import UNetOutput
from vpd.tasks.refer import ReferConfig, ReferSegmenter
from vpd.train.feature_cache import keeps_outputs
from vpd.train.frozen import hold_frozen
from vpd.train.loop import LoopConfig, resolve_precision
from vpd.train.picture_latents import reproducible
from vpd.train.refer_config import ReferTrainConfig
from vpd.train.refer_model import empty_model
from vpd.train.refer_table import Batch
from vpd.train.refer_training import ReferTraining

__all__ = ["BlankStep", "Footprint", "Part", "blank_outputs", "counted", "footprint", "refer_step"]


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


def footprint(config: ReferTrainConfig) -> Footprint:
    """Works out what `vpd train` will need, by a step on tensors without values.

    Nothing is read but the foundation's config, and nothing is computed, so a full-size run takes
    seconds. Not in it: the data set, the evaluation between steps, and what fills the caches of
    latents and of U-Net outputs before the first one.
    """
    with refer_step(config) as step:
        return counted(step.model, step.module, step.loop, step.loss)


@contextmanager
def refer_step(config: ReferTrainConfig) -> Iterator[BlankStep]:
    """A step of `vpd train`, as long as a ``with`` block lasts."""
    with FakeTensorMode(allow_non_fake_inputs=True):  # small constants have values
        model = empty_model(config)
        hold_frozen(model, config)
        batch = _batch(config, model.config)

        def outputs(rows: int) -> UNetOutput:
            states = model.text(batch.ids[:rows]).hidden
            return model.features(batch.latents[:rows], states)

        cached: Any = None
        # A U-Net that is only left out of the optimizer is said to cost what its gradients do.
        kept = config.freeze == "unet" and keeps_outputs(config)
        if kept and not _changes(config, model):
            with torch.no_grad():
                cached = blank_outputs(outputs(1))
        module = ReferTraining(model, config, cached=cached)

        def loss() -> Tensor:
            _encode(model, config, batch, anew=True)
            return module.loss(batch)

        def once() -> None:
            _encode(model, config, batch, anew=False)
            if cached is not None:
                outputs(1)

        yield BlankStep(model, module, config.loop, loss, once)


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


def _changes(config: ReferTrainConfig, model: ReferSegmenter) -> bool:
    """Whether latents of a picture differ from step to step."""
    noises = model.config.noises
    return any((config.fresh_noise and n.adds_noise) or not reproducible(n) for n in noises)


def _encode(model: ReferSegmenter, config: ReferTrainConfig, batch: Batch, anew: bool) -> None:
    """The autoencoder on the pictures of a batch in every step (``anew``), where noise on pixels is
    drawn anew, or else on one picture before the first."""
    noise, fresh = model.config.noise, config.fresh_noise
    in_steps = noise.noise_space == "pixel" and (fresh or noise.seed is None)
    if in_steps != anew:
        return
    side, weight = model.config.image_size, next(model.vae.parameters())
    rows = len(batch.latents) if anew else 1
    pictures = torch.zeros(rows, 3, side, side, dtype=weight.dtype)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        for _ in range(max(1, sum(spec.changes_pixels for spec in model.config.noises))):
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
