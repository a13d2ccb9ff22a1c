"""A pre-trained text-to-image diffusion model: what perception starts from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vpd.models.autoencoder import AutoencoderConfig, AutoencoderKL
from vpd.models.clip_text import CLIPTextConfig, CLIPTextEncoder
from vpd.models.unet import UNet, UNetConfig
from vpd.tokens import tokenize

__all__ = ["Foundation", "FoundationConfig"]


@dataclass(frozen=True)
class FoundationConfig:
    """A latent diffusion model; the defaults are Stable Diffusion v1's."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    vae: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text: CLIPTextConfig = field(default_factory=CLIPTextConfig)
    image_size: int = 512
    token_length: int = 77
    scale_factor: float = 0.18215
    """Latents are multiplied with it before the U-Net sees them: 1 / their standard deviation."""


class Foundation(nn.Module):
    """Autoencoder, text encoder and U-Net of one diffusion model, under their original parameter
    names."""

    def __init__(self, config: FoundationConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FoundationConfig()
        self.vae = AutoencoderKL(config.vae)
        self.text = CLIPTextEncoder(config.text)
        self.unet = UNet(config.unet)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Token states [B, token_length, C] of captions."""
        device = next(self.parameters()).device
        return self.text(tokenize(texts, length=self.config.token_length).ids.to(device)).hidden

    @torch.no_grad()
    def sample(
        self,
        texts: list[str],
        *,
        steps: int = 50,
        guidance: float = 4.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws one image per caption by DDIM with classifier-free guidance.

        Returns:
            [B, 3, image_size, image_size] in [-1, 1].
        """
        from vpd.diffusion import ddim_sample

        size = self.config.image_size // 2 ** (len(self.config.vae.ch_mult) - 1)
        shape = (len(texts), self.config.unet.in_channels, size, size)
        latents = ddim_sample(
            self.unet,
            self.encode_text(texts),
            self.encode_text([""] * len(texts)),
            shape,
            steps=steps,
            guidance=guidance,
            generator=generator,
        )
        return self.vae.decode(latents / self.config.scale_factor).clamp(-1, 1)
