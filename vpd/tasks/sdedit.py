"""Editing without an editor: noise on a picture, removed again with the edited caption in mind
(SDEdit; Meng et al. 2022). What instructions have to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vpd.tasks.foundation import Foundation

if TYPE_CHECKING:
    from vpd.diffusion import NoiseSource, Sampler

__all__ = ["sdedit"]


@torch.no_grad()
def sdedit(
    model: Foundation,
    pictures: Tensor,
    captions: Sequence[str],
    *,
    strength: float,
    sampler: Sampler,
    noise: NoiseSource,
    guidance: float = 7.5,
) -> Tensor:
    """Pictures as a text-to-image model redraws them under other captions.

    Args:
        model: Draws.
        pictures: float [B, 3, H, W] in [-1, 1], sides as the networks take them.
        captions: What they are to show, B texts.
        strength: Share of the sampler's steps that are done, in (0, 1], rounded to whole steps, one
            at least: little noise keeps the picture, all of it forgets it.
        sampler: How to get from noise to latents.
        noise: Where it comes from.
        guidance: 1 = none; larger follows the captions more closely.

    Returns:
        float32 [B, 3, H, W] in [-1, 1].

    Raises:
        ValueError: A strength out of range, or numbers of pictures and captions that differ.
    """
    from vpd.diffusion import START, GuidedUNet, sample

    if not 0 < strength <= 1:
        raise ValueError(f"sdedit: strength must be in (0, 1], got {strength}")
    if len(captions) != len(pictures):
        raise ValueError(f"sdedit: expected {len(pictures)} captions, got {len(captions)}")
    weight = next(model.parameters())
    latents = model.vae.encode(pictures.to(weight)).mode().float() * model.config.scale_factor
    first = len(sampler) - max(1, round(strength * len(sampler)))
    start = sampler.diffuse(latents, noise(START, latents), first)
    unet = GuidedUNet(
        model.unet,
        model.encode_text(list(captions)),
        model.encode_text([""]),
        text_guidance=guidance,
    )
    found = sample(unet, sampler, start, noise, first=first)
    return model.vae.decode((found / model.config.scale_factor).to(weight)).float().clamp(-1, 1)
