"""Pictures with segments for the training of open-vocabulary models: what frozen networks make of
them before the U-Net, and the batches that are drawn."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vpd.data.segments import Segment
from vpd.tasks.odise_features import OdiseFeatures, Seen
from vpd.train.caching.latents import content_key, squashed
from vpd.train.caching.row_store import RowStore, digest
from vpd.train.dense.table import Epochs, Views
from vpd.train.loop.batches import Resident
from vpd.train.panoptic.segments import segment_numbers

__all__ = ["OpenBatch", "OpenPictures", "OpenTable", "thinned"]

log = logging.getLogger("vpd")

_TOGETHER = 16  # pictures of a pass


@dataclass(frozen=True)
class OpenBatch:
    maps: tuple[Tensor, ...]  # of the model's projections, fine to coarse, with their gradient
    numbers: Tensor  # [B, H, W], which of its segments each pixel is, from 1
    segments: list[tuple[Segment, ...]]  # of each picture, in the order of their numbers
    pictures: list[int]  # B numbers, which picture each row is of


class OpenPictures(Protocol):
    """What a training draws from. Every answer depends on its arguments alone, and on what the
    model has learnt."""

    steps_per_epoch: int

    def to(self, device: torch.device) -> None: ...

    def fill(self, steps: int, progress: bool = True) -> None:
        """Looks beforehand at what the first ``steps`` steps draw, where that can be kept."""

    def draw(self, step: int, part: slice = slice(None)) -> OpenBatch:
        """The batch of a training step, or some of its rows."""

    def numbers(self, step: int, part: slice = slice(None)) -> Tensor:
        """Of a batch alone, mirrored or not."""

    def close(self) -> None:
        """Ends what works ahead."""


class OpenTable:
    """A training set whose pictures are squashed to what the diffusion model sees, so that each is
    one window.

    An epoch visits every picture once; with ``flip`` as it is or mirrored, by chance. What frozen
    networks make of a picture is kept on disk under its content, some 0.5 MB with vpd-mini, and
    read when it is drawn; without a folder they run in every step.

    Args:
        model: Its frozen networks look at the pictures.
        samples: Pictures with segments.
        batch: Rows of a batch.
        seed: Of order and mirroring.
        flip: Whether there are mirror images.
        folder: Of the caches of all networks; None for none.
        dtype: Of what is kept; float32 for results equal to those without a cache.
    """

    def __init__(
        self,
        model: OdiseFeatures[Any],
        samples: Sequence[Any],
        batch: int,
        seed: int,
        *,
        flip: bool = False,
        folder: Path | None = None,
        dtype: torch.dtype = torch.float16,
    ) -> None:
        config = model.config
        self._model, self._count = model, 2 if flip else 1
        self._epochs = Epochs(len(samples), batch, seed)
        self.steps_per_epoch = self._epochs.steps
        self._pictures = Views(samples, self._count)
        labels = [sample.read_label() for sample in samples]
        self._segments = [label.segments for label in labels]
        self._numbers = Resident(
            numbers=torch.stack([segment_numbers(label, config.image_size) for label in labels])
        )
        self._store: RowStore | None = None
        self._keys: dict[int, bytes] = {}
        if folder is not None:
            self._store = RowStore(folder / _name(model, dtype), dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> OpenTable:
        return self

    def to(self, device: torch.device) -> None:
        self._numbers.to(device)

    def fill(self, steps: int, progress: bool = True) -> None:
        """Looks at what the first ``steps`` steps draw, as far as nobody has yet."""
        from tqdm import tqdm

        if self._store is None:
            return
        views = torch.unique(torch.cat([self._drawn(step) for step in range(steps)])).tolist()
        for view in views:
            self._keys[view] = content_key(self._pictures[view])
        absent = [view for view in views if self._keys[view] not in self._store]
        log.info(
            "looks at %d pictures, %d of them for the first time, in %s",
            len(views), len(absent), self._store.folder,
        )  # fmt: skip
        with tqdm(total=len(absent), desc="frozen networks", disable=not progress) as bar:
            for start in range(0, len(absent), _TOGETHER):
                chosen = absent[start : start + _TOGETHER]
                rows = _parts(self._look(chosen))
                self._store.add([self._keys[view] for view in chosen], rows)
                bar.update(len(chosen))
        self._store.flush()

    def draw(self, step: int, part: slice = slice(None)) -> OpenBatch:
        """The batch of a training step, or some of its rows."""
        views = self._drawn(step)[part].tolist()
        pictures = [view // self._count for view in views]
        kept = self._numbers["numbers"]
        numbers = kept[torch.tensor(pictures, device=kept.device)]
        mirrored = torch.tensor([view % self._count == 1 for view in views], device=kept.device)
        numbers = torch.where(mirrored[:, None, None], numbers.flip(-1), numbers)
        segments = [self._segments[picture] for picture in pictures]
        size = (self._model.config.image_size,) * 2
        maps = self._model.backbone(self._model.taps(self._seen(views)), size)
        return OpenBatch(maps, numbers, segments, pictures)

    def numbers(self, step: int, part: slice = slice(None)) -> Tensor:
        """Of a batch alone, mirrored or not."""
        kept = self._numbers["numbers"]
        return kept[(self._drawn(step)[part] // self._count).to(kept.device)]

    def close(self) -> None:
        """Nothing works ahead here."""

    def _seen(self, views: list[int]) -> Seen:
        if self._store is None:
            return self._look(views)
        parts = self._store.read(self._keys[view] for view in views)
        return _seen(self._model, [part.to(self._model.device) for part in parts])

    def _look(self, views: list[int]) -> Seen:
        """In the networks' own precision, whatever that of training is."""
        size, device = self._model.config.image_size, self._model.device
        pixels = (squashed([self._pictures[view] for view in views], size) + 1) / 2
        with torch.autocast(device.type, enabled=False):
            return thinned(self._model, self._model.look(pixels.to(device)))

    def _drawn(self, step: int) -> Tensor:
        rows, luck = self._epochs.rows(step)
        return rows * self._count + (luck * self._count).long()


def _name(model: OdiseFeatures[Any], dtype: torch.dtype) -> str:
    """Names all that they depend on besides the picture."""
    config = model.config
    taps = [[asdict(tap) for tap in own] for own in (config.taps()[0], config.taps()[2])]
    how = {
        "image_size": config.image_size, "scale_factor": config.scale_factor, "taps": taps,
        "min_stride": config.min_stride, "vae": asdict(config.vae), "image": asdict(config.image),
        "dtype": str(dtype),
    }  # fmt: skip
    parts: list[Any] = [model.vae, how]
    if config.captioner != "none":
        parts.append(model.clip["image"])
    return digest("open look 1", *parts)


def thinned(model: OdiseFeatures[Any], seen: Seen) -> Seen:
    """Without the places that the projections leave out: those finer than the finest map."""
    encoder, _, decoder = model.config.taps()

    def thin(taps: Any, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        steps = [max(1, model.config.min_stride // tap.stride) for tap in taps]
        return tuple(own[..., ::k, ::k] for own, k in zip(maps, steps, strict=True))

    return seen._replace(encoder=thin(encoder, seen.encoder), decoder=thin(decoder, seen.decoder))


def _parts(seen: Seen) -> list[Tensor]:
    embedding = [] if seen.embedding is None else [seen.embedding]
    return [seen.latents, *embedding, *seen.encoder, *seen.decoder]


def _seen(model: OdiseFeatures[Any], parts: Sequence[Tensor]) -> Seen:
    latents, *others = parts
    embedding = others.pop(0) if model.config.captioner != "none" else None
    count = len(model.config.taps()[0])
    return Seen(latents, embedding, tuple(others[:count]), tuple(others[count:]))
