"""The loop of a sampler."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from vpd._load import core
from vpd.diffusion.noise import NoiseSource
from vpd.diffusion.sampler import Sampler

__all__ = ["Denoiser", "StepWatcher", "sample"]


class Denoiser(Protocol):
    """A network's output for what it sees of the samples [B, ...] at a timestep, such as
    :class:`vpd.diffusion.GuidedUNet`."""

    def __call__(self, seen: Tensor, timestep: float, /) -> Tensor: ...


class StepWatcher(Protocol):
    """Told after every step: its index, the samples after it, the clean ones it predicted. Returns
    None, or samples to go on with instead."""

    def __call__(self, index: int, samples: Tensor, clean: Tensor, /) -> Tensor | None: ...


def sample(
    denoise: Denoiser,
    sampler: Sampler,
    start: Tensor,
    noise: NoiseSource | None = None,
    *,
    first: int = 0,
    on_step: StepWatcher | None = None,
) -> Tensor:
    """Walks a sampler's steps, without gradients.

    Args:
        denoise: The network with its conditions.
        sampler: Its steps.
        start: Samples [B, ...] before step ``first``: standard normal noise times
            :attr:`Sampler.initial_scale`, or :meth:`Sampler.diffuse` of something.
        noise: Asked at every step that adds noise.
        first: Index of the first step.
        on_step: Progress, or a hand in the samples.

    Returns:
        Samples in float32 (float64 if ``start`` is).

    Raises:
        ValueError: No such step, missing noise, shapes that do not fit.
    """
    return core.sample(sampler._core, start, denoise, noise, on_step, first)
