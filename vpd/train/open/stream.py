"""Pictures with segments for the training of open-vocabulary models, changed at random and looked
at in every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vpd.data.jitter import PanopticAugmentation
from vpd.data.segments import Segment
from vpd.tasks.odise_features import OdiseFeatures
from vpd.train.dense.stream import RowStream
from vpd.train.open.table import OpenBatch
from vpd.train.panoptic.segments import augmented_segments

__all__ = ["OpenStream"]


class OpenStream:
    """A training set under large-scale jittering. Each changed picture is cut into windows of the
    size that the diffusion model sees.

    Args:
        model: It looks at the pictures.
        samples: Pictures with segments.
        crop: Side of the changed pictures, a multiple of the model's.
        scale: Range of the factor, as of :class:`vpd.data.jitter.PanopticAugmentation`.
        batch: Rows of a batch.
        seed: Of order and augmentation.
        workers: Threads that read and change; None: one per CPU.
    """

    def __init__(
        self,
        model: OdiseFeatures[Any],
        samples: Sequence[Any],
        crop: int,
        scale: tuple[float, float],
        batch: int,
        seed: int,
        workers: int | None = None,
    ) -> None:
        augment = augmented_segments(PanopticAugmentation((crop, crop), scale=scale), crop)
        self._stream = RowStream(samples, augment, batch, seed, workers)
        self.steps_per_epoch = self._stream.epochs.steps
        self._model, self._samples = model, samples
        self._segments: dict[int, tuple[Segment, ...]] = {}
        self._device = torch.device("cpu")

    def __deepcopy__(self, memo: dict[int, Any]) -> OpenStream:
        return self

    def to(self, device: torch.device) -> None:
        self._device = device

    def fill(self, steps: int, progress: bool = True) -> None:
        """Nothing is kept here."""

    def draw(self, step: int, part: slice = slice(None)) -> OpenBatch:
        loaded = self._stream.load(step, part)
        pictures = self._stream.epochs.rows(step)[0][part].tolist()
        pixels = torch.stack([row[0] for row in loaded]).to(self._device)
        side = self._model.config.image_size
        maps = self._model.pyramid((pixels + 1) / 2, side=side)
        segments = [self._listed(picture) for picture in pictures]
        return OpenBatch(maps, self.numbers(step, part), segments, pictures)

    def numbers(self, step: int, part: slice = slice(None)) -> Tensor:
        loaded = self._stream.load(step, part)
        return torch.stack([row[1] for row in loaded]).to(self._device)

    def close(self) -> None:
        """Ends the threads; what they have not begun is left."""
        self._stream.close()

    def _listed(self, picture: int) -> tuple[Segment, ...]:
        """All segments of a picture, in the order of their numbers."""
        if picture not in self._segments:
            self._segments[picture] = self._samples[picture].read_segments()
        return self._segments[picture]
