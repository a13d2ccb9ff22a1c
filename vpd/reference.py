"""The functions of :mod:`vpd.ops` in plain, slow PyTorch.

Same names, arguments and results, on every device, differentiable to any order and usable under
``torch.func``. They hold every intermediate result, attention probabilities of all heads included.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attention", "cross_attention", "geglu", "group_norm_silu"]


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
