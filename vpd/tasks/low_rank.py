"""Weights kept as those of a foundation and a product of two thin matrices: what a fine-tuning
changed is close to low rank (Aghajanyan et al. 2021; Hu et al. 2022), of convolutions too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

__all__ = ["expand", "shrink"]

State = Mapping[str, Tensor]
SVD = tuple[Tensor, Tensor, Tensor]
_ENTRY = 100  # bytes of a safetensors header for one tensor, its name aside, or fewer
_PARTS = (":A", ":B", ":scale")
_TINY = 1e-12
_ROUNDING = 1e-6  # singular values below this part of the first are float32's errors


def shrink(state: State, base: State, size: int) -> tuple[dict[str, Tensor], float]:
    """Brings a state within a file of ``size`` bytes: the changes of matrices and kernels that the
    foundation has too are cut down to their first singular directions, in 8 bits.

    A direction is worth its singular value squared, by the norm of the whole weight and the numbers
    it takes; the best are kept. A weight whose directions would take what it takes itself stays
    whole.

    Args:
        state: What a model's file holds: all that differs from the foundation.
        base: The foundation's.

    Returns:
        What :func:`expand` reads: ``NAME:B`` [out, rank] and ``NAME:A`` [rank, in * ...] of int8
        and ``NAME:scale`` [rank], in place of NAME; the state itself where it fits. And the part of
        the changes that was cut off, in squares, rounding aside.

    Raises:
        ValueError: What must stay whole is larger.
    """
    thin = {name for name, value in state.items() if _is_change(value, base.get(name))}
    header = 8 + sum(3 * (_ENTRY + len(name)) for name in state)
    fixed = header + sum(v.nbytes for name, v in state.items() if name not in thin)
    if fixed + sum(state[name].nbytes for name in thin) <= size:
        return dict(state), 0.0
    if size < fixed:
        raise ValueError(f"expected at least {fixed} bytes, got {size}: so much cannot be reduced")
    changes = {name: _svd(value, base[name]) for name, value in state.items() if name in thin}
    ranks = _ranks(state, changes, size - fixed)
    kept: dict[str, Tensor] = {}
    lost = total = 0.0
    for name, value in state.items():
        if name not in thin:
            kept[name] = value
            continue
        rank, (u, s, v) = ranks[name], changes[name]
        total += float(s.square().sum())
        if rank * _cost(u, v) >= value.nbytes:
            kept[name] = value
            continue
        lost += float(s[rank:].square().sum())
        if rank:
            kept[f"{name}:B"], left = _rounded(u[:, :rank], 0)
            kept[f"{name}:A"], right = _rounded(v[:rank], 1)
            kept[f"{name}:scale"] = s[:rank] * left * right
    return kept, lost / total if total else 0.0


def _rounded(vectors: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """int8, and the scale of each singular vector."""
    scale = vectors.abs().amax(dim, keepdim=True) / 127
    return (vectors / scale).round().to(torch.int8), scale.flatten()


def _cost(u: Tensor, v: Tensor) -> int:
    """Bytes of one direction."""
    return len(u) + v.shape[1] + 4


def _is_change(value: Tensor, base: Tensor | None) -> bool:
    """Of a matrix or a kernel of the foundation."""
    matrix = value.is_floating_point() and value.dim() >= 2
    return matrix and base is not None and base.shape == value.shape


def _svd(value: Tensor, base: Tensor) -> SVD:
    change = (value.float() - base.float()).flatten(1)
    return cast(SVD, torch.linalg.svd(change, full_matrices=False))


def _ranks(state: State, changes: Mapping[str, SVD], size: int) -> dict[str, int]:
    worth = []
    for name, (u, s, v) in changes.items():
        cost = _cost(u, v)
        gains = s.square() / (cost * state[name].float().norm().clamp_min(_TINY))
        real = s > _ROUNDING * s[0]
        worth += [(gain, name, cost) for gain in gains[real].tolist()]
    ranks = dict.fromkeys(changes, 0)
    for _, name, cost in sorted(worth, reverse=True):
        before = min(ranks[name] * cost, state[name].nbytes)
        more = min(before + cost, state[name].nbytes) - before
        if more > size:
            break
        size -= more
        ranks[name] += 1
    return ranks


def expand(state: State, base: State) -> dict[str, Tensor]:
    """The weights that :func:`shrink` cut down, of the foundation's dtype, and all others as they
    are.

    Raises:
        ValueError: A part is missing, or does not fit the foundation's weight.
    """
    result = {name: value for name, value in state.items() if not name.endswith(_PARTS)}
    for name in sorted({name.rpartition(":")[0] for name in state.keys() - result.keys()}):
        found = [state.get(name + part) for part in _PARTS]
        weight = base.get(name)
        if weight is None or weight.dim() < 2 or any(tensor is None for tensor in found):
            raise ValueError(
                f"{name}: expected :A, :B, :scale and a matrix or kernel of the foundation; one is "
                "missing"
            )
        a, b, scale = cast(list[Tensor], found)
        rank, rows, columns = scale.numel(), len(weight), weight[0].numel()
        shapes = [list(tensor.shape) for tensor in (a, b, scale)]
        if shapes != [[rank, columns], [rows, rank], [rank]]:
            raise ValueError(
                f"{name}: expected :A [rank, {columns}], :B [{rows}, rank] and :scale [rank], got "
                f"{shapes[0]}, {shapes[1]} and {shapes[2]}"
            )
        change = (b.float() * scale.float()) @ a.float()
        result[name] = (weight.float() + change.reshape(weight.shape)).to(weight.dtype)
    return result
