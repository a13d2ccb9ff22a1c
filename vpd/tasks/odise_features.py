"""What ODISE (Xu et al. 2023, "Open-Vocabulary Panoptic Segmentation with Text-to-Image Diffusion
Models") reads from a frozen diffusion model: a pyramid of maps of a picture of any size.

The picture is cut into square windows, each of which the diffusion model sees at its own size. Of
each, the autoencoder's encoder and decoder and the U-Net are tapped (:mod:`vpd.tasks.odise_taps`);
the U-Net is told what the implicit captioner makes of the window. Only the captioner and the
projections train.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpd._load import core
from vpd.diffusion import NoiseSchedule
from vpd.models.autoencoder import AutoencoderKL
from vpd.models.clip_image import CLIPImageEncoder, clip_pixels
from vpd.models.implicit_captioner import ImplicitCaptioner
from vpd.models.odise_backbone import OdiseBackbone, OdiseBackboneConfig
from vpd.models.unet import Taps, UNet
from vpd.nn import Network
from vpd.noise import draw_noise
from vpd.tasks.dense import Context
from vpd.tasks.odise_config import OdiseFeaturesConfig
from vpd.tasks.windows import slide_windows

__all__ = ["OdiseFeatures", "Seen"]

C = TypeVar("C", bound=OdiseFeaturesConfig)


class Seen(NamedTuple):
    """What frozen networks make of windows before the U-Net: the same at each epoch."""

    latents: Tensor
    """[n, C, h, w], times ``scale_factor``, without noise."""
    embedding: Tensor | None
    """[n, image_dim], CLIP's of each window; None without a captioner."""
    encoder: tuple[Tensor, ...]
    """Inputs of the encoder's blocks, [n, C_i, h_i, w_i]."""
    decoder: tuple[Tensor, ...]
    """Inputs of the decoder's blocks."""


class OdiseFeatures(Network, Generic[C]):
    """Autoencoder, U-Net and CLIP's image encoder, frozen, with the captioner (``adapter``) and the
    projections (``backbone``) that train; a task puts its head on it.

    ``empty_states`` [token_length, context_dim] holds the text encoder's states of the empty
    sentence, so that no text encoder is needed.

    Args:
        config: What is tapped, and what the U-Net is told.
    """

    empty_states: Tensor

    def __init__(self, config: C) -> None:
        super().__init__()
        self.config = config
        self.vae = AutoencoderKL(config.vae)
        self.unet = UNet(config.unet)
        states = torch.zeros(config.token_length, config.unet.context_dim)
        self.register_buffer("empty_states", states)
        frozen: list[nn.Module] = [self.vae, self.unet]
        if config.captioner != "none":
            self.clip = nn.ModuleDict({"image": CLIPImageEncoder(config.image)})
            self.adapter = ImplicitCaptioner(config.captioner_config())
            frozen.append(self.clip)
        for net in frozen:
            net.requires_grad_(False)
        encoder, unet, decoder = config.taps()
        taps = [*encoder, *unet * len(config.steps), *decoder]
        self.backbone = OdiseBackbone(
            OdiseBackboneConfig(
                in_channels=tuple(self._input_channels(tap.name) for tap in taps),
                in_strides=tuple(tap.stride for tap in taps),
                projection_dim=config.projection_dim,
                num_res_blocks=config.num_res_blocks,
                min_stride=config.min_stride,
                max_stride=config.max_stride,
                norm_groups=config.norm_groups,
            )
        )

    def _input_channels(self, block: str) -> int:
        """Of a residual block: what its first convolution reads."""
        if block.startswith("output_blocks."):
            return self.unet.get_parameter(f"{block}.0.in_layers.2.weight").shape[1]
        return self.vae.get_parameter(f"{block}.conv1.weight").shape[1]

    @property
    def device(self) -> torch.device:
        return self.empty_states.device

    @property
    def dtype(self) -> torch.dtype:
        return self.empty_states.dtype

    @property
    def multiple(self) -> int:
        """What height and width of a picture must be multiples of: pad it before."""
        return self.backbone.strides[-1]

    @torch.no_grad()
    def look(self, pixels: Tensor) -> Seen:
        """All that precedes the U-Net, without gradient.

        Args:
            pixels: [n, 3, H, W] in [0, 1], as the diffusion model sees them; H and W multiples of
                ``config.multiple``.

        Raises:
            ValueError: Another shape, dtype or size.
        """
        _check_picture("OdiseFeatures.look", pixels)
        encoder, _, decoder = ([f"{tap.name}:input" for tap in own] for own in self.config.taps())
        posterior = self.vae.encode((2 * pixels - 1).to(self.dtype), taps=encoder)
        latents = posterior.mean
        found = self.vae.decode(latents, taps=decoder) if decoder else {}
        embedding = None
        if self.config.captioner != "none":
            image: Any = self.clip["image"]
            view = clip_pixels(_middle(pixels, image.config.image_size), "unit")
            embedding = image(view).projected
        return Seen(
            latents * self.config.scale_factor,
            embedding,
            tuple(posterior.blocks[name] for name in encoder),
            tuple(found[name] for name in decoder),
        )

    def context(self, embedding: Tensor | None) -> Context:
        """What the U-Net is told by itself.

        Args:
            embedding: Of :class:`Seen`.

        Returns:
            States [n or 1, token_length, context_dim]; time bias [n, T, 4 * model_channels] for T
            steps.
        """
        if embedding is None:
            return Context(self.empty_states[None])
        empty = self.empty_states if self.config.captioner == "gated" else None
        made = self.adapter(embedding, empty)
        bias = made.time_bias
        if bias is not None and bias.dim() == 2:
            bias = bias[:, None]
        return Context(made.context, time_bias=bias)

    def taps(self, seen: Seen, states: Tensor | None = None) -> tuple[Tensor, ...]:
        """The features of windows: the encoder's, the U-Net's of one step after the other, all of
        them in one pass, and the decoder's.

        Args:
            seen: Of :meth:`look`.
            states: Token states [N, context_dim] or [n or 1, N, context_dim] of captions, instead
                of what the U-Net is told by itself.

        Returns:
            [n, in_channels[i], h_i, w_i] for each feature of ``backbone.config``.
        """
        rows, noises = len(seen.latents), self.config.noises
        told = self.context(seen.embedding) if states is None else Context(states)
        tokens = _for_rows(told.states.to(self.dtype), rows)
        bias = told.time_bias
        _, own, _ = self.config.taps()
        steps = torch.tensor([noise.timestep for noise in noises], device=self.device)
        out = self.unet(
            torch.cat(self.noisy(seen.latents)),
            steps.repeat_interleave(rows),
            tokens.repeat(len(noises), 1, 1),
            time_bias=None if bias is None else bias.transpose(0, 1).flatten(0, 1),
            taps=Taps(features=False, attention=(), block_inputs=tuple(tap.name for tap in own)),
        )
        blocks = [out.blocks[f"{tap.name}:input"].chunk(len(noises)) for tap in own]
        found = [block[step] for step in range(len(noises)) for block in blocks]
        return (*seen.encoder, *found, *seen.decoder)

    def noisy(self, latents: Tensor) -> list[Tensor]:
        """Latents [n, C, h, w], as :class:`Seen` has them, at each of the steps: with a noise that
        all pictures and steps share."""
        config, noise = self.config, None
        found = []
        for spec in config.noises:
            if spec.adds_noise and noise is None:
                side = config.noise_size or config.image_size // config.vae.stride
                like = torch.zeros(1, latents.shape[1], side, side)
                noise = draw_noise(like, spec, [""])
                if latents.shape[2:] != noise.shape[2:]:
                    size = (latents.shape[2], latents.shape[3])
                    noise = F.interpolate(noise, size, mode="bicubic", align_corners=False)
                noise = noise.to(latents).expand_as(latents)
            found.append(
                latents
                if noise is None or not spec.adds_noise
                else NoiseSchedule().add_noise(latents, noise, spec.noise_t)
            )
        return found

    def pyramid(
        self,
        image: Tensor,
        states: Tensor | None = None,
        *,
        side: int | None = None,
        batch: int = 4,
    ) -> tuple[Tensor, ...]:
        """Maps of pictures, fine to coarse.

        Args:
            image: [B, 3, H, W] in [0, 1]; H and W multiples of :attr:`multiple`.
            states: As :meth:`taps` takes them, of each picture or of all.
            side: Of the windows, a multiple too. None: the picture's shorter side, but
                ``config.image_size`` at most in training mode, as ODISE has it.
            batch: Windows at a time. Memory without gradient is that of so many windows, and of the
                maps.

        Returns:
            For each of ``backbone.strides`` [B, projection_dim, H / stride, W / stride]: what
            windows say, averaged where the last of a row or column overlaps the one before.

        Raises:
            ValueError: Another shape or dtype, or a size or side that is no such multiple.
        """
        _check_picture("OdiseFeatures.pyramid", image)
        count, (height, width) = len(image), (image.shape[2], image.shape[3])
        if side is None:
            side = min(height, width)
            side = min(side, self.config.image_size) if self.training else side
        self._check_sizes(height, width, side)
        if batch < 1:
            raise ValueError(f"OdiseFeatures.pyramid: batch must be at least 1, got {batch}")
        places = slide_windows(height, width, side, side)
        windows = torch.cat([image[:, :, y : y + side, x : x + side] for y, x in places])
        told = None
        if states is not None:
            told = _for_rows(states, count).repeat(len(places), 1, 1)
        parts = []
        for start in range(0, len(windows), batch):
            rows = slice(start, start + batch)
            seen = self.look(_squared(windows[rows], self.config.image_size))
            taps = self.taps(seen, None if told is None else told[rows])
            parts.append(self.backbone(taps, (side, side)))
        return tuple(
            core.join_windows(torch.cat(maps), height // stride, width // stride)
            for stride, maps in zip(self.backbone.strides, zip(*parts, strict=True), strict=True)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """:meth:`pyramid`."""
        return self.pyramid(image)

    def _check_sizes(self, height: int, width: int, side: int) -> None:
        multiple = self.multiple
        if any(size < 1 or size % multiple for size in (height, width, side)):
            raise ValueError(
                "OdiseFeatures.pyramid: height, width and side must be positive multiples of "
                f"{multiple}, got {height}, {width} and {side}"
            )
        if side > min(height, width):
            raise ValueError(
                f"OdiseFeatures.pyramid: expected windows within {height} x {width}, got a side of "
                f"{side}"
            )


def _check_picture(name: str, image: Tensor) -> None:
    if image.dim() != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ValueError(
            f"{name}: image must be floating point [B, 3, H, W] in [0, 1], got {image.dtype} "
            f"{list(image.shape)}"
        )


def _for_rows(states: Tensor, rows: int) -> Tensor:
    """Token states [N, C] or [1 or rows, N, C], of each row."""
    own = states[None] if states.dim() == 2 else states
    if own.dim() != 3 or own.shape[0] not in (1, rows):
        raise ValueError(
            f"OdiseFeatures: states must be [N, C], alone or for each of {rows} pictures, got "
            f"{list(states.shape)}"
        )
    return own.expand(rows, -1, -1)


def _squared(pixels: Tensor, side: int) -> Tensor:
    return _resized(pixels, (side, side))


def _middle(pixels: Tensor, side: int) -> Tensor:
    """What CLIP sees: the shorter side brought to ``side``, and the middle of the longer one."""
    short = min(pixels.shape[2:])
    height, width = (int(side * size / short) for size in pixels.shape[2:])
    top, left = round((height - side) / 2), round((width - side) / 2)
    return _resized(pixels, (height, width))[..., top : top + side, left : left + side]


def _resized(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Bicubic without antialiasing, as ODISE resizes tensors."""
    if tuple(pixels.shape[2:]) == tuple(size):
        return pixels
    return F.interpolate(pixels.float(), tuple(size), mode="bicubic", align_corners=False)
