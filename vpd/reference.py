"""The functions of :mod:`vpd.ops` in plain, slow PyTorch.

Same names, arguments and results, on every device, differentiable to any order (once for
``deformable_attention``, as ``grid_sample`` is) and usable under ``torch.func``. They hold every
intermediate result, attention probabilities of all heads included.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

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
    """See :func:`vpd.ops.asymmetric_loss`."""
    positive = target != 0
    p = torch.sigmoid(logits)
    right = torch.where(positive, p, (1 - p + clip).clamp(max=1))  # probability of the target
    wrong = 1 - right if full_grad else (1 - right).detach()
    weight = torch.where(positive, wrong**gamma_pos, wrong**gamma_neg)
    values = -weight * right.clamp(min=eps).log()
    return values.sum() if reduce else values


def group_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float = 1e-5, silu: bool = True
) -> Tensor:
    """See :func:`vpd.ops.group_norm_silu`."""
    batch, channels = x.shape[:2]
    grouped = x.reshape(batch, groups, channels // groups, x.shape[2] * x.shape[3])
    mean = grouped.mean(dim=(2, 3), keepdim=True)
    variance = (grouped - mean).square().mean(dim=(2, 3), keepdim=True)
    xhat = ((grouped - mean) / (variance + eps).sqrt()).reshape(x.shape)
    z = xhat * weight.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)
    return z * torch.sigmoid(z) if silu else z


def geglu(x: Tensor) -> Tensor:
    """See :func:`vpd.ops.geglu`."""
    value, gate = x.chunk(2, dim=-1)
    return value * gate * 0.5 * (1 + torch.erf(gate / 2**0.5))


def _heads(t: Tensor, heads: int) -> Tensor:
    """[B, L, heads * D] -> [B, heads, L, D]"""
    return t.reshape(*t.shape[:2], heads, t.shape[2] // heads).transpose(1, 2)


def cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    heads: int,
    scale: float | None = None,
    per_head: bool = False,
) -> tuple[Tensor, Tensor]:
    """See :func:`vpd.ops.cross_attention`."""
    scale = (q.shape[2] // heads) ** -0.5 if scale is None else scale
    scores = _heads(q, heads) @ _heads(k, heads).transpose(2, 3) * scale  # [B, heads, M, N]
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
    probabilities = scores.softmax(dim=-1)
    out = (probabilities @ _heads(v, heads)).transpose(1, 2).flatten(2)
    maps = probabilities.transpose(2, 3)  # [B, heads, N, M]
    return out, maps if per_head else maps.mean(dim=1)


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int, scale: float | None = None
) -> Tensor:
    """See :func:`vpd.ops.attention`."""
    return cross_attention(q, k, v, mask, heads, scale)[0]


def deformable_attention(
    value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    """See :func:`vpd.ops.deformable_attention`."""
    batch, _, heads, width = value.shape
    sizes = [(int(height), int(width)) for height, width in shapes.tolist()]
    maps = value.permute(0, 2, 3, 1).flatten(0, 1)  # [B * heads, D, S]
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # [B * heads, Q, L, P, 2]
    shares = weights.transpose(1, 2).flatten(0, 1)[:, None]  # [B * heads, 1, Q, L, P]
    queries = locations.shape[1]
    out = value.new_zeros(batch * heads, width, queries)
    first = 0
    for level, (h, w) in enumerate(sizes):
        plane = maps[:, :, first : first + h * w].reshape(batch * heads, width, h, w)
        sampled = F.grid_sample(
            plane, grids[:, :, level], padding_mode="zeros", align_corners=False
        )  # [B * heads, D, Q, P]
        out = out + (sampled * shares[:, :, :, level]).sum(dim=-1)
        first += h * w
    return out.reshape(batch, heads * width, queries).transpose(1, 2)
