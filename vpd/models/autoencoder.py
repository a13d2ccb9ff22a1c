"""The image autoencoders of latent diffusion: KL-regularised (Stable Diffusion's) and
vector-quantised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from vpd._load import core
from vpd.nn import CoreModule

__all__ = ["AutoencoderConfig", "AutoencoderKL", "Posterior", "Quantised", "VQConfig", "VQModel"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of a KL autoencoder; field names are the original's, defaults are Stable Diffusion
    v1's."""

    ch: int = 128
    """Channels at full resolution."""
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    """Channels of each level in units of ``ch``; one level more halves the latent's sides."""
    num_res_blocks: int = 2
    z_channels: int = 4
    """Channels of the encoder's mean, and of its log variance."""
    embed_dim: int = 4
    """Channels of the latent."""
    in_channels: int = 3
    out_ch: int = 3
    norm_groups: int = 32
    mid_attention: bool = True
    """Self-attention in the middle, as in the original. Small models do without."""
    encode_only: bool = False
    """No decoder, as in VPD's checkpoints (which keep ``post_quant_conv``)."""

    @property
    def stride(self) -> int:
        """Pixels per latent position, along each side."""
        return 2 ** (len(self.ch_mult) - 1)


class Posterior:
    """Diagonal Gaussian over the latents of a batch of images."""

    def __init__(self, posterior: Any, blocks: dict[str, Tensor]) -> None:
        self._core = posterior
        self.blocks = blocks
        """The taps asked for: ``"encoder.down.1.block.0:input"`` -> tensor."""

    @property
    def mean(self) -> Tensor:
        """[B, embed_dim, h, w]."""
        return self._core.mean

    @property
    def logvar(self) -> Tensor:
        """[B, embed_dim, h, w], clamped to [-30, 20]."""
        return self._core.logvar

    @property
    def std(self) -> Tensor:
        """[B, embed_dim, h, w]."""
        return self._core.std

    def mode(self) -> Tensor:
        """The most likely latent, [B, embed_dim, h, w]: the mean."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """``mean + std * noise``, [B, embed_dim, h, w]; gradients flow to both."""
        return self._core.sample(generator)

    def kl(self) -> Tensor:
        """Divergence from the standard normal in nats, summed over each sample: [B]."""
        return self._core.kl()


class AutoencoderKL(CoreModule[AutoencoderConfig]):
    """The KL-regularised autoencoder of latent diffusion (Rombach et al. 2022).

    Latents are unscaled: Stable Diffusion multiplies them by 0.18215 before its U-Net, VPD does
    not. Parameter names are those of the original checkpoint below ``first_stage_model.``.

    Args:
        config: Shape; Stable Diffusion v1's if None.
        encode_only: Leave the decoder out, whatever the config says; kept in ``self.config``.
        generator: Source of the initial weights.

    Example:
        >>> vae = vpd.AutoencoderKL(vpd.AutoencoderConfig(ch=32))
        >>> z = vae.encode(torch.rand(1, 3, 64, 96) * 2 - 1).mode()
        >>> z.shape, vae.decode(z).shape
        (torch.Size([1, 4, 8, 12]), torch.Size([1, 3, 64, 96]))
    """

    def __init__(
        self,
        config: AutoencoderConfig | None = None,
        *,
        encode_only: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        config = config or AutoencoderConfig()
        if encode_only:
            config = replace(config, encode_only=True)
        super().__init__(config, generator=generator)

    @staticmethod
    def _build(config: AutoencoderConfig) -> Any:
        return core.AutoencoderKL(**asdict(config))

    def block_names(self) -> list[str]:
        """Blocks that can be tapped, in the order they run, encoder first."""
        return self._core.block_names()

    def encode(self, image: Tensor, *, taps: Sequence[str] = ()) -> Posterior:
        """Images to a distribution over latents.

        Args:
            image: [B, in_channels, H, W] in [-1, 1]; H and W positive multiples of
                ``config.stride`` (8 for SD).
            taps: Encoder blocks (see :meth:`block_names`) whose input or output is kept in
                ``.blocks``, for example ``"encoder.down.1.block.0:input"``.

        Raises:
            ValueError: A size, dtype or tap that this network cannot take.
        """
        return Posterior(*self._core.encode(self.core_tensors(), image, list(taps)))

    @overload
    def decode(self, z: Tensor) -> Tensor: ...

    @overload
    def decode(self, z: Tensor, *, taps: Sequence[str]) -> dict[str, Tensor]: ...

    def decode(self, z: Tensor, *, taps: Sequence[str] | None = None) -> Tensor | dict[str, Tensor]:
        """Latents to images, or to what decoder blocks see.

        Args:
            z: [B, embed_dim, h, w], unscaled.
            taps: Decoder blocks as ``"decoder.up.1.block.0:input"``. Given, they are what is
                returned, and nothing past the last of them is computed; the image is
                ``"decoder.conv_out:output"``.

        Returns:
            The image [B, out_ch, h * stride, w * stride], about [-1, 1] but not clamped; with taps
            a dict of tensors.

        Raises:
            ValueError: A size, dtype or tap that this network cannot take, or a network without
                decoder.
        """
        if taps is None:
            return self._core.decode(self.core_tensors(), z)
        return self._core.decode_taps(self.core_tensors(), z, list(taps))

    def forward(self, image: Tensor) -> Tensor:
        """The image decoded from its most likely latent."""
        return self.decode(self.encode(image).mode())


@dataclass(frozen=True)
class VQConfig:
    """Shape of a vector-quantised autoencoder; field names are the original's, defaults are
    VQ-f4's."""

    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4)
    num_res_blocks: int = 2
    z_channels: int = 3
    embed_dim: int = 3
    """Channels of the latent, length of a code."""
    n_embed: int = 8192
    """Codes in the codebook."""
    beta: float = 0.25
    """Weight of the codebook term of the loss (the original's legacy order)."""
    in_channels: int = 3
    out_ch: int = 3
    norm_groups: int = 32
    mid_attention: bool = True

    @property
    def stride(self) -> int:
        """Pixels per latent position, along each side."""
        return 2 ** (len(self.ch_mult) - 1)


class Quantised(NamedTuple):
    """Latents moved to their nearest codes."""

    latent: Tensor
    """[B, embed_dim, h, w]; its gradient passes straight through to what was quantised."""
    indices: Tensor
    """int64 [B, h, w], values in [0, n_embed)."""
    loss: Tensor
    """Scalar: ``mean((sg(codes) - h)**2) + beta * mean((codes - sg(h))**2)``, sg = stop
    gradient."""


class VQModel(CoreModule[VQConfig]):
    """The vector-quantised autoencoder of latent diffusion (Esser et al. 2021; Rombach et al.
    2022).

    Parameter names are those of the original checkpoint below ``first_stage_model.``; the codebook
    is ``quantize.embedding.weight``. Its latents need no scaling.
    """

    def __init__(
        self, config: VQConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config or VQConfig(), generator=generator)

    @staticmethod
    def _build(config: VQConfig) -> Any:
        return core.VQModel(**asdict(config))

    def encode(self, image: Tensor) -> Tensor:
        """Images [B, in_channels, H, W] in [-1, 1], H and W positive multiples of
        ``config.stride``, to latents before quantisation [B, embed_dim, h, w].

        Raises:
            ValueError: A size or dtype that this network cannot take.
        """
        return self._core.encode(self.core_tensors(), image)

    def quantise(self, h: Tensor) -> Quantised:
        """Nearest codes of latents [B, embed_dim, h, w]."""
        return Quantised(*self._core.quantise(self.core_tensors(), h))

    def decode(self, h: Tensor, *, force_not_quantize: bool = False) -> Tensor:
        """Latents [B, embed_dim, h, w], quantised first unless told not to, to images [B, out_ch,
        H, W]."""
        return self._core.decode(self.core_tensors(), h, force_not_quantize)

    def forward(self, image: Tensor) -> Tensor:
        """The image decoded from its quantised latent."""
        return self.decode(self.encode(image))
