"""Edited pairs as an evaluation reads them: a seeded choice, at the size of editing, in batches of
one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vpd.data.edit_files import EditPair
from vpd.images import in_range
from vpd.tasks.editor_size import fitted

if TYPE_CHECKING:
    from vpd.images import RGBImage

__all__ = ["EditPairs", "EditSample", "batches", "chosen", "stacked"]


class EditPairs(Protocol):
    """Edited pairs by number, such as :class:`vpd.data.EditDataset` or those of
    :func:`vpd.data.tabletop.edits`."""

    def __len__(self) -> int: ...
    def pair(self, index: int, generator: np.random.Generator | None = None) -> EditPair: ...


@dataclass(frozen=True, eq=False)
class EditSample:
    """An edited pair at the size of editing."""

    place: int
    """Its number in the data set."""
    pair: EditPair
    """As it was read."""
    before: RGBImage
    after: RGBImage
    """The true edited picture."""
    kind: str | None
    """Of the edit, where it is known."""

    @property
    def mask(self) -> np.ndarray | None:
        """bool [H, W]: the edited object; None if it is unknown, or pictures were resized."""
        mask = self.pair.mask
        return mask if mask is not None and mask.shape == self.after.shape[:2] else None


def chosen(pairs: EditPairs, count: int | None, seed: int) -> list[int]:
    """Numbers of ``count`` pairs (all if None or fewer are there), in an order drawn by seed."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    return [int(place) for place in order[:count]]


def batches(
    pairs: EditPairs,
    places: Sequence[int],
    *,
    resolution: int,
    multiple: int,
    batch: int,
    seed: int,
) -> Iterator[list[EditSample]]:
    """The pairs of some places in order; neighbours of one size come together.

    Of an entry with several pairs one is drawn by seed and place.
    """
    waiting: list[EditSample] = []
    for place in places:
        pair = pairs.pair(place, np.random.default_rng((seed, place)))
        before, after = (fitted(p, resolution, multiple) for p in (pair.before, pair.after))
        sample = EditSample(place, pair, before, after, _kind(pairs, place))
        if waiting and (len(waiting) == batch or waiting[0].before.shape != before.shape):
            yield waiting
            waiting = []
        waiting.append(sample)
    if waiting:
        yield waiting


def stacked(pictures: Sequence[RGBImage]) -> Tensor:
    """Pictures of one size as networks see them: float32 [B, 3, H, W] in [-1, 1]."""
    return torch.stack([in_range(picture) for picture in pictures])


def _kind(pairs: Any, place: int) -> str | None:
    """Rendered edits know what they are."""
    return str(pairs.edit(place).kind) if hasattr(pairs, "edit") else None
