"""UperNet's head, and the auxiliary head that trains beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from vpd._load import core
from vpd.nn import BatchNormGroup, CoreModule

__all__ = ["FCNHead", "FCNHeadConfig", "UperNetHead", "UperNetHeadConfig"]


@dataclass(frozen=True)
class UperNetHeadConfig:
    """Shape of a UperNet head."""

    in_channels: tuple[int, ...]
    """Channels of the feature maps, fine to coarse, attention maps included."""
    num_classes: int
    channels: int = 512
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    """Sides of the grids that the coarsest map is averaged to."""
    dropout: float = 0.1
    """Probability, in [0, 1), that a whole channel is zero before the last convolution, in
    training."""


class UperNetHead(CoreModule[UperNetHeadConfig]):
    """The head of UperNet (Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding").

    Pyramid pooling (Zhao et al. 2017) of the coarsest map, a feature pyramid from there to the
    finest, all maps joined at the finest's size and classified; every convolution with batch norm
    and ReLU, every resize bilinear without aligned corners. Parameter names are mmsegmentation's
    below ``decode_head.`` (``psp_modules.i.1``, ``bottleneck``, ``lateral_convs.i``,
    ``fpn_convs.i``, ``fpn_bottleneck``, ``conv_seg``); transformers' ``UperNetHead`` loads too.

    Example:
        >>> config = vpd.UperNetHeadConfig(in_channels=(8, 16, 16), num_classes=7, channels=32)
        >>> head = vpd.UperNetHead(config).eval()
        >>> maps = [torch.randn(1, c, s, s) for c, s in zip((8, 16, 16), (32, 16, 8))]
        >>> head(maps).shape
        torch.Size([1, 7, 32, 32])
    """

    batch_norm_group: BatchNormGroup | None = None
    """Processes whose rows are normalised together in training mode; see
    :func:`vpd.nn.synchronize_batch_norm`."""

    def __init__(
        self, config: UperNetHeadConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config, generator=generator)

    @staticmethod
    def _build(config: UperNetHeadConfig) -> Any:
        return core.UperNetHead(**asdict(config))

    def pool(self, coarsest: Tensor) -> Tensor:
        """The pyramid pooling alone.

        Args:
            coarsest: [B, in_channels[-1], H, W]

        Returns:
            [B, channels, H, W]: the map beside its averages over grids of each pool scale, through
            the bottleneck.
        """
        return self._core.pool(self.core_tensors(), coarsest, self.training, self.batch_norm_group)

    def forward(
        self, features: Sequence[Tensor], *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Feature maps to class scores.

        Args:
            features: Fine to coarse, [B, in_channels[i], H_i, W_i]; any sizes, square or not.
            generator: What dropout draws from in training mode, on the features' device; PyTorch's
                default generator if None.

        Returns:
            Logits [B, num_classes, H_0, W_0], at the size of the finest map.

        Raises:
            ValueError: A number of maps or channels other than the config's; in training mode, a
                batch of one image with a pool scale of 1 (one value per channel has no variance),
                unless processes share their rows.
        """
        return self._core.forward(
            self.core_tensors(), list(features), self.training, self.batch_norm_group, generator
        )


@dataclass(frozen=True)
class FCNHeadConfig:
    """Shape of a fully convolutional head."""

    in_channels: int
    """Channels of the feature map it reads."""
    num_classes: int
    channels: int = 256
    num_convs: int = 1
    in_index: int = 2
    """Which feature map it reads, fine to coarse."""
    dropout: float = 0.1
    """Probability, in [0, 1), that a whole channel is zero before the last convolution, in
    training."""


class FCNHead(CoreModule[FCNHeadConfig]):
    """A fully convolutional head on one feature map (Long et al. 2015): the auxiliary head that
    trains beside UperNet.

    Parameter names are mmsegmentation's below ``auxiliary_head.`` (``convs.i.conv``,
    ``convs.i.bn``, ``conv_seg``).

    Example:
        >>> head = vpd.FCNHead(vpd.FCNHeadConfig(in_channels=16, num_classes=7, channels=8))
        >>> maps = [torch.randn(1, c, s, s) for c, s in zip((8, 16, 16), (32, 16, 8))]
        >>> head(maps).shape
        torch.Size([1, 7, 8, 8])
    """

    batch_norm_group: BatchNormGroup | None = None
    """Processes whose rows are normalised together in training mode; see
    :func:`vpd.nn.synchronize_batch_norm`."""

    def __init__(self, config: FCNHeadConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator=generator)

    @staticmethod
    def _build(config: FCNHeadConfig) -> Any:
        return core.FCNHead(**asdict(config))

    def forward(
        self, features: Sequence[Tensor], *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Feature maps to class scores, from one of them.

        Args:
            features: Fine to coarse; only ``features[in_index]``, [B, in_channels, H, W], is read.
            generator: What dropout draws from in training mode, on the features' device; PyTorch's
                default generator if None.

        Returns:
            Logits [B, num_classes, H, W], at the size of that map.

        Raises:
            ValueError: Too few maps, or a map of other channels than the config's.
        """
        return self._core.forward(
            self.core_tensors(), list(features), self.training, self.batch_norm_group, generator
        )
