"""Segments as a training holds and draws them: one small map of numbers for each picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpd.data.jitter import PanopticAugmentation
from vpd.data.segments import PanopticLabel, Segment, segment_rows
from vpd.images import Size
from vpd.train.dense.stream import Augment, Row, pixels_of
from vpd.train.dense.table import squash

__all__ = ["augmented_segments", "counts_of", "objects_of", "segment_numbers"]


def segment_numbers(label: PanopticLabel, size: Size) -> Tensor:
    """Where each segment is, squashed to a size.

    Returns:
        [*size]: k for ``label.segments[k - 1]``, 0 where there is none and in crowd regions,
        which nothing is learnt from. uint8, or int16 beyond 255 segments.
    """
    numbers = _numbers(label.ids, label.segments)
    return torch.from_numpy(squash(numbers, size).astype(numbers.dtype))


def augmented_segments(augmentation: PanopticAugmentation, size: int) -> Augment:
    """A random version of a picture and of :func:`segment_numbers`, which count its own segments,
    cut off ones too."""

    def augment(sample: Any, generator: np.random.Generator, number: int) -> Row:
        image, label = sample.read()
        picture, cut = augmentation(image, label, generator)
        numbers = _numbers(cut.ids, label.segments).astype(np.int16)
        return pixels_of(picture, size), torch.from_numpy(numbers)

    return augment


def counts_of(numbers: Tensor) -> list[int]:
    """How many segments are to be seen in each map [B, H, W] of :func:`segment_numbers`."""
    return [int((torch.bincount(own.flatten().int())[1:] > 0).sum()) for own in numbers]


def objects_of(
    numbers: Tensor, segments: Sequence[Sequence[Segment]]
) -> tuple[list[Tensor], list[Tensor]]:
    """What :func:`vpd.losses.mask2former_loss` takes, of segments that are to be seen.

    Args:
        numbers: [B, H, W] of :func:`segment_numbers`.
        segments: Of each picture, in the order of their numbers.

    Returns:
        For each picture classes int64 [M] and masks bool [M, H, W].
    """
    labels, masks = [], []
    for own, known in zip(numbers, segments, strict=True):
        seen = torch.bincount(own.flatten().int())[1:].nonzero()[:, 0]
        classes = torch.tensor([segment.category for segment in known], dtype=torch.int64)
        labels.append(classes.to(seen.device)[seen])
        masks.append(own == (seen + 1).to(own.dtype)[:, None, None])
    return labels, masks


def _numbers(ids: NDArray[Any], segments: Sequence[Segment]) -> NDArray[Any]:
    """k for ``segments[k - 1]``, 0 for none and for crowd regions."""
    kept = [0, *(0 if own.crowd else k for k, own in enumerate(segments, start=1))]
    kind = np.uint8 if len(segments) <= 255 else np.int16
    return np.array(kept, kind)[segment_rows(ids, segments)]
