"""The mask decoder of referring segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from vpd._load import core
from vpd.nn import BatchNormGroup, CoreModule

__all__ = ["ReferDecoder", "ReferDecoderConfig"]


@dataclass(frozen=True)
class ReferDecoderConfig:
    """Shape of a mask decoder."""

    dims: tuple[int, ...]
    """Channels of the feature maps, fine to coarse, attention maps included: VPD at N tokens has
    (320, 640 + N, 1280 + N, 1280)."""
    hidden: int = 640


class ReferDecoder(CoreModule[ReferDecoderConfig]):
    """LAVT's decoder (Yang et al. 2022) as VPD uses it: from coarse to fine, upsample, concatenate,
    convolve twice.

    All upsampling is bilinear with aligned corners, to the size of the next finer map. Parameter
    names are those of the original below ``classifier.`` (``conv1_4``, ``bn1_4``, ...). In training
    mode batch norms use the batch's statistics and move the running ones.

    Example:
        >>> from vpd.models.refer_decoder import ReferDecoderConfig
        >>> head = vpd.ReferDecoder(ReferDecoderConfig(dims=(32, 77, 77, 64), hidden=64))
        >>> maps = [torch.randn(1, c, s, s) for c, s in zip(head.config.dims, (32, 16, 8, 4))]
        >>> head(maps).shape
        torch.Size([1, 2, 32, 32])
    """

    batch_norm_group: BatchNormGroup | None = None
    """Processes whose rows are normalised together in training mode; see
    :func:`vpd.nn.synchronize_batch_norm`."""

    def __init__(
        self, config: ReferDecoderConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config, generator=generator)

    @staticmethod
    def _build(config: ReferDecoderConfig) -> Any:
        return core.ReferDecoder(**asdict(config))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps to logits of background and object.

        Args:
            features: Fine to coarse, [B, dims[i], H_i, W_i]; any sizes, square or not.

        Returns:
            Logits [B, 2, H_0, W_0], at the size of the finest map.

        Raises:
            ValueError: A number of maps or channels other than the config's.
        """
        return self._core.forward(
            self.core_tensors(), list(features), self.training, self.batch_norm_group
        )
