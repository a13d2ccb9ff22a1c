"""A pre-trained text-to-image diffusion model: what perception starts from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vpd.models.autoencoder import AutoencoderConfig, AutoencoderKL
from vpd.models.clip import CLIP, CLIPConfig
from vpd.models.clip_text import CLIPTextConfig, CLIPTextEncoder
from vpd.models.unet import UNet, UNetConfig
from vpd.nn import Network
from vpd.tokens import tokenize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vpd.diffusion import Controller, MapWatcher, NoiseSource, Sampler, StepWatcher

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


class Foundation(Network):
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
        sampler: Sampler | None = None,
        noise: NoiseSource | None = None,
        on_step: StepWatcher | None = None,
        maps: MapWatcher | None = None,
    ) -> Tensor:
        """Draws one image per caption with classifier-free guidance.

        Args:
            texts: Captions.
            steps: Steps of DDIM, if no sampler is given.
            guidance: 1 = none; larger follows the captions more closely.
            generator: Source of the noise of the whole batch.
            sampler: How to get from noise to latents.
            noise: Source of the noise instead of a generator: with
                :class:`vpd.diffusion.SampleNoise` an image does not depend on its batch.
            on_step: Told after every step.
            maps: Shown cross-attention in every step, such as :class:`vpd.diffusion.HeatMaps`.

        Returns:
            [B, 3, image_size, image_size] in [-1, 1].

        Raises:
            ValueError: A generator beside a source of noise.
        """
        return self.draw(
            self.encode_text(texts),
            self.encode_text([""]),
            steps=steps,
            guidance=guidance,
            generator=generator,
            sampler=sampler,
            noise=noise,
            on_step=on_step,
            maps=maps,
        )

    @torch.no_grad()
    def draw(
        self,
        states: Tensor,
        empty: Tensor,
        *,
        steps: int = 50,
        guidance: float | Sequence[float] = 4.0,
        generator: torch.Generator | None = None,
        sampler: Sampler | None = None,
        noise: NoiseSource | None = None,
        on_step: StepWatcher | None = None,
        control: Controller | None = None,
        maps: MapWatcher | None = None,
    ) -> Tensor:
        """:meth:`sample` from token states [B, N, C] of captions and [1, N, C] of the empty one.

        Args:
            states, empty: Those.
            guidance: One for all, or one for each caption.
            control: What the attention of some rows takes from others, such as
                :class:`vpd.diffusion.PromptToPrompt`.
            steps, generator, sampler, noise, on_step, maps: As there.
        """
        from vpd.diffusion import START, GuidedUNet, Sampler, generator_noise, sample

        if noise is not None and generator is not None:
            raise ValueError("expected a generator or a source of noise, got both")
        sampler = sampler or Sampler("ddim", steps)
        noise = noise or generator_noise(generator)
        size = self.config.image_size // 2 ** (len(self.config.vae.ch_mult) - 1)
        unet = GuidedUNet(
            self.unet, states, empty, text_guidance=guidance, control=control, maps=maps
        )
        shape = (len(states), self.config.unet.in_channels, size, size)
        start = sampler.initial_scale * noise(START, torch.empty(shape, device=states.device))
        latents = sample(unet, sampler, start, noise, on_step=on_step)
        return self.vae.decode(latents / self.config.scale_factor).clamp(-1, 1)
