"""Applies a :class:`vpd.NoiseSpec` to images and latents."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from vpd.diffusion import NoiseSchedule
from vpd.protocol import NoiseSpec

if TYPE_CHECKING:
    from vpd.models.autoencoder import AutoencoderKL, Posterior


def image_key(pixels: Tensor) -> str:
    """An image's id: a hash of its content."""
    return hashlib.sha256(pixels.detach().float().cpu().numpy().tobytes()).hexdigest()


def draw_noise(like: Tensor, spec: NoiseSpec, keys: Sequence[str]) -> Tensor:
    """Standard normal noise of ``like``'s shape [I, ...]: one draw per (seed, key), independent of
    the timestep.

    Drawn on the CPU in float32, so that every device sees the same.
    """
    if spec.seed is None:
        return torch.randn_like(like)
    if len(keys) != like.shape[0]:
        raise ValueError(f"noise: expected {like.shape[0]} image keys, got {len(keys)}")
    rows = []
    for key in keys:
        name = key if spec.noise_key == "image" else "shared"
        digest = hashlib.sha256(f"{spec.seed}/{name}".encode()).digest()
        # ODISE's shared noise is torch's own stream of the plain seed.
        seed = (
            spec.seed if spec.noise_key == "shared" else int.from_bytes(digest[:8], "little") >> 1
        )
        generator = torch.Generator().manual_seed(seed)
        rows.append(torch.randn(like.shape[1:], generator=generator))
    return torch.stack(rows).to(like)


def add_noise_to_pixels(image: Tensor, spec: NoiseSpec, keys: Sequence[str] | None) -> Tensor:
    """``sqrt(alpha_bar) x + sqrt(1 - alpha_bar) eps`` on an image in [-1, 1], if the protocol puts
    noise there."""
    if spec.noise_space != "pixel" or not spec.adds_noise:
        return image
    return _diffuse(image, spec, keys)


def add_noise_to_latents(
    latents: Tensor, spec: NoiseSpec, scale_factor: float, keys: Sequence[str] | None
) -> Tensor:
    """Noise on unscaled latents, defined where the diffusion model was trained: scaled by
    ``scale_factor``, diffused, scaled back.

    So the signal-to-noise ratio of a timestep is the same whatever ``latent_scale`` the U-Net is
    fed with.
    """
    if spec.noise_space != "latent" or not spec.adds_noise:
        return latents
    return _diffuse(latents * scale_factor, spec, keys) / scale_factor


def encode_pixels(
    vae: AutoencoderKL,
    pixels: Tensor,
    spec: NoiseSpec,
    keys: Sequence[str] | None,
    image_norm: Literal["half", "none"] = "half",
) -> Posterior:
    """First step to what a U-Net sees of pictures [I, 3, H, W] in [-1, 1]: their latents'
    distribution. Of the protocol only noise on the pixels matters for it. ``image_norm="none"``:
    the autoencoder sees them in [0, 1]."""
    if image_norm == "none":
        pixels = (pixels + 1) / 2
    seen = add_noise_to_pixels(pixels, spec, keys)
    return vae.encode(seen.to(next(vae.parameters()).dtype))


def latents_under(
    posterior: Posterior, spec: NoiseSpec, scale_factor: float, keys: Sequence[str] | None
) -> Tensor:
    """Second step: latents [I, C, h, w] under a protocol, from :func:`encode_pixels`."""
    latents = posterior.mode() if spec.latent_mode == "mode" else posterior.sample()
    return add_noise_to_latents(latents, spec, scale_factor, keys) * spec.latent_scale


def encode_under(
    vae: AutoencoderKL,
    pixels: Tensor,
    specs: Sequence[NoiseSpec],
    scale_factor: float,
    keys: Sequence[str] | None = None,
    image_norm: Literal["half", "none"] = "half",
) -> list[Tensor]:
    """What a U-Net sees of pictures under each of several protocols.

    The autoencoder runs once for all protocols that show it the same pixels. Noise is paired: a
    picture meets the same under all that differ in the timestep alone.

    Args:
        vae: Encodes the pictures.
        pixels: [I, 3, H, W] in [-1, 1].
        specs: The protocols.
        scale_factor: See :func:`add_noise_to_latents`.
        keys: An id of each picture, which its noise is drawn from; a hash of its content if None.
        image_norm: See :func:`encode_pixels`.

    Returns:
        Latents [I, C, h, w] of each protocol.
    """
    if keys is None and any(spec.adds_noise for spec in specs):
        keys = [image_key(row) for row in pixels]
    known: dict[Hashable, Posterior] = {}
    found = []
    for spec in specs:
        seen = _pixels_seen(spec)
        if seen not in known:
            known[seen] = encode_pixels(vae, pixels, spec, keys, image_norm)
        found.append(latents_under(known[seen], spec, scale_factor, keys))
    return found


def _pixels_seen(spec: NoiseSpec) -> Hashable:
    """Equal for protocols under which the autoencoder sees the same pixels."""
    if not spec.changes_pixels:
        return None
    return object() if spec.seed is None else (spec.noise_t, spec.noise_key, spec.seed)


def _diffuse(clean: Tensor, spec: NoiseSpec, keys: Sequence[str] | None) -> Tensor:
    noise = draw_noise(clean, spec, keys or ())
    t = torch.full((clean.shape[0],), spec.noise_t, device=clean.device)
    return NoiseSchedule().add_noise(clean, noise, t)
