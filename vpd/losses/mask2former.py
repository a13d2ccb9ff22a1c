"""Sets of masks against sets of objects: the matching and the criterion of Mask2Former."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vpd._load import core

__all__ = ["Mask2FormerLoss", "PointDraws", "mask2former_cost", "mask2former_loss", "match"]


def match(cost: Tensor) -> tuple[Tensor, Tensor]:
    """The cheapest assignment of rows to columns, each taken at most once (Jonker & Volgenant 1987;
    ``scipy.optimize.linear_sum_assignment``).

    Args:
        cost: [N, M], any real type; computed in float64 on the CPU.

    Returns:
        Rows in ascending order and their columns, int64 [min(N, M)] on the CPU.

    Raises:
        ValueError: A cost that is not finite.

    Example:
        >>> rows, columns = match(torch.tensor([[4.0, 1.0, 3.0], [2.0, 1.0, 5.0]]))
        >>> columns
        tensor([1, 0])
    """
    return core.match(cost)


def mask2former_cost(
    logits: Tensor,
    masks: Tensor,
    target_labels: Tensor,
    target_masks: Tensor,
    points: Tensor,
    weights: tuple[float, float, float] = (2.0, 5.0, 5.0),
) -> Tensor:
    """What giving each target to each query of one image costs in Mask2Former's matching.

    ``- weights[0] * softmax(logits)[label] + weights[1] * cross_entropy + weights[2] * dice``; the
    latter two compare sigmoids of masks with the targets at ``points`` (see
    :func:`mask2former_loss`).

    Args:
        logits: [Q, K + 1], "no object" last.
        masks: Logits, [Q, h, w].
        target_labels: int64 [M], in [0, K).
        target_masks: bool, uint8 (0 or 1) or floating point [M, H, W].
        points: [P, 2], (x, y) as fractions of width and height.
        weights: Of label, cross-entropy and Dice.

    Returns:
        [Q, M], without gradient.

    Raises:
        ValueError: Shapes, dtypes or devices that do not fit, or (on the CPU) a label out of range.
    """
    return core.mask2former_cost(logits, masks, target_labels, target_masks, points, weights)


class PointDraws(NamedTuple):
    """Random places of :func:`mask2former_loss` for one output of a head, uniform in [0, 1).

    N is the number of matched masks of the batch: for each image its targets, at most Q.
    """

    matching: Tensor
    """[B, points, 2]: where the matching compares masks, one set for each image."""
    candidates: Tensor
    """[N, int(oversample * points), 2], of which the most uncertain are taken."""
    rest: Tensor
    """[N, points - int(uncertain * points), 2], taken as they are."""


class Mask2FormerLoss(NamedTuple):
    """Terms of :func:`mask2former_loss`."""

    total: Tensor
    """[]: weighted sum of the terms of all outputs."""
    cross_entropy: Tensor
    """[outputs], of labels, without weights as the next two."""
    mask: Tensor
    dice: Tensor
    matches: list[list[tuple[Tensor, Tensor]]]
    """By output and image: queries and the targets given to them, int64 on the CPU."""


def mask2former_loss(
    logits: Sequence[Tensor],
    masks: Sequence[Tensor],
    target_labels: Sequence[Tensor],
    target_masks: Sequence[Tensor],
    *,
    weights: tuple[float, float, float] = (2.0, 5.0, 5.0),
    no_object: float = 0.1,
    points: int = 12544,
    oversample: float = 3.0,
    uncertain: float = 0.75,
    num_masks: float | None = None,
    generator: torch.Generator | None = None,
    draws: Sequence[PointDraws] = (),
) -> Mask2FormerLoss:
    """The criterion of Mask2Former (Cheng et al. 2022), for all outputs of its head at once.

    Each output is matched to the targets of each image by itself, by :func:`mask2former_cost`. Then

    * ``cross_entropy``: of the labels; queries without a target should say "no object", which
      counts ``no_object``; divided by the sum of these weights;
    * ``mask``: sigmoid cross-entropy of matched masks, mean over points;
    * ``dice``: ``1 - (2 sum(p y) + 1) / (sum(p) + sum(y) + 1)`` over points; both summed over masks
      and divided by ``num_masks``.

    Masks are compared at ``points`` places, bilinearly: of ``oversample * points`` random ones the
    ``uncertain * points`` whose logits are nearest to 0, and random ones (Kirillov et al. 2020).
    Targets beyond the number of queries are left out.

    Args:
        logits: For each output of the head [B, Q, K + 1], "no object" last.
        masks: Logits, for each output [B, Q, h, w].
        target_labels: For each image int64 [M], in [0, K); M may be 0.
        target_masks: For each image bool, uint8 (0 or 1) or floating point [M, H, W]; one size in a
            batch, padded as the images are.
        weights: Of label, mask and Dice, in ``total`` and in the matching.
        no_object: Weight of that class.
        points: Places per mask.
        oversample: Candidates per place, at least 1.
        uncertain: Share of the places that is chosen among the candidates.
        num_masks: By default the batch's targets, at least 1. Several processes pass the mean of
            theirs, at least 1; parts of a batch the number of the whole.
        generator: Of the random places, on the device of the logits.
        draws: The random places themselves, for each output.

    Returns:
        Float32 terms, or float64 for such logits.

    Raises:
        ValueError: Shapes, dtypes or devices that do not fit, (on the CPU) a label out of range, or
            a cost that is not finite, as logits that are no numbers give.
    """
    kind = logits[0].device.type if logits else "cpu"
    with torch.autocast(kind, enabled=False):  # products in it would lose the matching's precision
        found = core.mask2former_loss(
            list(logits),
            list(masks),
            list(target_labels),
            list(target_masks),
            weights,
            no_object,
            points,
            oversample,
            uncertain,
            num_masks,
            generator,
            [tuple(own) for own in draws],
        )
    return Mask2FormerLoss(*found)
