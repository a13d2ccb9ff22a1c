"""Metrics of referring segmentation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vpd._load import core

__all__ = ["PickScore", "ReferMetrics"]


class ReferMetrics:
    """Referring segmentation (LAVT's and VPD's definitions); one sample is one (object, sentence)
    pair.

    IoU of a sample is I / U, and 0 where both masks are empty. ``oIoU`` is the sum of I over the
    sum of U of the whole set, ``mIoU`` the mean over samples, ``P@X`` the share of samples with IoU
    >= X. All are 0 for an empty set: look at ``n``.

    Example:
        >>> metrics = vpd.metrics.ReferMetrics()
        >>> masks = torch.ones(1, 4, 4, dtype=torch.bool)
        >>> metrics.update(masks, masks)
        >>> metrics.compute()["oIoU"]
        100.0
    """

    def __init__(self) -> None:
        self._core = core.ReferMetrics()

    def update(self, prediction: Tensor | np.ndarray, target: Tensor | np.ndarray) -> None:
        """Adds n samples.

        Args:
            prediction: Masks, bool or uint8 (0 = outside), [n, H, W].
            target: Same shape.

        Raises:
            ValueError: Shapes or dtypes that do not fit.
        """
        self._core.update(torch.as_tensor(prediction), torch.as_tensor(target))

    def merge(self, other: ReferMetrics) -> None:
        """Adds what another accumulator counted."""
        self._core.merge(other._core)

    def compute(self) -> dict[str, float]:
        """``oIoU``, ``mIoU``, ``P@0.5`` ... ``P@0.9`` in percent, and ``n``."""
        result: dict[str, float] = {
            "oIoU": self._core.overall_iou(),
            "mIoU": self._core.mean_iou(),
        }
        for index, threshold in enumerate(self._core.thresholds()):
            result[f"P@{threshold}"] = self._core.precision(index)
        result["n"] = self._core.n
        return result


class PickScore:
    """How often the object with the highest mean logit is the one referred to.

    Measures grounding apart from the quality of the mask, and moves before oIoU does. Chance is one
    over the number of visible objects.

    Args:
        min_pixels: Objects with fewer visible pixels are no candidates; a target among them counts
            as missed.
    """

    def __init__(self, min_pixels: int = 15) -> None:
        self.min_pixels = min_pixels
        self._core = core.PickScore()

    def update(
        self, logits: Tensor | np.ndarray, instances: Tensor | np.ndarray, target: int
    ) -> None:
        """Adds one sample.

        Args:
            logits: Object minus background, [H, W].
            instances: uint8 [H, W], each pixel's object id, 0 = none.
            target: Id of the object referred to, 1-255; it must be visible.

        Raises:
            ValueError: Shapes, dtypes or ids that do not fit, or NaN logits.
        """
        self._core.update(
            torch.as_tensor(logits), torch.as_tensor(instances), target, self.min_pixels
        )

    def merge(self, other: PickScore) -> None:
        """Adds what another accumulator counted."""
        if other.min_pixels != self.min_pixels:
            raise ValueError(
                f"PickScore.merge: both need the same min_pixels, got {self.min_pixels} and "
                f"{other.min_pixels}"
            )
        self._core.merge(other._core)

    def compute(self) -> dict[str, float]:
        """``pick`` in percent (0 for an empty set), and ``n``."""
        return {"pick": self._core.pick(), "n": self._core.n}
