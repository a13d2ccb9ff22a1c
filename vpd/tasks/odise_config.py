"""What determines the features that ODISE takes from a diffusion model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from vpd.models.autoencoder import AutoencoderConfig
from vpd.models.clip_image import CLIPImageConfig
from vpd.models.implicit_captioner import ImplicitCaptionerConfig
from vpd.models.unet import UNetConfig
from vpd.protocol import NoiseSpec
from vpd.tasks.condition_config import check_choice
from vpd.tasks.odise_taps import BlockTap, decoder_taps, encoder_taps, unet_taps

__all__ = ["OdiseFeaturesConfig"]


@dataclass(frozen=True)
class OdiseFeaturesConfig:
    """A frozen diffusion model, what is read from it and what is told to it; the defaults are
    ODISE's on Stable Diffusion v1 and CLIP ViT-L/14 at 336 pixels."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    vae: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    image: CLIPImageConfig | None = field(default_factory=CLIPImageConfig.vit_l14_336)
    """The encoder whose embedding the captioner reads; None without one."""
    image_size: int = 512
    """Side of the squares that the diffusion model sees."""
    scale_factor: float = 0.18215
    """What the diffusion model's latents were multiplied with when it was trained, and are here."""
    token_length: int = 77
    """Of the context."""
    captioner: Literal["gated", "mlp", "none"] = "gated"
    """What the U-Net is told: see :class:`vpd.ImplicitCaptionerConfig`; ``none``: the empty
    sentence."""
    learnable_time_embed: bool = True
    """Whether the captioner changes the U-Net's time embedding too."""
    steps: tuple[int, ...] = (0,)
    """Timesteps at which the U-Net is run and tapped; below 0: at step 0 without noise."""
    noise_size: int | None = None
    """Side of the shared noise, which is resized (bicubic) to latents of another size; None: that
    of the latents of ``image_size``."""
    encoder_blocks: tuple[int, ...] | None = None
    """Blocks whose inputs are features: see :mod:`vpd.tasks.odise_taps`, as for the next two."""
    unet_blocks: tuple[int, ...] | None = None
    decoder_blocks: tuple[int, ...] | None = None
    projection_dim: int = 512
    """This and the next: see :class:`vpd.OdiseBackboneConfig`."""
    num_res_blocks: int = 1
    min_stride: int = 4
    max_stride: int = 32
    norm_groups: int = 32

    def __post_init__(self) -> None:
        check_choice("OdiseFeaturesConfig.captioner", self.captioner, ("gated", "mlp", "none"))
        seen = None if self.image is None else self.image.projection_dim
        if self.captioner != "none" and not seen:
            raise ValueError(
                f"OdiseFeaturesConfig.image: captioner={self.captioner} needs an encoder with a "
                f"projection_dim, got {'none' if self.image is None else seen}"
            )
        if self.image_size < 1 or self.image_size % self.multiple:
            raise ValueError(
                "OdiseFeaturesConfig.image_size must be a positive multiple of "
                f"{self.multiple}, got {self.image_size}"
            )
        if self.noise_size is not None and self.noise_size < 1:
            raise ValueError(
                f"OdiseFeaturesConfig.noise_size must be positive, got {self.noise_size}"
            )
        if not self.steps:
            raise ValueError("OdiseFeaturesConfig.steps: expected at least one, got none")
        _ = self.noises, self.taps()  # they refuse what cannot be

    @property
    def multiple(self) -> int:
        """What the sides of a picture that the diffusion model sees are multiples of."""
        return int(self.vae.stride * 2 ** (len(self.unet.channel_mult) - 1))

    @property
    def noises(self) -> tuple[NoiseSpec, ...]:
        """The noise protocol of each of ``steps``."""
        odise = NoiseSpec.preset("odise", latent_scale=self.scale_factor)
        return tuple(
            replace(odise, noise_space="none") if t < 0 else replace(odise, noise_t=t, embed_t=t)
            for t in self.steps
        )

    def taps(self) -> tuple[list[BlockTap], list[BlockTap], list[BlockTap]]:
        """Of the autoencoder's encoder, of the U-Net at each step, and of the decoder."""
        return (
            encoder_taps(self.vae, self.encoder_blocks),
            unet_taps(self.vae, self.unet, self.unet_blocks),
            decoder_taps(self.vae, self.decoder_blocks),
        )

    def captioner_config(self) -> ImplicitCaptionerConfig:
        """Of the captioner, where there is one."""
        assert self.captioner != "none"
        assert self.image is not None
        return ImplicitCaptionerConfig(
            dim=self.unet.context_dim,
            image_dim=self.image.projection_dim or 0,
            tokens=self.token_length,
            time_dim=4 * self.unet.model_channels if self.learnable_time_embed else None,
            kind=self.captioner,
            time_steps=len(self.steps),
        )
