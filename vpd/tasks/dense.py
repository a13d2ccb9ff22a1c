"""What tasks with a value for every pixel share: one pass of a backbone under a head. It is a
diffusion model's U-Net, told something about the picture, or, to measure that against, a plain
vision transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpd.models.autoencoder import AutoencoderConfig, AutoencoderKL
from vpd.models.unet import Taps, UNet, UNetConfig, UNetOutput
from vpd.models.vit import ViTBackbone, ViTConfig
from vpd.nn import Network
from vpd.noise import encode_under
from vpd.protocol import NoiseSpec

__all__ = ["Context", "DenseConfig", "DenseModel", "pad_to_multiple"]


@dataclass(frozen=True)
class DenseConfig:
    """Networks and choices around them; the defaults are VPD's on Stable Diffusion v1."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    vae: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    noise: NoiseSpec = field(default_factory=NoiseSpec)
    attention: tuple[int, ...] = ()
    """Strides on the latent grid whose cross-attention maps the head sees; () for none."""
    map_scale: float = 1.0
    """What maps are multiplied with before the head. VPD: 1."""
    map_grad: Literal["detach", "full"] = "detach"
    text_adapter: bool = True
    """Whether embeddings of classes, or of a type of scene, pass through the text adapter."""
    image_norm: Literal["half", "none"] = "half"
    """``half``: the autoencoder sees images in [-1, 1]. ``none``: in [0, 1]."""
    scale_factor: float = 0.18215
    """What the diffusion model's latents were multiplied with when it was trained."""
    vit: ViTConfig | None = None
    """A frozen vision transformer in the place of autoencoder and U-Net: their fields then mean
    nothing. It sees pictures without noise, is told nothing and has no maps for the head."""

    def __post_init__(self) -> None:
        own = {"noise": NoiseSpec(), "attention": (), "text_adapter": False, "image_norm": "half"}
        strange = [name for name, value in own.items() if getattr(self, name) != value]
        if self.vit is not None and strange:
            raise ValueError(
                f"{type(self).__name__}.vit: a vision transformer sees pictures as they are, is "
                f"told nothing and has no maps, got {strange[0]}={getattr(self, strange[0])!r}"
            )

    @property
    def noises(self) -> tuple[NoiseSpec, ...]:
        """The protocols that pictures are encoded under: one."""
        return (self.noise,)

    @property
    def finest(self) -> int:
        """Pixels between the places of the finest feature map."""
        if self.vit is not None:
            return self.vit.strides[0]
        return 2 ** (len(self.vae.ch_mult) - 1)

    @property
    def multiple(self) -> int:
        """What height and width of a network's input must be multiples of."""
        if self.vit is not None:
            return self.vit.strides[-1]
        return 2 ** (len(self.vae.ch_mult) - 1 + len(self.unet.channel_mult) - 1)


@dataclass(frozen=True)
class Context:
    """What the U-Net is told about pictures."""

    states: Tensor
    """[B or 1, N, context_dim], what it attends to."""
    mask: Tensor | None = None
    """bool [B or 1, N], True = attend; None: to all."""
    time_bias: Tensor | None = None
    """[B, 4 * model_channels], added to its time embedding."""
    tags: Tensor | None = None
    """[B or 1, K], scores of the classes before the sigmoid, where a tagging adapter made it."""
    attention: Tensor | None = None
    """[B, Q, tokens], where that adapter's queries looked in the picture, if asked for."""


C = TypeVar("C", bound=DenseConfig)


class DenseModel(Network, Generic[C]):
    """A backbone: autoencoder and U-Net, or a vision transformer. What a task adds tells the U-Net
    something, and reads it.

    Args:
        config: Of the task.
    """

    adapter: nn.Module
    clip: nn.ModuleDict
    """``image``: the encoder of :meth:`look`, where there is one."""

    def __init__(self, config: C) -> None:
        super().__init__()
        self.config = config
        if config.vit is not None:
            self.vit = ViTBackbone(config.vit)
            return
        self.vae = AutoencoderKL(config.vae, encode_only=True)
        self.unet = UNet(config.unet)
        own = {stride for _, place, stride in self.unet.attention_layers() if place != "mid"}
        lacking = sorted(set(config.attention) - own)
        if lacking:
            raise ValueError(
                f"attention: this U-Net has cross-attention at strides {sorted(own)} of its "
                f"latent grid, got {lacking[0]}"
            )

    @property
    def backbone(self) -> UNet | ViTBackbone:
        """The network whose features the head reads."""
        return self.unet if self.config.vit is None else self.vit

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Of its feature maps, fine to coarse, without attention maps."""
        return tuple(self.backbone.feature_channels)

    @property
    def adapts(self) -> bool:
        """Whether an adapter makes what the U-Net is told."""
        return self.config.text_adapter

    @property
    def sees(self) -> bool:
        """Whether an image encoder has part in that: :meth:`look`."""
        return False

    def own_buffers(self) -> list[Tensor]:
        """Embeddings that the model holds beside its networks, in the order of their names."""
        return [self._buffers[name] for name in sorted(self._buffers)]  # type: ignore[misc]

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.backbone.parameters()).dtype

    def encode_image(self, image: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """Latents that the U-Net sees, under the config's noise protocol, without gradient; a
        vision transformer sees the image itself.

        Args:
            image: [B, 3, H, W] in [-1, 1]; H and W multiples of ``config.multiple``.
            keys: An id of each image, which its noise is drawn from; a hash of its pixels if None.

        Returns:
            [B, C, h, w]
        """
        config = self.config
        if config.vit is not None:
            return image
        with torch.no_grad():
            (latents,) = encode_under(
                self.vae, image, [config.noise], config.scale_factor, keys, config.image_norm
            )
        return latents

    def adapted(self, states: Tensor) -> Tensor:
        """Embeddings [..., context_dim], through the text adapter if it is in use."""
        return self.adapter(states) if self.config.text_adapter else states

    def look(self, pixels: Tensor) -> Tensor | None:
        """What an image encoder sees in pictures [B, 3, H, W] in [-1, 1], without gradient; None
        where there is none."""
        return None

    def context(self, words: Sequence[Any], seen: Tensor | None = None) -> Context:
        """What the U-Net is told.

        Args:
            words: What is said about each picture, as the task has it; None: nothing.
            seen: Of :meth:`look`.
        """
        raise NotImplementedError

    def attend(self, latents: Tensor, context: Context) -> UNetOutput:
        """The U-Net's features and maps, or a vision transformer's features.

        Args:
            latents: [B, C, h, w] of :meth:`encode_image`.
            context: Of B pictures, or the same for all of them.
        """
        config, rows = self.config, len(latents)
        if config.vit is not None:
            maps = self.vit(latents.float())
            return UNetOutput(None, tuple(map_.to(latents.dtype) for map_ in maps), {})
        mask = context.mask
        return self.unet(
            latents,
            config.noise.timestep,
            context.states.expand(rows, -1, -1),
            context_mask=None if mask is None else mask.expand(rows, -1),
            time_bias=context.time_bias,
            taps=Taps(attention=config.attention, map_grad=config.map_grad),
        )

    def pyramid(self, out: UNetOutput) -> tuple[Tensor, ...]:
        """The four feature maps, each with the maps of its level behind it."""
        maps = {stride: map_ * self.config.map_scale for stride, map_ in out.attention.items()}
        return UNetOutput(None, out.features, maps).pyramid()


def pad_to_multiple(pixels: Tensor, multiple: int) -> Tensor:
    """[B, 3, H, W] in [-1, 1], with zeros (grey) below and at the right up to multiples of
    ``multiple``."""
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (0, -width % multiple, 0, -height % multiple))
