"""Referring segmentation: one image, one sentence, one mask (VPD; Zhao et al. 2023, section
4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpd.images import read_image, to_network
from vpd.models.adapters import TextAdapter
from vpd.models.autoencoder import AutoencoderConfig, AutoencoderKL
from vpd.models.clip_text import CLIPTextConfig, CLIPTextEncoder
from vpd.models.refer_decoder import ReferDecoder, ReferDecoderConfig
from vpd.models.unet import Taps, UNet, UNetConfig, UNetOutput, feature_dims
from vpd.noise import add_noise_to_latents, add_noise_to_pixels, image_key
from vpd.protocol import NoiseSpec
from vpd.tasks.results import ReferResult, WordMaps
from vpd.tokens import tokenize

__all__ = ["ReferConfig", "ReferSegmenter"]


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
    """Strides on the latent grid whose maps the decoder sees; () for none."""
    map_scale: float = 1.0
    """What maps are multiplied with before the decoder. VPD: 1; token_length brings their mean to
    1."""
    map_grad: str = "detach"
    text_adapter: bool = True
    """Whether token states pass through the text adapter."""
    scale_factor: float = 0.18215
    """What the diffusion model's latents were multiplied with when it was trained (1 / their
    standard deviation)."""


class ReferSegmenter(nn.Module):
    """Text encoder, autoencoder, U-Net and decoder, from a picture and a sentence to a mask.

    ``model(image, text)`` takes what people have; ``model.logits(image, states)`` takes tensors
    and is what trains.
    """

    def __init__(self, config: ReferConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ReferConfig()
        self.vae = AutoencoderKL(config.vae, encode_only=True)
        self.text = CLIPTextEncoder(config.text)
        self.unet = UNet(config.unet)
        self.adapter = TextAdapter(config.unet.context_dim)
        dims = feature_dims(self.unet.feature_channels, config.token_length, config.attention)
        self.decoder = ReferDecoder(ReferDecoderConfig(dims=dims, hidden=config.hidden))

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def encode_image(self, image: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """Latents the U-Net sees, under the config's noise protocol, without gradient.

        Args:
            image: [I, 3, H, W] in [-1, 1].
            keys: One id per image, which its noise is drawn from; a hash of the pixels if None.

        Returns:
            [I, C, h, w].
        """
        spec = self.config.noise
        with torch.no_grad():
            if spec.adds_noise and keys is None:
                keys = [image_key(row) for row in image]
            image = add_noise_to_pixels(image, spec, keys).to(self.dtype)
            posterior = self.vae.encode(image)
            latents = posterior.mode() if spec.latent_mode == "mode" else posterior.sample()
            latents = add_noise_to_latents(latents, spec, self.config.scale_factor, keys)
            return latents * spec.latent_scale

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Token states [B, token_length, C] of sentences, without gradient. Padding is attended,
        as in VPD."""
        ids = tokenize(list(texts), length=self.config.token_length).ids
        with torch.no_grad():
            return self.text(ids.to(self.device)).hidden

    def features(
        self, latents: Tensor, states: Tensor, image_index: Tensor | None = None
    ) -> UNetOutput:
        """The U-Net's features and maps for latents [I, C, h, w] and token states [B, N, C]."""
        context = self.adapter(states) if self.config.text_adapter else states
        taps = Taps(attention=self.config.attention, map_grad=self.config.map_grad)  # type: ignore[arg-type]
        return self.unet(
            latents, self.config.noise.timestep, context, image_index=image_index, taps=taps
        )

    def decode(self, out: UNetOutput, size: tuple[int, int]) -> Tensor:
        """Raw two-class scores [B, 2, *size] (background, object) from the U-Net's output."""
        scale = self.config.map_scale
        maps = {stride: map_ * scale for stride, map_ in out.attention.items()}
        pyramid = UNetOutput(None, out.features, maps).pyramid()
        scores = self.decoder(pyramid)
        return F.interpolate(scores.float(), size, mode="bilinear", align_corners=True)

    def logits(self, image: Tensor, states: Tensor, image_index: Tensor | None = None) -> Tensor:
        """Raw head output at input size.

        Args:
            image: [I, 3, H, W] in [-1, 1]; H and W multiples of the autoencoder's stride times the
                U-Net's.
            states: [B, N, C] token states of :meth:`encode_text`.
            image_index: int64 [B], the image of each row; without it I == B or I == 1.

        Returns:
            [B, 2, H, W]: scores of background and object.
        """
        latents = self.encode_image(image)
        size = (image.shape[-2], image.shape[-1])
        return self.decode(self.features(latents, states, image_index), size)

    @overload
    def forward(self, image: Any, text: str) -> ReferResult: ...
    @overload
    def forward(self, image: Any, text: Sequence[str]) -> list[ReferResult]: ...
    def forward(self, image: Any, text: str | Sequence[str]) -> ReferResult | list[ReferResult]:
        """Segments what ``text`` refers to.

        Args:
            image: Path, PIL image, uint8 array HxWx3 (or grey, RGBA, 16 bit), float array or
                tensor in [0, 1]; any size.
            text: A sentence, or several about the same image (encoded once).

        Returns:
            A :class:`vpd.tasks.results.ReferResult` at the image's own size, or a list of them.

        Raises:
            ValueError, TypeError, OSError: An image that cannot be read, an empty text.
        """
        if not isinstance(text, str | Sequence):
            raise TypeError(f"a sentence must be a str, got {type(text).__name__}")
        texts = [text] if isinstance(text, str) else list(text)
        if not texts:
            raise ValueError("expected at least one sentence, got an empty list")
        for one in texts:
            if not isinstance(one, str):
                raise TypeError(f"a sentence must be a str, got {type(one).__name__}")
            if not one.strip():
                raise ValueError("the sentence is empty: say what to look for")
        picture = read_image(image)
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                size = self.config.image_size
                pixels = to_network(picture, size).to(self.device)
                tokens = tokenize(texts, length=self.config.token_length)
                out = self.features(self.encode_image(pixels), self.encode_text(texts))
                scores = self.decode(out, (size, size))
                probability = scores.softmax(1)[:, 1:]
                height, width = picture.shape[:2]
                probability = F.interpolate(
                    probability, (height, width), mode="bilinear", align_corners=False
                )
        finally:
            self.train(training)
        results = [
            ReferResult(
                image=picture,
                text=texts[row],
                probability=probability[row, 0].cpu().numpy(),
                attention=WordMaps.from_tokens(
                    texts[row],
                    self.config.token_length,
                    {
                        stride: maps[row].float().cpu().numpy()
                        for stride, maps in out.attention.items()
                    },
                ),
                truncated=bool(tokens.truncated[row]),
            )
            for row in range(len(texts))
        ]
        return results[0] if isinstance(text, str) else results
