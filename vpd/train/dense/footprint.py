"""What a training of a model with a value for every pixel will need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vpd.images import sides
from vpd.models.unet import UNetOutput
from vpd.tasks.conditioned import ConditionedModel
from vpd.tasks.dense import DenseModel
from vpd.tasks.panoptic import PanopticSegmenter
from vpd.tasks.semantic import SemanticSegmenter
from vpd.train.caching.latents import reproducible
from vpd.train.dense.cache import Said, caches_outputs, context_of
from vpd.train.dense.fields import DenseTrainConfig
from vpd.train.dense.table import DenseBatch
from vpd.train.dense.training import DenseRun, DenseTraining
from vpd.train.footprint import BlankStep, Footprint, blank_outputs, counted
from vpd.train.loop.frozen import hold_frozen

__all__ = ["BlankTable", "blank_run", "dense_footprint", "dense_step"]

Model = DenseModel[Any]


def dense_footprint(
    config: Any,
    empty: Callable[[Any, Sequence[str]], Model],
    training: type[DenseTraining],
    names: Sequence[str],
) -> Footprint:
    """Works out what `vpd train semantic`, `panoptic` or `depth` will need, by a step on tensors
    without values: see :func:`vpd.train.refer.footprint.footprint`.

    Not in it: the data set, the evaluation between steps, and what fills the caches of latents and
    of U-Net outputs before the first one.

    Args:
        config: Of the training.
        empty: Makes its model, without weights, of the config and ``names``.
        training: Of the task.
        names: Of the classes, or of the types of scenes.
    """
    with dense_step(config, empty, training, names) as step:
        return counted(step.model, step.module, step.loop, step.loss)


@contextmanager
def dense_step(
    config: Any,
    empty: Callable[[Any, Sequence[str]], Model],
    training: type[DenseTraining],
    names: Sequence[str],
) -> Iterator[BlankStep]:
    """A step of these trainings, as long as a ``with`` block lasts; arguments as
    :func:`dense_footprint` takes them."""
    if hasattr(config, "average"):
        config = replace(config, average="all")  # the other counts pixels, which have no values
    with FakeTensorMode(allow_non_fake_inputs=True):  # small constants have values
        model = empty(config, names)
        hold_frozen(model, config)
        run = blank_run(config, model)
        module, table = training(config, run), cast(BlankTable, run.table)
        rows = slice(0, module.shares.rows)

        def once() -> None:
            table.encode_once()
            if run.cached is not None:
                _attend_once(model, table)

        yield BlankStep(model, module, config.loop, lambda: module.losses(0, rows)["loss"], once)


def blank_run(config: DenseTrainConfig, model: Model) -> DenseRun:
    """A run on :class:`BlankTable`, with blank outputs of the backbone where it would keep
    them."""
    table, noise = BlankTable(config, model), model.config.noise
    anew = config.fresh_noise and noise.adds_noise
    if anew or not reproducible(noise) or not caches_outputs(config):
        return DenseRun(model, table, said=_said(model), present=lambda picture: ())
    with torch.no_grad():
        cached = blank_outputs(_attend_once(model, table))
    return DenseRun(model, table, cached=cached)  # type: ignore[arg-type]


def _said(model: Model) -> Said | None:
    """As much as can be said about a picture where something must be."""
    if isinstance(model, ConditionedModel) and model.config.condition == "oracle":
        return lambda picture: model.config.classes
    return None


class BlankTable:
    """Stands for a data set: batches of its shapes and types, without meaning.

    Where pictures are encoded in every step, it does so too.
    """

    steps_per_epoch = 1

    def __init__(self, config: DenseTrainConfig, model: Model) -> None:
        noise, multiple = model.config.noise, model.config.multiple
        anew = config.fresh_noise or noise.seed is None
        self._encodes = config.augment == "full" or (noise.changes_pixels and anew)
        self._model, self._crop = model, sides(config.crop)
        self._padded = [side + -side % multiple for side in self._crop]

    def to(self, device: torch.device) -> None:
        """It has nothing to move."""

    def draw(self, step: int, part: slice = slice(None)) -> DenseBatch:
        rows = part.stop - part.start
        latents = self._latents(rows)
        ids = torch.zeros(rows, dtype=torch.int64)
        return DenseBatch(latents, self.targets(step, part), range(rows), ids, self._seen(rows))

    def _latents(self, rows: int) -> Tensor:
        """What the backbone sees."""
        config = self._model.config
        if config.vit is not None:
            return torch.zeros(rows, 3, *self._padded)
        if self._encodes:
            self._encode(rows)
        grid = [side // config.finest for side in self._padded]
        return torch.zeros(rows, config.unet.in_channels, *grid)

    def _encode(self, rows: int) -> None:
        weight = next(self._model.vae.parameters())
        pictures = torch.ones(rows, 3, *self._padded, dtype=weight.dtype)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            self._model.vae.encode(pictures)

    def encode_once(self) -> None:
        """One picture, where pictures are encoded before the first step."""
        if self._model.config.vit is None and not self._encodes:
            self._encode(1)

    def _seen(self, rows: int) -> Tensor | None:
        """What an image encoder sees: in every step, or as it is kept."""
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            pixels = torch.zeros(rows if self._encodes else 1, 3, *self._crop)
            seen = self._model.look(pixels)
        return None if seen is None else seen.float().expand(rows, *seen.shape[1:])

    def targets(self, step: int, part: slice = slice(None)) -> Tensor:
        kind = torch.float32
        if isinstance(self._model, SemanticSegmenter):
            kind = torch.uint8 if len(self._model.config.classes) <= 255 else torch.int64
        elif isinstance(self._model, PanopticSegmenter):
            kind = torch.int16
        return torch.zeros(part.stop - part.start, *self._crop, dtype=kind)

    def close(self) -> None:
        """Nothing works ahead here."""


def _attend_once(model: Model, table: BlankTable) -> UNetOutput:
    """The backbone on one picture."""
    batch = table.draw(0, slice(0, 1))
    return model.attend(batch.latents, context_of(model, _said(model), batch.pictures))
