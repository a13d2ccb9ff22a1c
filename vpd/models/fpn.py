"""Semantic FPN: a feature pyramid and the head that classifies pixels on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from vpd._load import core
from vpd.nn import BatchNormGroup, CoreModule

__all__ = ["FPN", "FPNConfig", "SemanticFPNHead", "SemanticFPNHeadConfig"]


@dataclass(frozen=True)
class FPNConfig:
    """Shape of a feature pyramid."""

    in_channels: tuple[int, ...]
    """Channels of the feature maps, fine to coarse, attention maps included: VPD with K classes
    has (320, 640 + K, 1280 + K, 1280)."""
    out_channels: int = 256


class FPN(CoreModule[FPNConfig]):
    """Feature pyramid network (Lin et al. 2017) as mmsegmentation and VPD have it.

    Each map goes through a 1x1 convolution, has the next coarser one added (nearest neighbours) and
    goes through a 3x3 convolution; no normalisation, no activation. Parameter names are those of
    the original below ``neck.`` (``lateral_convs.i.conv``, ``fpn_convs.i.conv``); weights start
    Xavier-uniform, biases at zero.

    Example:
        >>> neck = vpd.FPN(vpd.FPNConfig(in_channels=(32, 77, 77, 64), out_channels=16))
        >>> maps = [torch.randn(1, c, s, s) for c, s in zip((32, 77, 77, 64), (32, 16, 8, 4))]
        >>> [tuple(map.shape[1:]) for map in neck(maps)]
        [(16, 32, 32), (16, 16, 16), (16, 8, 8), (16, 4, 4)]
    """

    def __init__(self, config: FPNConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator=generator)

    @staticmethod
    def _build(config: FPNConfig) -> Any:
        return core.FPN(**asdict(config))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps to maps of one width.

        Args:
            features: Fine to coarse, [B, in_channels[i], H_i, W_i]; any sizes, square or not.

        Returns:
            As many maps, [B, out_channels, H_i, W_i].

        Raises:
            ValueError: A number of maps or channels other than the config's.
        """
        return self._core.forward(self.core_tensors(), list(features))


@dataclass(frozen=True)
class SemanticFPNHeadConfig:
    """Shape of a Semantic FPN head."""

    in_channels: tuple[int, ...]
    """Channels of the feature maps, fine to coarse; behind an FPN its ``out_channels`` each."""
    num_classes: int
    channels: int = 256
    """Width of the head: VPD's; mmsegmentation's default is 128."""
    dropout: float = 0.1
    """Probability, in [0, 1), that a whole channel is zero before the last convolution, in
    training."""


class SemanticFPNHead(CoreModule[SemanticFPNHeadConfig]):
    """The head of Semantic FPN (Kirillov et al. 2019, "Panoptic Feature Pyramid Networks", section
    3.1) as mmsegmentation and VPD have it.

    Map i goes i times (the finest once, without the doubling) through convolution, batch norm, ReLU
    and bilinear doubling; all are then summed at the size of the finest and classified. Parameter
    names are those of the original below ``decode_head.`` (``scale_heads.i.j.conv``, ``conv_seg``).

    Example:
        >>> config = vpd.SemanticFPNHeadConfig(in_channels=(16,) * 4, num_classes=7, channels=16)
        >>> head = vpd.SemanticFPNHead(config)
        >>> head([torch.randn(1, 16, s, s) for s in (32, 16, 8, 4)]).shape
        torch.Size([1, 7, 32, 32])
    """

    batch_norm_group: BatchNormGroup | None = None
    """Processes whose rows are normalised together in training mode; see
    :func:`vpd.nn.synchronize_batch_norm`."""

    def __init__(
        self, config: SemanticFPNHeadConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config, generator=generator)

    @staticmethod
    def _build(config: SemanticFPNHeadConfig) -> Any:
        return core.SemanticFPNHead(**asdict(config))

    def forward(
        self, features: Sequence[Tensor], *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Feature maps to class scores.

        Args:
            features: Fine to coarse, [B, in_channels[i], H_i, W_i], each about half as large as the
                one before; what doubling misses, by odd sizes, is interpolated.
            generator: What dropout draws from in training mode, on the features' device; PyTorch's
                default generator if None.

        Returns:
            Logits [B, num_classes, H_0, W_0], at the size of the finest map.

        Raises:
            ValueError: A number of maps or channels other than the config's; in training mode, maps
                with a single value per channel.
        """
        return self._core.forward(
            self.core_tensors(), list(features), self.training, self.batch_norm_group, generator
        )
