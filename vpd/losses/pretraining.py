"""Losses of what comes before any task: denoiser, text and image towers, autoencoder."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vpd._load import core
from vpd.losses.common import Reduction

__all__ = ["ReconstructionLoss", "contrastive_loss", "epsilon_loss", "reconstruction_loss"]


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
