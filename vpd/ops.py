"""The core's hot kernels, ``torch.ops.vpd.*``, with types and documentation.

Shapes use B images, C channels, M queries (pixels), N tokens, D columns of one head; deformable
attention Q queries, L maps with S pixels together, P points. All functions take float32, float64,
bfloat16 and float16, any strides and empty batches; they work under autocast and ``torch.compile``
and are differentiable once. Second derivatives and ``torch.func.grad`` are not supported: use
:mod:`vpd.reference`, which has the same functions in plain PyTorch. Wrong arguments raise
``ValueError`` with what was expected and what came.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vpd import _load  # noqa: F401  registers the operators

__all__ = [
    "asymmetric_loss",
    "attention",
    "cross_attention",
    "deformable_attention",
    "geglu",
    "group_norm_silu",
]


def asymmetric_loss(
    logits: Tensor,
    target: Tensor,
    gamma_neg: float = 4.0,
    gamma_pos: float = 1.0,
    clip: float = 0.05,
    eps: float = 1e-8,
    full_grad: bool = False,
    reduce: bool = True,
) -> Tensor:
    """Asymmetric loss of multi-label classification (Ridnik et al. 2021, equations 4 to 7), in one
    pass forward and one backward; nothing is kept but the arguments.

    With ``p = sigmoid(logit)`` and ``q = max(p - clip, 0)`` a logit gives ``-(1 - p)^gamma_pos
    log p`` where its target is 1 and ``-q^gamma_neg log(1 - q)`` where it is 0.
    :func:`vpd.losses.asymmetric_loss` has the reductions.

    Args:
        logits: [B, K].
        target: [B, K], zeros and ones, of bool, uint8 or a floating type; a constant.
        gamma_neg: focusing of negatives, >= 0.
        gamma_pos: focusing of positives, >= 0.
        clip: probability below which a negative no longer counts, in [0, 1).
        eps: logs are taken of no less, in (0, 1).
        full_grad: whether the gradient goes through the powers too; if not they count as constant
            weights.
        reduce: whether to sum.

    Returns:
        [] or, without ``reduce``, [B, K]; float32, or float64 for such logits.

    Raises:
        ValueError: Wrong arguments; on the CPU also a target other than 0 and 1, elsewhere all but
            0 counts as 1.

    Example:
        >>> asymmetric_loss(torch.zeros(1, 2), torch.tensor([[1, 0]], dtype=torch.uint8))
        tensor(0.3711)
    """
    return torch.ops.vpd.asymmetric_loss(
        logits, target, gamma_neg, gamma_pos, clip, eps, full_grad, reduce
    )


def group_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float = 1e-5, silu: bool = True
) -> Tensor:
    """Group normalisation, followed by SiLU, in one pass (Wu & He 2018, eq. 1-7).

    ``z = (x - mean) / sqrt(var + eps) * weight + bias`` with mean and variance over the pixels and
    channels of one group; ``y = z * sigmoid(z)``. Only ``x``, ``weight``, ``bias`` and the
    statistics are kept for backward. Statistics are exact for inputs far from zero.

    Args:
        x: [B, C, H, W]; channels_last is fastest.
        weight: [C]; may be wider than x.
        bias: [C]; may be wider than x.
        groups: number of groups, a divisor of C.
        eps: added to the variance.
        silu: whether SiLU follows.

    Returns:
        [B, C, H, W], type and memory format of x.

    Example:
        >>> y = group_norm_silu(torch.randn(1, 64, 8, 8), torch.ones(64), torch.zeros(64), 32)
        >>> y.shape
        torch.Size([1, 64, 8, 8])
    """
    return torch.ops.vpd.group_norm_silu(x, weight, bias, groups, eps, silu)


def geglu(x: Tensor) -> Tensor:
    """Gated linear unit with a GELU gate: ``a * gelu(b)`` for ``a, b = x.chunk(2, -1)``.

    GELU is the exact one, ``b * (1 + erf(b / sqrt 2)) / 2`` (Hendrycks & Gimpel 2016; the gate:
    Shazeer 2020). Only ``x`` is kept for backward.

    Args:
        x: [..., 2 D]

    Returns:
        [..., D]
    """
    return torch.ops.vpd.geglu(x)


def cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    heads: int,
    scale: float | None = None,
    per_head: bool = False,
) -> tuple[Tensor, Tensor]:
    """Attention of pixels to tokens that also returns where each token was looked at.

    ``p = softmax(scale q k^T)`` by head, ``out = p v``, ``map`` = mean of p over heads. The
    probabilities of all heads are never held at once unless ``per_head`` asks for them, forward or
    backward; both outputs are differentiable. Under autocast q, k and v are cast to its type.

    Args:
        q: [B, M, heads * D]
        k: [B, N, heads * D], N >= 1
        v: [B, N, heads * D]
        mask: bool [B, N], True = attend, or None for all. A row without a single True has no
            defined result.
        heads: number of heads.
        scale: factor of the scores; None: 1 / sqrt(D).
        per_head: whether the map keeps the heads apart.

    Returns:
        out [B, M, heads * D], and map [B, N, M] or, with ``per_head``, [B, heads, N, M]; values of
        map are in [0, 1] and sum to 1 over N.

    Example:
        >>> q, k = torch.randn(1, 16, 8), torch.randn(1, 3, 8)
        >>> out, map = cross_attention(q, k, k, None, heads=2)
        >>> map.shape
        torch.Size([1, 3, 16])
    """
    scale = _scale(q, heads) if scale is None else scale
    return torch.ops.vpd.cross_attention(q, k, v, mask, heads, scale, per_head)


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int, scale: float | None = None
) -> Tensor:
    """Attention without maps; no [M, N] matrix is held on devices with a fused kernel.

    Args:
        q: [B, M, heads * D]
        k: [B, N, heads * D], N >= 1
        v: [B, N, heads * D]
        mask: bool [B, N], True = attend, or None for all.
        heads: number of heads.
        scale: factor of the scores; None: 1 / sqrt(D).

    Returns:
        [B, M, heads * D]
    """
    scale = _scale(q, heads) if scale is None else scale
    return torch.ops.vpd.attention(q, k, v, mask, heads, scale)


def deformable_attention(
    value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    """Attention to a few points of several feature maps (Zhu et al. 2021, "Deformable DETR",
    equation 3), as between the projections of Mask2Former's pixel decoder.

    ``out[q] = sum over levels and points of weights * value(locations)``, head by head, where
    values between pixels are interpolated bilinearly and those outside a map are 0. Pixels are
    areas: the centre of the first is at 0.5 / width (``grid_sample`` with ``align_corners=False``).
    No sampled value is held in memory. On the CPU results are the same for any number of threads;
    on a GPU the order in which the gradient of ``value`` is summed varies.

    Args:
        value: [B, S, heads, D]: the pixels of all maps, row by row, one map after the other.
        shapes: int64 [L, 2]: height and width of each map, on the CPU or where ``value`` is.
        locations: [B, Q, heads, L, P, 2]: (x, y) as fractions of width and height. Those that are
            no number count as outside.
        weights: [B, Q, heads, L, P]: a softmax over L x P, as a rule; any numbers here.

    ``locations`` and ``weights`` may be of a wider type than ``value`` and should be: bfloat16
    cannot tell pixels of a map of 256 apart.

    Returns:
        [B, Q, heads * D], type of ``value``.

    Example:
        >>> shapes = torch.tensor([[2, 3], [4, 6]])
        >>> value = torch.randn(1, 30, 8, 4)
        >>> at, weights = torch.rand(1, 5, 8, 2, 4, 2), torch.full((1, 5, 8, 2, 4), 1 / 8)
        >>> deformable_attention(value, shapes, at, weights).shape
        torch.Size([1, 5, 32])
    """
    return torch.ops.vpd.deformable_attention(value, shapes, locations, weights)


def _scale(q: Tensor, heads: int) -> float:
    """1 / sqrt(D); wrong shapes are left to the operator, whose message is better."""
    width = q.shape[-1] // heads if q.dim() == 3 and heads > 0 else 0
    return width**-0.5 if width > 0 else 1.0
