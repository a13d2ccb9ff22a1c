"""A data set with a value for every pixel held in memory, and the batches that are drawn from
it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpd.images import Size, sides
from vpd.tasks.dense import DenseModel
from vpd.train.caching.latents import PictureLatents
from vpd.train.caching.pixels import PicturePixels
from vpd.train.caching.sights import Sights
from vpd.train.loop.batches import Resident, step_generator

__all__ = [
    "DenseBatch", "DenseTable", "Epochs", "ResidentTable", "Target", "depth_target", "label",
    "squash",
]  # fmt: skip


@dataclass(frozen=True)
class DenseBatch:
    latents: Tensor  # [B, C, h, w], what the backbone sees
    targets: Tensor  # [B, H, W]: classes or numbers of segments, integers, or float32 metres
    pictures: Sequence[int]  # B numbers, which picture each row is of
    views: Tensor  # int64 [B] on the CPU, which view of it
    seen: Tensor | None = None  # [B, ...], what an image encoder sees in it


class DenseTable(Protocol):
    """What a training draws from. Every answer depends on its arguments alone."""

    steps_per_epoch: int

    def to(self, device: torch.device) -> None: ...

    def draw(self, step: int, part: slice = slice(None)) -> DenseBatch:
        """The batch of a training step, or some of its rows."""

    def targets(self, step: int, part: slice = slice(None)) -> Tensor:
        """Targets of a batch alone."""

    def close(self) -> None:
        """Ends what works ahead."""


class Epochs:
    """The rows of a data set in the order of each epoch, which depends on (seed, epoch). The last,
    incomplete batch of an epoch is dropped.

    Raises:
        ValueError: Fewer rows than a batch has.
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        if count < batch:
            raise ValueError(f"expected at least one batch of {batch} pictures, got {count}")
        self.steps = count // batch
        self._count, self._batch, self._seed = count, batch, seed
        self._known = (-1, torch.empty(0), torch.empty(0))

    def rows(self, step: int) -> tuple[Tensor, Tensor]:
        """Rows of a step, int64 [B], and a number in [0, 1) for each of them."""
        epoch, place = divmod(step, self.steps)
        if epoch != self._known[0]:
            generator = step_generator(self._seed, epoch)
            order = torch.randperm(self._count, generator=generator)
            self._known = (epoch, order, torch.rand(self._count, generator=generator))
        _, order, luck = self._known
        taken = slice(place * self._batch, (place + 1) * self._batch)
        return order[taken], luck[taken]


Target = Callable[[Any, Size], Tensor]
"""What a label map, a depth map or a label of segments is kept as, squashed to a size."""


def label(stored: NDArray[Any], size: Size) -> Tensor:
    """Classes [*size] in the type that they were read in."""
    plain = stored if stored.dtype == np.uint8 else stored.astype(np.int32)
    return torch.from_numpy(squash(plain, size).astype(stored.dtype))


def depth_target(depth_m: NDArray[Any], size: Size) -> Tensor:
    """Metres [*size] in float16, which moves a logarithm by less than 5e-4."""
    return torch.from_numpy(squash(depth_m, size)).half()


def squash(values: NDArray[Any], size: Size) -> NDArray[Any]:
    """A map [H, W] at another size, by nearest neighbours."""
    height, width = sides(size)
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)


class ResidentTable:
    """Latents and targets of a training set, squashed to the model's input size; for a vision
    transformer, pictures and targets.

    An epoch visits every picture once; with ``flip`` as it is or mirrored, by chance. A *view* is
    the number of a picture, or with ``flip`` twice that, plus 1 for its mirror image.

    Args:
        model: Encodes the pictures, under its noise protocol; its image encoder, if it has one,
            sees each of them once.
        samples: Labelled pictures, or pictures with depth.
        target: What their labels are kept as.
        batch: Rows of a batch.
        seed: Of order and mirroring.
        flip: Whether there are mirror images.
        cache: Folder where latents, and what is seen, are kept for other runs; None for none.
        fresh: Draw the noise of the protocol anew in every step (:class:`PictureLatents`).
    """

    def __init__(
        self,
        model: DenseModel[Any],
        samples: Sequence[Any],
        target: Target,
        batch: int,
        seed: int,
        *,
        flip: bool = False,
        cache: Path | None = None,
        fresh: bool = False,
    ) -> None:
        size = model.config.image_size
        self._batch, self._views = batch, 2 if flip else 1
        self._epochs = Epochs(len(samples), batch, seed)
        self.steps_per_epoch = self._epochs.steps
        pictures = Views(samples, self._views)
        self._latents: PictureLatents | PicturePixels
        if model.config.vit is not None:
            self._latents = PicturePixels(model.config, pictures)
        else:
            self._latents = PictureLatents(
                model, pictures, seed, fresh=fresh, cache=cache, multiple=model.config.multiple
            )
        self._sights: Sights | None = None
        if model.sees:
            self._sights = Sights(model, pictures, cache)
        maps = [target(sample.read()[1], size) for sample in samples]
        self._data = Resident(targets=torch.stack(maps))

    def __deepcopy__(self, memo: dict[int, Any]) -> ResidentTable:
        return self

    @property
    def fresh(self) -> bool:
        """Whether noise is drawn anew in every step."""
        return self._latents.fresh

    def to(self, device: torch.device) -> None:
        self._data.to(device)
        self._latents.to(device)
        if self._sights is not None:
            self._sights.to(device)

    def draw(self, step: int, part: slice = slice(None)) -> DenseBatch:
        views = self._drawn(step)[part]
        if isinstance(self._latents, PictureLatents) and self.fresh:
            latents = self._latents.at_step(views, step, torch.arange(self._batch)[part])
        else:
            latents = self._latents.kept(views)
        targets = self.targets(step, part)
        seen = None if self._sights is None else self._sights(views)
        return DenseBatch(latents, targets, self.pictures(views), views, seen)

    def targets(self, step: int, part: slice = slice(None)) -> Tensor:
        data = self._data["targets"]
        views = self._drawn(step)[part].to(data.device)
        found = data[views // self._views]
        mirrored = (views % self._views == 1)[:, None, None]
        found = torch.where(mirrored, found.flip(-1), found)
        return found.float() if found.dtype == torch.float16 else found

    def close(self) -> None:
        """Nothing works ahead here."""

    def drawn(self, steps: int) -> Tensor:
        """Every view that the first ``steps`` steps draw, int64, ascending."""
        return torch.unique(torch.cat([self._drawn(step) for step in range(steps)]))

    def key(self, view: int) -> bytes:
        """What a view is made of, as a content key."""
        return self._latents.keys[view]

    def latents(self, views: Tensor) -> Tensor:
        """[B, C, h, w] of some views."""
        return self._latents.kept(views)

    def pictures(self, views: Tensor) -> list[int]:
        """The numbers of the pictures that they are views of."""
        return [view // self._views for view in views.tolist()]

    def _drawn(self, step: int) -> Tensor:
        rows, luck = self._epochs.rows(step)
        return rows * self._views + (luck * self._views).long()


class Views(Sequence[NDArray[np.uint8]]):
    """The pictures of samples, or each and its mirror image, read when asked for."""

    def __init__(self, samples: Sequence[Any], views: int) -> None:
        self._samples, self._count = samples, views

    def __len__(self) -> int:
        return len(self._samples) * self._count

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for sample in self._samples:  # read once for both views
            image = sample.read_image()
            yield image
            if self._count == 2:
                yield np.ascontiguousarray(image[:, ::-1])

    def __getitem__(self, view: Any) -> Any:
        image = self._samples[view // self._count].read_image()
        return image if view % self._count == 0 else np.ascontiguousarray(image[:, ::-1])
