"""Training losses. Each takes ``(prediction, target, ...)`` and reduces as its original does;
``reduction="none"`` gives the unreduced values. They are computed in float32 at least, whatever the
prediction's dtype."""

from __future__ import annotations

from vpd.losses.common import Reduction
from vpd.losses.depth import SilogSums, silog_loss, silog_sums
from vpd.losses.grounding import GroundingForm, mask_grounding_loss
from vpd.losses.mask2former import (
    Mask2FormerLoss,
    PointDraws,
    mask2former_cost,
    mask2former_loss,
    match,
)
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
from vpd.losses.tagging import FocusGrad, asymmetric_loss

__all__ = [
    "FocusGrad",
    "GroundingForm",
    "Mask2FormerLoss",
    "MaskLosses",
    "PointDraws",
    "ReconstructionLoss",
    "Reduction",
    "SegmentationSums",
    "SilogSums",
    "asymmetric_loss",
    "contrastive_loss",
    "dice_loss",
    "epsilon_loss",
    "mask2former_cost",
    "mask2former_loss",
    "mask_grounding_loss",
    "mask_losses",
    "match",
    "reconstruction_loss",
    "segmentation_cross_entropy",
    "segmentation_sums",
    "silog_loss",
    "silog_sums",
    "weighted_cross_entropy",
]
