"""Batches whose pictures are read and changed at random in every step, by threads that work
ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vpd.data.augment import DepthAugmentation, SemanticAugmentation, pad_to, sample_generator
from vpd.images import Size, in_range, sides
from vpd.randomness import named_seed
from vpd.tasks.dense import DenseModel, pad_to_multiple
from vpd.train.caching.ahead import RowsAhead
from vpd.train.caching.latents import draw_names, with_noise
from vpd.train.caching.sights import look_plainly
from vpd.train.dense.table import DenseBatch, Epochs

__all__ = [
    "Augment", "Row", "RowStream", "StreamedTable", "augmented_depth", "augmented_label",
    "pixels_of",
]  # fmt: skip

Row = tuple[Tensor, Tensor]
"""Pixels float32 [3, H, W] in [-1, 1], and the target [H, W]."""
Augment = Callable[[Any, np.random.Generator, int], Row]
"""From a sample, the randomness of one row of one step, and its number in the run."""


def augmented_label(augmentation: SemanticAugmentation, size: Size) -> Augment:
    """A random version of a labelled picture; what it lacks to ``size`` is grey and has no
    class."""

    def augment(sample: Any, generator: np.random.Generator, number: int) -> Row:
        image, label = sample.read()
        image, label = augmentation(image, label, generator)
        padded = pad_to(label, sides(size), augmentation.ignore_index)
        return pixels_of(image, size), torch.from_numpy(padded)

    return augment


def augmented_depth(augmentation: DepthAugmentation, size: Size) -> Augment:
    """A random version of a picture with depth, float32 in metres."""

    def augment(sample: Any, generator: np.random.Generator, number: int) -> Row:
        image, depth_m = sample.read()
        try:
            image, depth_m = augmentation(image, depth_m, generator, number)
        except ValueError as error:
            raise ValueError(f"{sample.id}: {error}") from error
        return pixels_of(image, size), torch.from_numpy(depth_m)

    return augment


def pixels_of(image: NDArray[np.uint8], size: Size) -> Tensor:
    """[3, *size] in [-1, 1], 0 (grey) where the picture does not reach."""
    pixels, (height, width) = in_range(image), sides(size)
    return F.pad(pixels, (0, width - pixels.shape[2], 0, height - pixels.shape[1]))


class RowStream:
    """Rows of a training set, each changed by an augmentation drawn from (seed, step, place in the
    batch): a resumed run and one of several processes see the same ones. An epoch visits every
    sample once, in the order of :class:`Epochs`.

    Args:
        samples: Of a data set.
        augment: Makes a row of a sample.
        batch: Rows of a batch.
        seed: Of order and augmentation.
        workers: Threads; None: one per CPU.
    """

    def __init__(
        self,
        samples: Sequence[Any],
        augment: Augment,
        batch: int,
        seed: int,
        workers: int | None = None,
    ) -> None:
        self.epochs = Epochs(len(samples), batch, seed)
        self._samples, self._augment, self._batch, self._seed = samples, augment, batch, seed
        self._rows = RowsAhead(lambda step: self.epochs.rows(step)[0].tolist(), self._row, workers)

    def places(self, part: slice) -> list[int]:
        """Of some rows in their batch."""
        return list(range(self._batch))[part]

    def load(self, step: int, part: slice) -> list[Row]:
        """Rows of a step; the same places of the next ones are begun."""
        return self._rows(step, self.places(part))

    def close(self) -> None:
        """Ends the threads; what they have not begun is left."""
        self._rows.close()

    def _row(self, number: int, step: int, place: int) -> Row:
        generator = sample_generator(self._seed, step, place)
        return self._augment(self._samples[number], generator, step * self._batch + place)


class StreamedTable:
    """A training set on disk, read and changed in every step by a :class:`RowStream`. An image
    encoder, if the model has one, sees the changed pictures.

    The autoencoder runs in every step. Its noise protocol, if it has one, draws from the changed
    picture, or under ``fresh`` as :class:`PictureLatents` does.

    Args:
        model: Encodes the pictures.
        samples: Labelled pictures, or pictures with depth.
        augment: Makes a row of a sample.
        batch: Rows of a batch.
        seed: Of order, augmentation and noise.
        fresh: Draw noise from (seed, step, place) instead; without a seed in the protocol it is so
            anyway.
        workers: Threads; None: one per CPU.
    """

    def __init__(
        self,
        model: DenseModel[Any],
        samples: Sequence[Any],
        augment: Augment,
        batch: int,
        seed: int,
        *,
        fresh: bool = False,
        workers: int | None = None,
    ) -> None:
        noise = model.config.noise
        self._stream = RowStream(samples, augment, batch, seed, workers)
        self.steps_per_epoch = self._stream.epochs.steps
        self._model, self._seed = model, seed
        self._shared = noise.noise_key == "shared"
        self._fresh = noise.adds_noise and (fresh or noise.seed is None)
        if self._fresh:
            self._model = with_noise(model, replace(noise, seed=seed, noise_key="image"))
        self._device = torch.device("cpu")

    def __deepcopy__(self, memo: dict[int, Any]) -> StreamedTable:
        return self

    def to(self, device: torch.device) -> None:
        self._device = device

    def draw(self, step: int, part: slice = slice(None)) -> DenseBatch:
        rows = self._stream.epochs.rows(step)[0][part]
        loaded = self._stream.load(step, part)
        pixels = torch.stack([row[0] for row in loaded]).to(self._device)
        return DenseBatch(
            self._encode(step, self._stream.places(part), pixels),
            torch.stack([row[1] for row in loaded]).to(self._device),
            rows.tolist(),
            rows,
            look_plainly(self._model, pixels) if self._model.sees else None,
        )

    def targets(self, step: int, part: slice = slice(None)) -> Tensor:
        loaded = self._stream.load(step, part)
        return torch.stack([row[1] for row in loaded]).to(self._device)

    def close(self) -> None:
        """Ends the threads; what they have not begun is left."""
        self._stream.close()

    def _encode(self, step: int, places: list[int], pixels: Tensor) -> Tensor:
        names = draw_names(step, places, self._shared) if self._fresh else None
        padded = pad_to_multiple(pixels, self._model.config.multiple)
        devices = [self._device] if self._device.type == "cuda" else []
        # As where pictures are encoded once: before training, not in its precision. What a sample
        # of the posterior draws must not depend on the steps before either.
        with (
            torch.autocast(self._device.type, enabled=False),
            torch.random.fork_rng(devices=devices),
        ):
            torch.manual_seed(named_seed("posterior", self._seed, step, places[0]))
            return self._model.encode_image(padded, names).float()
