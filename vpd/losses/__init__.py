"""Training losses. Each takes ``(prediction, target, ...)`` and reduces as its original does;
``reduction="none"`` gives the unreduced values. They are computed in float32 at least, whatever the
prediction's dtype."""

from __future__ import annotations

from vpd.losses.common import Reduction
from vpd.losses.depth import SilogSums, silog_loss, silog_sums
from vpd.losses.pretraining import (
    ReconstructionLoss,
    contrastive_loss,
    epsilon_loss,
    reconstruction_loss,
)
from vpd.losses.refer import MaskLosses, dice_loss, mask_losses, weighted_cross_entropy
from vpd.losses.segmentation import (
    SegmentationSums,
    segmentation_cross_entropy,
    segmentation_sums,
)

__all__ = [
    "MaskLosses",
    "ReconstructionLoss",
    "Reduction",
    "SegmentationSums",
    "SilogSums",
    "contrastive_loss",
    "dice_loss",
    "epsilon_loss",
    "mask_losses",
    "reconstruction_loss",
    "segmentation_cross_entropy",
    "segmentation_sums",
    "silog_loss",
    "silog_sums",
    "weighted_cross_entropy",
]
