"""Metrics of semantic segmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vpd._load import core
from vpd.metrics.names import one_each

__all__ = ["SemanticMetrics"]

_VARIANTS = ("mmseg", "d2")


class SemanticMetrics:
    """Semantic segmentation: label maps compared over a whole set.

    With TP, FP and FN of a class counted in pixels of all images together, its IoU is TP / (TP + FP
    + FN), its Dice score 2 TP / (2 TP + FP + FN), its accuracy TP / (TP + FN). Counts are integers:
    merged in any order, results are the same to the last bit.

    Args:
        num_classes: Labels and predictions are in [0, num_classes).
        ignore_index: Pixels with this label do not count, whatever was predicted. Predicted, it
            stands for none of the classes: a miss of the labelled one.
        variant: Which classes ``mIoU`` and ``mDice`` average over. ``mmseg``: all that are labelled
            or predicted somewhere, so that one predicted but never labelled counts as 0 (VPD).
            ``d2``: those with a labelled pixel (Mask2Former, ODISE).
        names: Of the classes, for ``compute(per_class=True)``.

    Raises:
        ValueError: No class, an unknown variant, or not one name for each class.

    Example:
        >>> metrics = vpd.metrics.SemanticMetrics(3)
        >>> metrics.update(torch.tensor([[0, 1, 1, 1]]), torch.tensor([[0, 1, 2, 255]]))
        >>> round(metrics.compute()["mIoU"], 1)
        50.0
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = 255,
        variant: Literal["mmseg", "d2"] = "mmseg",
        names: Sequence[str] | None = None,
    ) -> None:
        if variant not in _VARIANTS:
            raise ValueError(f"SemanticMetrics: variant must be 'mmseg' or 'd2', got {variant!r}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.variant = variant
        self.names = one_each("SemanticMetrics", names, num_classes)
        self._core = core.SemanticMetrics(num_classes, ignore_index)

    def update(self, prediction: Tensor | np.ndarray, target: Tensor | np.ndarray) -> None:
        """Adds one image, or n of a size.

        Args:
            prediction: Integers, [H, W] or [n, H, W].
            target: Integers, same shape.

        Raises:
            ValueError: Shapes or dtypes that do not fit, or a class out of range; nothing is added
                then.
        """
        self._core.update(torch.as_tensor(prediction), torch.as_tensor(target))

    def merge(self, other: SemanticMetrics) -> None:
        """Adds what another accumulator counted.

        Raises:
            ValueError: It was made with other choices.
        """
        if other.protocol() != self.protocol():
            raise ValueError(
                "SemanticMetrics.merge: both need the same protocol, got "
                f"{self.protocol()} and {other.protocol()}"
            )
        self._core.merge(other._core)

    def compute(self, *, per_class: bool = False) -> dict[str, float]:
        """``mIoU``, ``mAcc``, ``aAcc`` (share of the labelled pixels that are right), ``mDice`` and
        ``fwIoU`` (IoU weighted by labelled pixels) in percent, and ``n``, the number of images. All
        are 0 for an empty set.

        Args:
            per_class: Also ``IoU/<name>`` (its index, without names) of every class that is
                labelled or predicted somewhere.
        """
        scores = self._core.compute(self.variant == "d2")
        result: dict[str, float] = {
            "mIoU": scores.mean_iou,
            "mAcc": scores.mean_accuracy,
            "aAcc": scores.pixel_accuracy,
            "mDice": scores.mean_dice,
            "fwIoU": scores.weighted_iou,
            "n": self._core.n,
        }
        if per_class:
            for index, iou in enumerate(scores.ious):
                if not math.isnan(iou):
                    result[f"IoU/{self.names[index] if self.names else index}"] = iou
        return result

    def confusion(self) -> Tensor:
        """Pixels by label (rows) and prediction (columns), int64 [K, K + 1]; the last column is of
        pixels for which no class was predicted."""
        return self._core.confusion.clone()

    def protocol(self) -> dict[str, Any]:
        """What the results must be labelled with."""
        return {
            "variant": self.variant,
            "num_classes": self.num_classes,
            "ignore_index": self.ignore_index,
        }
