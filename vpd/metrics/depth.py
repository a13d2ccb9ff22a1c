"""Metrics of monocular depth."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vpd._load import core

__all__ = ["DepthCrop", "DepthMetrics"]

DepthCrop = Literal["nyu_eigen", "kitti_kb", "kitti_garg", "kitti_eigen", "none"]


class DepthMetrics:
    """Monocular depth (Eigen et al. 2014, section 4.3): scores of each image over its valid pixels,
    then their mean over images. Fractions and metres, no percentages.

    A pixel is valid if its true depth lies strictly between ``min_depth`` and ``max_depth`` and it
    is inside of the crop. With d = ln(prediction) - ln(target) over them, ``delta1`` ... ``delta3``
    are the shares with max(prediction / target, target / prediction) < 1.25, 1.25^2, 1.25^3;
    ``abs_rel`` and ``sq_rel`` the means of |error| / target and error^2 / target; ``rmse`` and
    ``rmse_log`` the roots of the means of error^2 and d^2; ``log10`` the mean of |d| / ln 10;
    ``silog`` the root of mean(d^2) - mean(d)^2 / 2.

    Predictions are not cut to the range of depths; infinite ones become ``max_depth``, and those
    that are NaN or not positive ``min_depth``. Sums are float64: merged in another order, results
    agree to rounding (1e-15 of their size).

    Args:
        min_depth: In metres, above 0.
        max_depth: In metres; 10 for NYUv2, 80 for KITTI.
        crop: ``nyu_eigen`` is rows 45-470, columns 41-600 of 480 x 640; ``kitti_kb`` the 352 rows
            at the bottom of the 1216 columns in the middle; ``kitti_garg`` and ``kitti_eigen`` are
            shares of height and width, of maps that are cut by ``kitti_kb`` already where one wants
            both.

    Raises:
        ValueError: A range that is none, or an unknown crop.

    Example:
        >>> metrics = vpd.metrics.DepthMetrics(crop="none")
        >>> metrics.update(torch.full((1, 4, 4), 2.2), torch.full((1, 4, 4), 2.0))
        >>> round(metrics.compute()["abs_rel"], 3)
        0.1
    """

    def __init__(
        self, min_depth: float = 1e-3, max_depth: float = 10.0, crop: DepthCrop = "nyu_eigen"
    ) -> None:
        self.min_depth = min_depth
        self.max_depth = max_depth
        self.crop = crop
        self._core = core.DepthMetrics(min_depth, max_depth, crop)

    def update(self, prediction: Tensor | np.ndarray, target: Tensor | np.ndarray) -> None:
        """Adds n images.

        Args:
            prediction: Metres, floating point [n, H, W].
            target: Same shape; 0 or NaN where nothing is known.

        Raises:
            ValueError: Shapes or dtypes that do not fit, or a size that the crop is not for.
        """
        self._core.update(torch.as_tensor(prediction), torch.as_tensor(target))

    def merge(self, other: DepthMetrics) -> None:
        """Adds what another accumulator counted.

        Raises:
            ValueError: It was made with other choices.
        """
        if other.protocol() != self.protocol():
            raise ValueError(
                "DepthMetrics.merge: both need the same protocol, got "
                f"{self.protocol()} and {other.protocol()}"
            )
        self._core.merge(other._core)

    def compute(self) -> dict[str, float]:
        """``delta1``, ``delta2``, ``delta3``, ``abs_rel``, ``sq_rel``, ``rmse``, ``rmse_log``,
        ``log10``, ``silog``; ``n``, the number of images they are of; ``skipped``, that of images
        without a valid pixel. All are 0 for an empty set."""
        result: dict[str, float] = {
            name: self._core.mean(index) for index, name in enumerate(self._core.names())
        }
        result["n"] = self._core.n
        result["skipped"] = self._core.skipped
        return result

    def protocol(self) -> dict[str, Any]:
        """What the results must be labelled with."""
        return {"crop": self.crop, "min_depth": self.min_depth, "max_depth": self.max_depth}
