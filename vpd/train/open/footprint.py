"""What a training of an open-vocabulary segmenter will need."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vpd.data.nouns import CaptionWords
from vpd.tasks.odise_features import Seen
from vpd.tasks.open_panoptic import OpenPanopticSegmenter
from vpd.train.footprint import Footprint, counted
from vpd.train.open.config import OpenTrainConfig
from vpd.train.open.model import empty_open, published_names
from vpd.train.open.table import OpenBatch, thinned
from vpd.train.open.training import OpenRun, OpenTraining
from vpd.vocabulary import Vocabulary

__all__ = ["open_footprint"]

_SEGMENTS = 10  # of a picture; COCO has 11 on average


def open_footprint(config: OpenTrainConfig, vocabulary: Vocabulary | None = None) -> Footprint:
    """Works out what `vpd train open-panoptic` will need, by a step on tensors without values: see
    :func:`vpd.train.refer.footprint.footprint`.

    Not in it: the data set, the evaluation between steps, and what fills the cache before the first
    one.

    Args:
        config: Of the training.
        vocabulary: What is trained on; as published if None.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):  # small constants have values
        vocabulary = published_names(config) if vocabulary is None else vocabulary
        model = empty_open(config, vocabulary)
        run = OpenRun(model, _BlankTable(config, model), vocabulary, {}, names=vocabulary)
        module = _BlankTraining(config, run)
        rows = slice(0, module.shares.rows)
        return counted(model, module, config.loop, lambda: module.losses(0, rows)["loss"])


class _BlankTraining(OpenTraining):
    """Stands for it where targets have no values."""

    def objects(self, batch: OpenBatch) -> tuple[list[Tensor], list[Tensor]]:
        labels = torch.zeros(_SEGMENTS, dtype=torch.int64)
        masks = torch.zeros(_SEGMENTS, *batch.numbers.shape[1:], dtype=torch.bool)
        return [labels] * len(batch.numbers), [masks] * len(batch.numbers)

    def texts(self, words: Sequence[str], template: str) -> Tensor:
        return torch.zeros(len(words), self.run.model.config.text.projection_dim or 0)

    def counts(self, step: int, rows: slice) -> list[int]:
        return [_SEGMENTS] * (rows.stop - rows.start)

    def said(self, step: int, place: int, picture: int) -> CaptionWords:
        return CaptionWords(("",) * self.config.words, (True,) * self.config.words)

    def categories(self, classes: Tensor) -> Tensor:
        return classes


class _BlankTable:
    """Stands for a data set: batches of its shapes and types, without meaning. Where pictures are
    looked at in every step, it does so too."""

    steps_per_epoch = 1

    def __init__(self, config: OpenTrainConfig, model: OpenPanopticSegmenter) -> None:
        self._config, self._model = config, model
        self._keeps = config.augment != "full" and config.feature_cache != "none"

    def to(self, device: torch.device) -> None:
        """It has nothing to move."""

    def fill(self, steps: int, progress: bool = True) -> None:
        """Nothing is kept here."""

    def draw(self, step: int, part: slice = slice(None)) -> OpenBatch:
        rows, crop, side = part.stop - part.start, self._config.crop, self._config.side
        pixels = torch.zeros(rows, 3, crop, crop)
        if self._keeps:
            with torch.no_grad():
                seen = thinned(self._model, self._model.look(pixels[:1]))
            maps = self._model.backbone(self._model.taps(_repeated(seen, rows)), (side, side))
        else:
            maps = self._model.pyramid(pixels, side=side)
        return OpenBatch(maps, self.numbers(step, part), [()] * rows, list(range(rows)))

    def numbers(self, step: int, part: slice = slice(None)) -> Tensor:
        crop = self._config.crop
        return torch.zeros(part.stop - part.start, crop, crop, dtype=torch.uint8)

    def close(self) -> None:
        """Nothing works ahead here."""


def _repeated(seen: Seen, rows: int) -> Seen:
    """As many rows of what is kept on disk."""

    def many(tensor: Tensor) -> Tensor:
        return torch.zeros(rows, *tensor.shape[1:])

    return Seen(
        many(seen.latents),
        None if seen.embedding is None else many(seen.embedding),
        tuple(many(own) for own in seen.encoder),
        tuple(many(own) for own in seen.decoder),
    )
