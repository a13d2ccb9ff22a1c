"""The head of monocular depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from vpd._load import core
from vpd.nn import BatchNormGroup, CoreModule

__all__ = ["DepthHead", "DepthHeadConfig"]


@dataclass(frozen=True)
class DepthHeadConfig:
    """Shape of a depth head; the defaults are VPD's on Stable Diffusion v1."""

    dims: tuple[int, int, int, int] = (320, 640, 1280, 1280)
    """Channels of the U-Net's four feature maps, fine to coarse, without attention maps."""
    embed_dim: int = 192
    """Width of the last convolutions; the encoded features are eight times as wide."""
    num_filters: tuple[int, ...] = (32, 32, 32)
    """Channels of the transposed convolutions. Each doubles the size, and the depth map is
    2 ** len(num_filters) times as fine as the finest feature map: as many as the autoencoder halves
    the image give depth at the image's own size."""
    max_depth: float = 10.0
    """Metres that depth cannot exceed."""
    norm_groups: int = 16


class DepthHead(CoreModule[DepthHeadConfig]):
    """Monocular depth on a U-Net's features (VPD; Zhao et al. 2023, section 4.4).

    The encoder brings all maps to the grid of the second coarsest: strided convolutions for the two
    finer, nearest neighbours for the coarsest. The decoder goes up from there by transposed
    convolutions, then by two bilinear doublings, to sigmoid(x) * max_depth. Parameter names are the
    original's (``encoder.layer1``, ``encoder.layer2``, ``encoder.out_layer``,
    ``decoder.deconv_layers``, ``decoder.conv_layers``, ``last_layer_depth``).

    Example:
        >>> config = vpd.DepthHeadConfig(dims=(32, 64, 64, 64), embed_dim=8, num_filters=(8, 8))
        >>> head = vpd.DepthHead(config)
        >>> maps = [torch.randn(1, c, s, s) for c, s in zip(config.dims, (32, 16, 8, 4))]
        >>> head(maps).shape
        torch.Size([1, 1, 128, 128])
    """

    batch_norm_group: BatchNormGroup | None = None
    """Processes whose rows are normalised together in training mode; see
    :func:`vpd.nn.synchronize_batch_norm`."""

    def __init__(
        self, config: DepthHeadConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config or DepthHeadConfig(), generator=generator)

    @staticmethod
    def _build(config: DepthHeadConfig) -> Any:
        return core.DepthHead(**asdict(config))

    def encode(self, features: Sequence[Tensor]) -> Tensor:
        """Four feature maps to one.

        Args:
            features: Fine to coarse, [B, dims[i], H_i, W_i], each twice as large as the next.

        Returns:
            [B, 8 * embed_dim, H_2, W_2], at the size of the second coarsest.

        Raises:
            ValueError: Maps of another number, other channels or other sizes.
        """
        return self._core.encode(self.core_tensors(), list(features))

    def decode(self, encoded: Tensor, *, crop: tuple[int, int] = (0, 0)) -> Tensor:
        """What :meth:`encode` returned to depth.

        Args:
            encoded: [B, 8 * embed_dim, H, W]
            crop: Rows and columns to leave out at the bottom and at the right.

        Returns:
            Metres [B, 1, s * (H - crop[0]), s * (W - crop[1])] in [0, max_depth], where
            s = 4 * 2 ** len(num_filters); float32 (also from bfloat16 weights) or float64.

        Raises:
            ValueError: Other channels than the config's, or a crop that leaves nothing.
        """
        return self._core.decode(
            self.core_tensors(), encoded, crop, self.training, self.batch_norm_group
        )

    def forward(self, features: Sequence[Tensor], *, crop: tuple[int, int] = (0, 0)) -> Tensor:
        """Feature maps to depth: :meth:`decode` of :meth:`encode`.

        Args:
            features: Fine to coarse, [B, dims[i], H_i, W_i], each twice as large as the next.
            crop: Rows and columns of the second coarsest grid to leave out at the bottom and at the
                right: the padding of an image that was not a multiple of the U-Net's stride. VPD
                pads 480 x 480 to 512 x 512 and crops (1, 1).

        Returns:
            Metres [B, 1, H, W] as :meth:`decode` says.
        """
        return self._core.forward(
            self.core_tensors(), list(features), crop, self.training, self.batch_norm_group
        )
