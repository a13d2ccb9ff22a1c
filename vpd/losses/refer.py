"""Losses of referring segmentation: two classes, one label per pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from vpd._load import core
from vpd.losses.common import Reduction

__all__ = ["MaskLosses", "dice_loss", "mask_losses", "weighted_cross_entropy"]


def weighted_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Sequence[float] = (0.9, 1.1),
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of every pixel, times the weight of its class (LAVT and VPD: 0.9 background,
    1.1 object).

    Args:
        logits: [B, K, H, W].
        target: int64 [B, H, W], classes in [0, K).
        weight: K factors.
        reduction: ``mean`` divides by the sum of the weights of the target pixels (PyTorch's rule),
            ``none`` returns [B, H, W].

    Raises:
        ValueError: Shapes or dtypes that do not fit, or (on the CPU) a class out of range.
    """
    return core.weighted_cross_entropy(logits, target, list(weight), reduction)


def dice_loss(logits: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Soft Dice loss of the object class (Milletari et al. 2016), smoothed by 1.

    ``1 - (2 sum(p y) + 1) / (sum(p) + sum(y) + 1)`` per sample, with ``p = softmax(logits)[1]``.

    Args:
        logits: [B, 2, H, W].
        target: int64 [B, H, W], 0 or 1.
        reduction: ``none`` returns [B].

    Raises:
        ValueError: Shapes or dtypes that do not fit, or (on the CPU) a class out of range.
    """
    return core.dice_loss(logits, target, reduction)


class MaskLosses(NamedTuple):
    """Terms of :func:`mask_losses`, each a scalar."""

    cross_entropy: Tensor
    dice: Tensor


def mask_losses(scores: Tensor, target: Tensor, weight: Sequence[float] = (0.9, 1.1)) -> MaskLosses:
    """:func:`weighted_cross_entropy` and :func:`dice_loss` of a mask in one pass, as sums over
    pixels and over samples.

    Scores are interpolated to the target's size (bilinear, corners aligned) on the way, as VPD's
    head does; only their difference is, since both losses depend on nothing else.

    Args:
        scores: [B, 2, h, w], background and object.
        target: int64 [B, H, W], 0 or 1.
        weight: Of background and object in the cross-entropy.

    Raises:
        ValueError: Shapes or dtypes that do not fit, or (on the CPU) a class out of range.
    """
    return MaskLosses(*core.mask_losses(scores, target, list(weight)))
