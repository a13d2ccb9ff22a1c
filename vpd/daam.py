"""Attribution maps of diffusion: which pixels each word had a part in (DAAM; Tang et al. 2022,
"What the DAAM", section 3).

The cross-attention of every layer and head is resized to one grid, cut off below zero and averaged
there. ``vpd.Taps(fusion="daam")`` does so within the U-Net, layer by layer, without keeping the
heads of all layers; :func:`heat_maps` does it for maps at hand. All functions run in the core and
are differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vpd._load import core
from vpd.tokens import Tokens

__all__ = ["expand", "heat_maps", "normalize", "prompt_tokens", "word_map"]


def heat_maps(layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Fuses the maps of several layers into one per token.

    Every head's map is resized (bicubic, corners not aligned), cut off below zero, and all of them
    are averaged. The original adds up the maps of several timesteps before and never divides by
    their number: give sums for its values, means for values that do not depend on the number.

    Args:
        layers: [B, heads, N, h, w] of each layer, ``Taps(per_head=True)``; sizes and numbers of
            heads may differ. DAAM leaves out those of the coarsest grid.
        size: Height and width of the result: the finest grid, 64 x 64 for Stable Diffusion at
            512 px.

    Returns:
        [B, N, *size]

    Raises:
        ValueError: No layer, or shapes that do not fit together.
    """
    return core.daam(list(layers), tuple(size))


def normalize(maps: Tensor, tokens: Tensor) -> Tensor:
    """Maps as shares of some tokens: ``maps / (sum over those tokens + 1e-6)`` at every pixel.

    Args:
        maps: [B, N, h, w]
        tokens: bool [B, N], True = counts; DAAM's are :func:`prompt_tokens`.

    Returns:
        [B, N, h, w]
    """
    return core.daam_normalized(maps, tokens.to(maps.device))


def prompt_tokens(tokens: Tokens) -> Tensor:
    """The tokens of the text itself, bool [B, N]: without start, end and padding."""
    columns = torch.arange(tokens.mask.shape[1], device=tokens.mask.device)
    return (columns > 0) & (columns < tokens.mask.sum(1, keepdim=True) - 1)


def word_map(maps: Tensor, columns: Sequence[int]) -> Tensor:
    """The map of a word, [B, h, w]: the mean over its tokens' maps in [B, N, h, w].

    Args:
        maps: [B, N, h, w]
        columns: Where the word stands (:func:`vpd.tokens.token_words`): all tokens of all its
            occurrences for DAAM's result.

    Raises:
        ValueError: No column, or one that is not there.
    """
    if not columns or not all(0 <= column < maps.shape[1] for column in columns):
        raise ValueError(
            f"word_map: expected columns in 0..{maps.shape[1] - 1}, got {list(columns)}"
        )
    return maps[:, list(columns)].mean(1)


def expand(
    maps: Tensor, size: tuple[int, int], *, absolute: bool = False, threshold: float | None = None
) -> Tensor:
    """Maps at the size of an image (bicubic).

    Args:
        maps: [B, N, h, w]
        size: Height and width of the image.
        absolute: Keep the values; otherwise each map goes from 0 to 1, its least and greatest.
        threshold: If given, the result is 1 above it and 0 elsewhere; DAAM uses 0.4.

    Returns:
        [B, N, *size]; bicubic values may leave the range of the maps' own where ``absolute``.
    """
    large = core.daam_expanded(maps, tuple(size), absolute)
    return large if threshold is None else (large > threshold).to(large.dtype)
