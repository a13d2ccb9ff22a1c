"""ODISE's way from the features of a frozen diffusion model to a pyramid of maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from vpd._load import core
from vpd.nn import CoreModule

__all__ = ["OdiseBackbone", "OdiseBackboneConfig"]


@dataclass(frozen=True)
class OdiseBackboneConfig:
    """Which features there are, and the pyramid they become; defaults are ODISE's on Stable
    Diffusion v1."""

    in_channels: tuple[int, ...] = (512, 512, 2560, 1920, 960, 640, 512, 512)
    """Of each feature."""
    in_strides: tuple[int, ...] = (4, 8, 64, 32, 16, 8, 8, 4)
    """Of each feature, in pixels of what the diffusion model sees."""
    projection_dim: int = 512
    """Channels of the maps, a multiple of 4: bottlenecks have a quarter of it inside."""
    num_res_blocks: int = 1
    """Bottlenecks for each feature."""
    min_stride: int = 4
    """Of a map; finer features are seen at this stride."""
    max_stride: int = 32
    """Of a map; coarser features are seen at this stride."""
    norm_groups: int = 32


class OdiseBackbone(CoreModule[OdiseBackboneConfig]):
    """The pyramid under ODISE's head (Xu et al. 2023, "Open-Vocabulary Panoptic Segmentation with
    Text-to-Image Diffusion Models").

    Each feature is resized (nearest neighbours) to the picture's size over its stride, goes through
    residual bottlenecks of its own (He et al. 2016, with group norms), and features of one stride
    are summed. Parameter names are the original's below ``backbone.``
    (``feature_projections.<feature>.<bottleneck>.conv1.norm.weight``).

    Example:
        >>> config = vpd.OdiseBackboneConfig((8, 16, 12), (4, 8, 8), projection_dim=128)
        >>> backbone = vpd.OdiseBackbone(config)
        >>> features = [torch.randn(2, c, s, s) for c, s in zip((8, 16, 12), (32, 16, 16))]
        >>> [tuple(map.shape) for map in backbone(features, (64, 64))]
        [(2, 128, 16, 16), (2, 128, 8, 8)]
    """

    recompute: bool = False
    """Whether the backward projects again instead of keeping what it needs since the forward."""

    def __init__(
        self,
        config: OdiseBackboneConfig | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(config or OdiseBackboneConfig(), generator=generator)

    @staticmethod
    def _build(config: OdiseBackboneConfig) -> Any:
        return core.OdiseBackbone(**asdict(config))

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the maps, fine to coarse, in pixels of the picture."""
        return tuple(self._core.strides())

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Features to maps.

        Args:
            features: [B, in_channels[i], h_i, w_i], of any sizes: the diffusion model may have seen
                the picture at another size.
            size: Height and width of the picture, multiples of the coarsest stride.

        Returns:
            For each of ``strides`` [B, projection_dim, height / stride, width / stride].

        Raises:
            ValueError: Another number of features, other channels, or such a size.
        """
        return tuple(self._core.forward(self.core_tensors(), list(features), *size, self.recompute))
