"""The loss of multi-label classification: which of many tags a picture has."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from vpd import ops
from vpd.losses.common import Reduction

__all__ = ["FocusGrad", "asymmetric_loss"]

FocusGrad = Literal["none", "full"]


def asymmetric_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma_neg: float = 4.0,
    gamma_pos: float = 1.0,
    clip: float = 0.05,
    eps: float = 1e-8,
    focus_grad: FocusGrad = "none",
    reduction: Reduction = "sum",
) -> Tensor:
    """Asymmetric loss (Ridnik et al. 2021, equations 4 to 7): a focal loss that lets go of easy
    negatives.

    With ``p = sigmoid(logit)`` and ``q = max(p - clip, 0)`` a logit gives ``-(1 - p)^gamma_pos
    log p`` where its target is 1 and ``-q^gamma_neg log(1 - q)`` where it is 0. Exponents 0 and
    ``clip=0`` make it binary cross-entropy. One fused kernel forward, one backward
    (:func:`vpd.ops.asymmetric_loss`); second derivatives are not supported.

    Args:
        logits: [B, K].
        target: bool, uint8 or floating [B, K] of zeros and ones.
        gamma_neg: Focusing of negatives. The authors' scripts train with 4 against ``gamma_pos``
            0; the Recognize Anything Model with 7 and 0.
        gamma_pos: Focusing of positives.
        clip: Probability below which a negative does not count at all.
        eps: Logs are taken of no less.
        focus_grad: ``full`` sends the gradient through the focusing weights too, ``none`` takes
            them as constants, as the authors train.
        reduction: ``sum`` over everything, as the authors reduce; ``mean`` over the batch of the
            sums over classes, so that a loss does not depend on the batch size (it does on K);
            ``none`` returns [B, K].

    Returns:
        In float32, or in float64 for such logits.

    Raises:
        ValueError: Shapes, types, numbers or words that do not fit, or (on the CPU) a target other
            than 0 and 1.

    Example:
        >>> tags = torch.tensor([[True, False, False]])
        >>> vpd.losses.asymmetric_loss(torch.tensor([[2.0, -1.0, -4.0]]), tags)
        tensor(0.0157)
    """
    if focus_grad not in ("none", "full"):
        raise ValueError(f"focus_grad must be 'none' or 'full', got {focus_grad!r}")
    if reduction not in ("mean", "none", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
    loss = ops.asymmetric_loss(
        logits,
        target,
        gamma_neg,
        gamma_pos,
        clip,
        eps,
        full_grad=focus_grad == "full",
        reduce=reduction != "none",
    )
    return loss / max(logits.shape[0], 1) if reduction == "mean" else loss
