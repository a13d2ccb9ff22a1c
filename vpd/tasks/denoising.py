"""Partial denoising guided by a caption: a picture's latents get noise, and the diffusion model
removes most of it again with the sentence in mind, before its features are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from vpd.diffusion.schedule import NoiseSchedule
from vpd.models.unet import Taps, UNet, UNetOutput
from vpd.protocol import NoiseSpec

__all__ = ["Denoising", "check_denoising", "denoised"]


@dataclass(frozen=True)
class Denoising:
    """How latents are denoised, from the timestep of their noise down to another."""

    steps: int = 10
    """Passes of the U-Net, evenly spaced in time; features are those of the last one, maps are
    averaged over all."""
    to: int = 1
    """Timestep of the last pass."""
    guidance: float = 1.0
    """1 = none; larger follows the sentence more closely, and takes a second pass with the empty
    one at every step but the last."""

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"Denoising.steps must be at least 2, got {self.steps}")
        if not 0 <= self.to < 1000:
            raise ValueError(f"Denoising.to must be in 0..999, got {self.to}")

    def timesteps(self, start: Tensor) -> Tensor:
        """Of every pass: int64 [steps, B], from those in ``start``, int64 [B], to ``to``."""
        shares = torch.arange(self.steps, device=start.device, dtype=torch.float64)
        shares = shares[:, None] / (self.steps - 1)
        return (start + (self.to - start) * shares).round().long()


def check_denoising(
    denoising: Denoising | None, noise: NoiseSpec, ensemble: Sequence[int] = ()
) -> None:
    """Refuses a denoising that a noise protocol leaves nothing to do for.

    Raises:
        ValueError: The U-Net is not told the noise on the latents, there is less noise than steps
            to remove it in, or maps are averaged over an ensemble of timesteps besides.
    """
    if denoising is None:
        return
    if ensemble:
        raise ValueError("denoise averages maps over its steps: leave attn_t_ensemble empty")
    if noise.noise_space != "latent" or noise.embed_t != "match":
        raise ValueError(
            "denoise needs noise on the latents at the timestep that the U-Net is told, as "
            f"latent_match has it; got noise_space={noise.noise_space!r} with "
            f"embed_t={noise.embed_t!r}"
        )
    if noise.noise_t - denoising.to < denoising.steps - 1:
        raise ValueError(
            f"denoise: {denoising.steps} steps need noise of at least timestep "
            f"{denoising.to + denoising.steps - 1} to end at {denoising.to}, got {noise.noise_t}"
        )


def denoised(
    unet: UNet,
    latents: Tensor,
    start: int | Tensor,
    context: Tensor,
    empty: Tensor | None,
    denoising: Denoising,
    *,
    scale: float,
    image_index: Tensor | None = None,
    taps: Taps,
) -> UNetOutput:
    """The U-Net's output at the end of a partial denoising, maps averaged over all its steps.

    Steps are DDIM's, without noise of their own (Song et al. 2021). What precedes the last one
    carries no gradient.

    Args:
        unet: Predicts epsilon.
        latents: [I, C, h, w] with noise.
        start: Timestep of that noise, or int64 [B] of each row.
        context: Token states [B, N, C'].
        empty: Those of the empty sentence, [1, N, C']; not needed at guidance 1.
        denoising: Steps, end and guidance.
        scale: What latents are multiplied with to be as the diffusion model was trained on; the
            last pass sees them as they came.
        image_index: int64 [B], the latent of each row; without it I == B or I == 1.
        taps: What to return.

    Raises:
        ValueError: Guidance without ``empty``.
    """
    rows = len(context)
    if not isinstance(start, Tensor):
        start = torch.full((rows,), start, device=latents.device)
    told = denoising.timesteps(start)
    schedule, guided = NoiseSchedule(), denoising.guidance != 1
    if guided and empty is None:
        raise ValueError("denoised: guidance needs the states of the empty sentence, got None")
    noise_taps = Taps(noise=True, features=False, attention=())
    step_taps = replace(taps, noise=True, features=False, block_inputs=(), block_outputs=())
    means: dict[int, Any] = dict.fromkeys(taps.attention, 0.0)
    with torch.no_grad():
        x = (
            latents.float() * scale
        )  # until the first step one for each picture, then one for each row
        index = image_index
        for t, to in pairwise(told):
            seen = x.to(latents.dtype)
            out = unet(seen, t, context, image_index=index, taps=step_taps)
            epsilon = _noise(out)
            if guided:
                assert empty is not None
                blank = empty.expand(rows, -1, -1)
                free = _noise(unet(seen, t, blank, image_index=index, taps=noise_taps))
                epsilon = torch.lerp(free, epsilon, denoising.guidance)
            means = {s: total + out.attention[s] / len(told) for s, total in means.items()}
            if len(x) != rows or index is not None:
                x = x.expand(rows, -1, -1, -1) if index is None else x[index]
                index = None
            x = schedule.ddim(x, epsilon.float(), t, to)
    out = unet((x / scale).to(latents.dtype), told[-1], context, taps=taps)
    maps = {s: before + out.attention[s] / len(told) for s, before in means.items()}
    return replace(out, attention=maps)


def _noise(out: UNetOutput) -> Tensor:
    assert out.noise is not None
    return out.noise
