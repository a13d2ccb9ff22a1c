"""Training losses. Each takes ``(prediction, target, ...)`` and reduces as its original does;
``reduction="none"`` gives the unreduced values. They are computed in float32 at least, whatever the
prediction's dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from vpd._load import core

__all__ = [
    "MaskLosses",
    "ReconstructionLoss",
    "Reduction",
    "contrastive_loss",
    "dice_loss",
    "epsilon_loss",
    "mask_losses",
    "reconstruction_loss",
    "weighted_cross_entropy",
]

Reduction = Literal["mean", "none", "sum"]


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


def epsilon_loss(
    prediction: Tensor,
    noise: Tensor,
    alpha_bar: Tensor,
    cap: float = 100.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared error of the predicted noise, weighted by ``min(1 / alpha_bar, cap)``.

    The weight turns the error of epsilon into that of the velocity (Salimans and Ho 2022), so that
    noisy timesteps, where the text decides, count. ``cap=1`` is the plain loss (Ho et al. 2020).

    Args:
        prediction: [B, ...].
        noise: Same shape: what was added.
        alpha_bar: [B] in (0, 1]: cumulative alpha of each sample's timestep, see
            :meth:`vpd.diffusion.NoiseSchedule.alpha_bar`.
        cap: Largest weight, at least 1.
        reduction: Over samples, each the mean of its own elements; ``none`` returns [B].

    Raises:
        ValueError: Shapes or dtypes that do not fit.
    """
    return core.epsilon_loss(prediction, noise, alpha_bar, cap, reduction)


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Symmetric contrastive loss of CLIP (Radford et al. 2021, figure 3).

    The mean of two cross-entropies over the batch: each image picks its text, each text its image,
    by the cosines of their embeddings.

    Args:
        image: [B, D] embeddings, of any length (they are normalised here).
        text: [B, D], row i belongs to image i.
        scale: Scalar tensor that multiplies the cosines, ``exp(logit_scale)`` of CLIP.

    Raises:
        ValueError: Shapes or dtypes that do not fit.
    """
    return core.contrastive_loss(image, text, scale)


class ReconstructionLoss(NamedTuple):
    """Terms of :func:`reconstruction_loss`, each a scalar."""

    total: Tensor
    pixels: Tensor
    edges: Tensor
    kl: Tensor


def reconstruction_loss(
    reconstruction: Tensor,
    image: Tensor,
    mean: Tensor,
    logvar: Tensor,
    kl_weight: float = 2e-4,
) -> ReconstructionLoss:
    """What the small world's autoencoder is trained with: ``pixels + edges + kl_weight * kl``.

    Args:
        reconstruction: [B, C, H, W].
        image: Same shape.
        mean: Posterior mean, [B, c, h, w].
        logvar: Posterior log variance, same shape.
        kl_weight: Weight of the KL term.

    Returns:
        ``pixels``: mean absolute error; ``edges``: mean absolute error of the differences between
        neighbours along x plus along y; ``kl``: divergence from the standard normal, averaged over
        latent elements.

    Raises:
        ValueError: Shapes that do not fit, or a side shorter than 2.
    """
    loss = core.reconstruction_loss(reconstruction, image, mean, logvar, kl_weight)
    return ReconstructionLoss(loss.total, loss.pixels, loss.edges, loss.kl)
