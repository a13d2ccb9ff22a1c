"""Referring segmentation: one image, one sentence, one mask (VPD; Zhao et al. 2023, section
4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from vpd.images import read_image, to_network
from vpd.models.adapters import TextAdapter
from vpd.models.autoencoder import AutoencoderKL
from vpd.models.clip_text import CLIPTextEncoder
from vpd.models.refer_decoder import ReferDecoder, ReferDecoderConfig
from vpd.models.unet import Taps, UNet, UNetOutput, feature_dims
from vpd.nn import Network
from vpd.noise import encode_under
from vpd.tasks.denoising import denoised
from vpd.tasks.refer_config import ReferConfig
from vpd.tasks.results import ReferResult, WordMaps
from vpd.tokens import tokenize

__all__ = ["ReferConfig", "ReferSegmenter"]


class ReferSegmenter(Network):
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
        self._check_strides()
        dims = feature_dims(self.unet.feature_channels, config.token_length, config.map_strides)
        self.decoder = ReferDecoder(ReferDecoderConfig(dims=dims, hidden=config.hidden))

    def _check_strides(self) -> None:
        config = self.config
        own = {stride for _, place, stride in self.unet.attention_layers() if place != "mid"}
        grids = f"this U-Net has cross-attention at strides {sorted(own)} of its latent grid"
        if config.attn_fusion == "daam":
            if not own & set(config.map_strides):
                raise ValueError(f"attn_fusion=daam leaves out the coarsest grid, and {grids}")
            return
        lacking = sorted(set(config.attention) - own)
        if lacking:
            raise ValueError(
                f"attention: {grids}, got {lacking[0]}; attn_fusion=daam brings maps to grids "
                "without"
            )

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def encode_image(self, image: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """Latents the U-Net sees, under the config's noise protocol, without gradient.

        Noise is paired: an image meets the same at every timestep of ``attn_t_ensemble``.

        Args:
            image: [I, 3, H, W] in [-1, 1].
            keys: One id per image, which its noise is drawn from; a hash of the pixels if None.

        Returns:
            [I, C, h, w]; with an ``attn_t_ensemble`` of T timesteps [I, 1 + T, C, h, w], theirs
            behind the protocol's own.
        """
        config = self.config
        with torch.no_grad():
            found = encode_under(
                self.vae, image, config.noises, config.scale_factor, keys, config.image_norm
            )
            return torch.stack(found, dim=1) if config.attn_t_ensemble else found[0]

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Token states [B, token_length, C] of sentences, without gradient. Padding is attended,
        as in VPD."""
        ids = tokenize(list(texts), length=self.config.token_length).ids
        with torch.no_grad():
            return self.text(ids.to(self.device)).hidden

    def context(self, states: Tensor) -> Tensor:
        """What the U-Net attends to: token states [B, N, C], through the text adapter if it is in
        use."""
        return self.adapter(states) if self.config.text_adapter else states

    def features(
        self,
        latents: Tensor,
        states: Tensor,
        image_index: Tensor | None = None,
        timesteps: Tensor | None = None,
    ) -> UNetOutput:
        """The U-Net's features and maps for latents of :meth:`encode_image` and token states
        [B, N, C].

        ``timesteps`` are those that the U-Net is told, int64 [B], with an ``attn_t_ensemble``
        [B, 1 + T] in the order of the latents; those of the config's noise protocol if None."""
        return self.attend(latents, self.context(states), image_index, timesteps)

    def attend(
        self,
        latents: Tensor,
        context: Tensor,
        image_index: Tensor | None = None,
        timesteps: Tensor | None = None,
    ) -> UNetOutput:
        """:meth:`features` of what :meth:`context` returned."""
        config = self.config
        told: Sequence[int | Tensor] = [noise.timestep for noise in config.noises]
        if timesteps is not None:
            told = timesteps.unbind(1) if config.attn_t_ensemble else [timesteps]
        taps = Taps(
            attention=config.map_strides,
            fusion=config.attn_fusion,
            map_grad=config.map_grad,  # type: ignore[arg-type]
        )
        if config.denoise is not None:
            guided = config.denoise.guidance != 1
            return denoised(
                self.unet,
                latents,
                told[0],
                context,
                self._empty_context() if guided else None,
                config.denoise,
                scale=config.scale_factor / config.noise.latent_scale,
                image_index=image_index,
                taps=taps,
            )
        if not config.attn_t_ensemble:
            return self.unet(latents, told[0], context, image_index=image_index, taps=taps)
        own, *others = latents.unbind(1)
        # Maps come first: nothing of the pass for the features has to be kept meanwhile.
        maps = [
            self._maps(other, step, context, image_index, replace(taps, features=False))
            for other, step in zip(others, told[1:], strict=True)
        ]
        means = {s: torch.stack([one[s] for one in maps]).mean(0) for s in taps.attention}
        taps = replace(taps, attention=())
        out = self.unet(own, told[0], context, image_index=image_index, taps=taps)
        return replace(out, attention=means)

    def _empty_context(self) -> Tensor:
        with torch.no_grad():
            return self.context(self.encode_text([""]))

    def _maps(
        self,
        latents: Tensor,
        timesteps: int | Tensor,
        context: Tensor,
        index: Tensor | None,
        taps: Taps,
    ) -> dict[int, Tensor]:
        """Maps alone; without gradient where they carry none anyway, so that nothing is kept."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and taps.map_grad == "full"):
            return self.unet(latents, timesteps, context, image_index=index, taps=taps).attention

    def decode(self, out: UNetOutput, size: tuple[int, int]) -> Tensor:
        """Raw two-class scores [B, 2, *size] (background, object) from the U-Net's output."""
        scores = self.scores(out).float()
        return F.interpolate(scores, size, mode="bilinear", align_corners=True)

    def scores(self, out: UNetOutput) -> Tensor:
        """The same on the latent's own grid, [B, 2, h, w]."""
        scale = self.config.map_scale
        maps = {stride: map_ * scale for stride, map_ in out.attention.items()}
        return self.decoder(UNetOutput(None, out.features, maps).pyramid())

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
