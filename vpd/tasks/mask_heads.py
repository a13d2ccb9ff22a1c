"""What segmenters under Mask2Former's head share: its shape, and the picture that they see as a
whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from vpd.data.augment import check_shares
from vpd.images import read_image, scaled

__all__ = ["LEVELS", "Asked", "asked", "head_fields", "padded_size", "whole_picture"]

LEVELS = 3  # coarsest maps that deformable attention runs over, and that queries read


def head_fields(config: Any, in_channels: Sequence[int]) -> dict[str, Any]:
    """Fields of :class:`vpd.Mask2FormerConfig`, its classes apart.

    Args:
        config: ``channels``, ``num_queries``, ``heads``, ``encoder_layers``, ``decoder_layers``,
            ``norm_groups``.
        in_channels: Of the feature maps, fine to coarse.
    """
    width = config.channels
    return {
        "in_channels": tuple(in_channels),
        "conv_dim": width,
        "mask_dim": width,
        "hidden_dim": width,
        "num_queries": config.num_queries,
        "nheads": config.heads,
        "dim_feedforward": 8 * width,
        "dec_layers": config.decoder_layers,
        "transformer_nheads": config.heads,
        "transformer_dim_feedforward": 4 * width,
        "transformer_enc_layers": config.encoder_layers,
        "transformer_levels": LEVELS,
        "num_feature_levels": LEVELS,
        "norm_groups": config.norm_groups,
    }


class Asked(NamedTuple):
    """Options of a call, checked."""

    min_score: float
    min_overlap: float
    top: int


def asked(config: Any, min_score: float | None, min_overlap: float | None, top: int) -> Asked:
    """What a call asks for, the config's where it says nothing.

    Raises:
        ValueError: A share out of range, or no object at all.
    """
    score = config.min_score if min_score is None else min_score
    overlap = config.min_overlap if min_overlap is None else min_overlap
    check_shares(min_score=score, min_overlap=overlap)
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    return Asked(score, overlap, top)


def whole_picture(image: Any, side: int, max_size: int) -> tuple[np.ndarray, Tensor]:
    """A picture as it came, uint8 [H, W, 3], and as networks see it, float32 [1, 3, h, w] in
    [-1, 1]: its shorter side ``side``, or less where the longer one would exceed ``max_size``."""
    picture = read_image(image)
    short, long = sorted(picture.shape[:2])
    return picture, scaled(picture, min(side / short, max_size / long))


def padded_size(size: Sequence[int], multiple: int) -> tuple[int, int]:
    """Height and width of a picture that is padded to multiples of ``multiple``."""
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width
