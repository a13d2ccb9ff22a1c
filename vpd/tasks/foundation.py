"""A pre-trained text-to-image diffusion model: what perception starts from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vpd.models.autoencoder import AutoencoderConfig, AutoencoderKL
from vpd.models.clip import CLIP, CLIPConfig
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
    clip: CLIPConfig | None = None
    """A text and an image encoder that share a space, beside the text encoder that the U-Net
    reads. Stable Diffusion has none: its text encoder is CLIP's."""


class Foundation(nn.Module):
    """Autoencoder, text encoder, U-Net and, if the config has one, CLIP of one diffusion model,
    under their original parameter names."""

    def __init__(self, config: FoundationConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FoundationConfig()
        self.vae = AutoencoderKL(config.vae)
        self.text = CLIPTextEncoder(config.text)
        self.unet = UNet(config.unet)
        self.clip = None if config.clip is None else CLIP(config.clip)

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
        states, empty = self.encode_text(texts), self.encode_text([""])
        return self.draw(states, empty, steps=steps, guidance=guidance, generator=generator)

    @torch.no_grad()
    def draw(
        self,
        states: Tensor,
        empty: Tensor,
        *,
        steps: int = 50,
        guidance: float = 4.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """:meth:`sample` from token states [B, N, C] of captions and [1, N, C] of the empty one."""
        from vpd.diffusion import ddim_sample

        size = self.config.image_size // 2 ** (len(self.config.vae.ch_mult) - 1)
        latents = ddim_sample(
            self.unet,
            states,
            empty.expand_as(states),
            (len(states), self.config.unet.in_channels, size, size),
            steps=steps,
            guidance=guidance,
            generator=generator,
        )
        return self.vae.decode(latents / self.config.scale_factor).clamp(-1, 1)
