"""What determines a referring segmenter, weights apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from vpd.models.autoencoder import AutoencoderConfig
from vpd.models.clip_text import CLIPTextConfig
from vpd.models.unet import UNetConfig
from vpd.protocol import NoiseSpec
from vpd.tasks.denoising import Denoising, check_denoising

__all__ = ["ReferConfig", "check_maps"]


@dataclass(frozen=True)
class ReferConfig:
    """A referring segmenter; the defaults are VPD's on RefCOCO."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    vae: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text: CLIPTextConfig = field(default_factory=CLIPTextConfig)
    noise: NoiseSpec = field(default_factory=NoiseSpec)
    image_size: int = 512
    """Images are resized to this square, aspect not kept."""
    token_length: int = 40
    """Tokens of a sentence: 40 for RefCOCO and RefCOCO+, 77 for G-Ref."""
    hidden: int = 640
    """Channels of the decoder."""
    attention: tuple[int, ...] = (2, 4)
    """Strides on the latent grid whose maps the decoder sees; () for none. 1 is the finest: a
    U-Net may have no maps there."""
    attn_fusion: Literal["mean", "daam"] = "mean"
    """``daam``: all layers' maps fused on the finest grid (:mod:`vpd.daam`) and average-pooled to
    every level but the coarsest, whatever ``attention`` says."""
    attn_t_ensemble: tuple[int, ...] = ()
    """If given, maps are averaged over passes of the U-Net at these timesteps, each under the
    noise protocol at that timestep; features remain those of the protocol's own."""
    denoise: Denoising | None = None
    """If given, the protocol's noise on the latents is removed again step by step, guided by the
    sentence; features are of the last step, maps averaged over all."""
    map_scale: float = 1.0
    """What maps are multiplied with before the decoder. VPD: 1; token_length brings their mean to
    1."""
    map_grad: str = "detach"
    text_adapter: bool = True
    """Whether token states pass through the text adapter."""
    image_norm: Literal["half", "none"] = "half"
    """``half``: the autoencoder sees images in [-1, 1]. ``none``: in [0, 1], the normalisation
    left out."""
    scale_factor: float = 0.18215
    """What the diffusion model's latents were multiplied with when it was trained (1 / their
    standard deviation)."""

    def __post_init__(self) -> None:
        choices = {"attn_fusion": ("mean", "daam"), "image_norm": ("half", "none")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"ReferConfig.{name} must be one of {allowed}, got {getattr(self, name)!r}"
                )
        check_maps(self.attention, self.attn_fusion, self.attn_t_ensemble, self.noise)
        check_denoising(self.denoise, self.noise, self.attn_t_ensemble)

    @property
    def map_strides(self) -> tuple[int, ...]:
        """Strides on the latent grid at which the decoder sees maps."""
        if self.attn_fusion == "mean":
            return self.attention
        return tuple(2**level for level in range(len(self.unet.channel_mult) - 1))

    @property
    def noises(self) -> tuple[NoiseSpec, ...]:
        """The protocol of the features, then those of the maps where they are others."""
        others = (replace(self.noise, noise_t=t) for t in self.attn_t_ensemble)
        return (self.noise, *others)


def check_maps(
    attention: Sequence[int], fusion: str, ensemble: Sequence[int], noise: NoiseSpec
) -> None:
    """Refuses choices about maps that contradict each other.

    Raises:
        ValueError: One of them; names the two fields.
    """
    if not attention and fusion != "mean":
        raise ValueError(f"attn_fusion={fusion} needs maps, got attention=() which means none")
    if not ensemble:
        return
    if not attention:
        raise ValueError("attn_t_ensemble averages maps, got attention=() which means none")
    if len(set(ensemble)) < len(ensemble):
        raise ValueError(f"attn_t_ensemble must hold each timestep once, got {list(ensemble)}")
    if noise.noise_space == "none" and noise.embed_t != "match":
        raise ValueError(
            "attn_t_ensemble needs a noise protocol that differs from timestep to timestep, such "
            f"as latent_match; got noise_space='none' with embed_t={noise.embed_t}"
        )
    for t in ensemble:
        replace(noise, noise_t=t)
