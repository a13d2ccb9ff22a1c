"""The loss of semantic segmentation: cross-entropy of label maps with pixels that do not count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from vpd._load import core
from vpd.losses.common import Reduction

__all__ = ["SegmentationSums", "segmentation_cross_entropy", "segmentation_sums"]


def segmentation_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    average: Literal["all", "valid"] = "all",
    weight: Sequence[float] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of every pixel of a label map that is not ignored.

    Logits of another size are interpolated to that of the labels on the way (bilinear, corners not
    aligned), as mmsegmentation's heads do. The interpolated ones exist for one image at a time, on
    the CPU for one row of pixels, in the forward and in the backward, which recomputes them: 150
    classes at 512 x 512 are 157 MB an image. Second derivatives are not supported.

    Args:
        logits: [B, K, h, w].
        target: int64 or uint8 [B, H, W], classes in [0, K) or ``ignore_index``.
        ignore_index: Label of the pixels that do not count.
        average: What ``mean`` divides by: the number of ``all`` pixels, ignored ones included
            (mmsegmentation before 1.0, hence VPD's training), or that of the ``valid`` ones. Class
            weights do not enter it, as in mmsegmentation and unlike PyTorch.
        weight: K factors, one for each class.
        reduction: ``none`` returns [B, H, W], 0 where ignored. Without a valid pixel the loss is 0,
            and so is its gradient.

    Raises:
        ValueError: Shapes, dtypes or devices that do not fit, or (on the CPU) a class out of range.
    """
    weights = None if weight is None else list(weight)
    return core.segmentation_cross_entropy(
        logits, target, ignore_index, average, weights, reduction
    )


class SegmentationSums(NamedTuple):
    """Sums of :func:`segmentation_sums`, each a scalar."""

    cross_entropy: Tensor
    correct: Tensor
    """int64: pixels whose label is the class with the highest logit, the first of equals."""
    valid: Tensor
    """int64: pixels that are not ignored."""

    @property
    def accuracy(self) -> Tensor:
        """Share of the valid pixels that are correct, in percent (mmsegmentation's ``acc_seg``)."""
        return 100.0 * self.correct / self.valid.clamp(min=1)


def segmentation_sums(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    weight: Sequence[float] | None = None,
) -> SegmentationSums:
    """:func:`segmentation_cross_entropy` summed, and how many pixels are right, in one pass.

    For batches that are taken in parts, by several processes or one after the other: the loss of
    the whole is the sum of the parts' cross-entropies over the sum of their pixels.

    Raises:
        ValueError: Shapes, dtypes or devices that do not fit, or (on the CPU) a class out of range.
    """
    weights = None if weight is None else list(weight)
    return SegmentationSums(*core.segmentation_sums(logits, target, ignore_index, weights))
