"""What tasks with a value for every pixel share: one pass of the U-Net, conditioned on texts that
the model holds, under a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpd.models.adapters import TextAdapter
from vpd.models.autoencoder import AutoencoderConfig, AutoencoderKL
from vpd.models.unet import Taps, UNet, UNetConfig, UNetOutput
from vpd.noise import encode_under
from vpd.protocol import NoiseSpec

__all__ = ["DenseConfig", "DenseModel", "pad_to_multiple"]


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
    """Whether embeddings pass through the text adapter."""
    image_norm: Literal["half", "none"] = "half"
    """``half``: the autoencoder sees images in [-1, 1]. ``none``: in [0, 1]."""
    scale_factor: float = 0.18215
    """What the diffusion model's latents were multiplied with when it was trained."""

    @property
    def noises(self) -> tuple[NoiseSpec, ...]:
        """The protocols that pictures are encoded under: one."""
        return (self.noise,)

    @property
    def multiple(self) -> int:
        """What height and width of a network's input must be multiples of."""
        return 2 ** (len(self.vae.ch_mult) - 1 + len(self.unet.channel_mult) - 1)


C = TypeVar("C", bound=DenseConfig)


class DenseModel(nn.Module, Generic[C]):
    """Autoencoder, U-Net, text adapter and the embeddings of the texts that condition it.

    The texts are known beforehand (names of classes, types of scenes), so the text encoder is no
    part of it: ``vpd classes build`` makes the embeddings.

    Args:
        config: Of the task.
        texts: How many embeddings there are.
    """

    class_embeddings: Tensor
    """[texts, context_dim], pooled states of the text encoder."""

    def __init__(self, config: C, texts: int) -> None:
        super().__init__()
        self.config = config
        self.vae = AutoencoderKL(config.vae, encode_only=True)
        self.unet = UNet(config.unet)
        self.adapter = TextAdapter(config.unet.context_dim)
        self.register_buffer("class_embeddings", torch.zeros(texts, config.unet.context_dim))
        own = {stride for _, place, stride in self.unet.attention_layers() if place != "mid"}
        lacking = sorted(set(config.attention) - own)
        if lacking:
            raise ValueError(
                f"attention: this U-Net has cross-attention at strides {sorted(own)} of its "
                f"latent grid, got {lacking[0]}"
            )

    @property
    def device(self) -> torch.device:
        return self.class_embeddings.device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def encode_image(self, image: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        """Latents that the U-Net sees, under the config's noise protocol, without gradient.

        Args:
            image: [B, 3, H, W] in [-1, 1]; H and W multiples of ``config.multiple``.
            keys: An id of each image, which its noise is drawn from; a hash of its pixels if None.

        Returns:
            [B, C, h, w]
        """
        config = self.config
        with torch.no_grad():
            (latents,) = encode_under(
                self.vae, image, [config.noise], config.scale_factor, keys, config.image_norm
            )
        return latents

    def context(self, states: Tensor) -> Tensor:
        """What the U-Net attends to: embeddings [..., context_dim], through the text adapter if it
        is in use."""
        return self.adapter(states) if self.config.text_adapter else states

    def attend(self, latents: Tensor, context: Tensor) -> UNetOutput:
        """The U-Net's features and maps.

        Args:
            latents: [B, C, h, w] of :meth:`encode_image`.
            context: [B or 1, N, context_dim] of :meth:`context`.
        """
        config = self.config
        taps = Taps(attention=config.attention, map_grad=config.map_grad)
        rows = context.expand(len(latents), -1, -1)
        return self.unet(latents, config.noise.timestep, rows, taps=taps)

    def pyramid(self, out: UNetOutput) -> tuple[Tensor, ...]:
        """The four feature maps, each with the maps of its level behind it."""
        maps = {stride: map_ * self.config.map_scale for stride, map_ in out.attention.items()}
        return UNetOutput(None, out.features, maps).pyramid()


def pad_to_multiple(pixels: Tensor, multiple: int) -> Tensor:
    """[B, 3, H, W] in [-1, 1], with zeros (grey) below and at the right up to multiples of
    ``multiple``."""
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (0, -width % multiple, 0, -height % multiple))
