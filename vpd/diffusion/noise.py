"""Where the noise of a sampler comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from vpd.randomness import named_generator

__all__ = ["START", "NoiseSource", "SampleNoise", "generator_noise"]

START = -1
"""The step at which a :class:`NoiseSource` is asked for the noise to start from."""


class NoiseSource(Protocol):
    """Standard normal noise of a step, of the shape and on the device of ``like``."""

    def __call__(self, step: int, like: Tensor) -> Tensor: ...


class SampleNoise:
    """Noise by name: a sample's noise at a step depends on (seed, sample, step) alone.

    So a sample comes out the same in a batch of one and of many. Drawn on the CPU in float32: every
    device sees the same.

    Args:
        seed: Of all.
        samples: Number of each row; equal numbers share their noise. 0, 1, 2, ... if None.
    """

    def __init__(self, seed: int, samples: Sequence[int] | None = None) -> None:
        self.seed = seed
        self.samples = None if samples is None else list(samples)

    def __call__(self, step: int, like: Tensor) -> Tensor:
        """[B, ...] of ``like``'s shape, dtype and device.

        Raises:
            ValueError: Rows and ``samples`` differ in number.
        """
        samples = range(len(like)) if self.samples is None else self.samples
        if len(samples) != len(like):
            raise ValueError(
                f"SampleNoise: expected {len(samples)} rows, one for each of its samples, "
                f"got {len(like)}"
            )
        rows = [
            torch.randn(
                like.shape[1:], generator=named_generator("cpu", "sample", self.seed, i, step)
            )
            for i in samples
        ]
        return torch.stack(rows).to(like)


def generator_noise(generator: torch.Generator | None = None) -> NoiseSource:
    """Noise of a whole batch from a generator, on its device: what it draws next, whatever the
    step. None: PyTorch's own for the CPU."""
    device = torch.device("cpu") if generator is None else generator.device

    def draw(step: int, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, device=device).to(like)

    return draw
