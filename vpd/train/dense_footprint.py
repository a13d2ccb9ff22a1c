"""What a training of a model with a value for every pixel will need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vpd.images import sides
from vpd.models.unet import UNetOutput
from vpd.tasks.conditioned import ConditionedModel
from vpd.tasks.dense import DenseModel
from vpd.tasks.panoptic import PanopticSegmenter
from vpd.tasks.semantic import SemanticSegmenter
from vpd.train.dense_cache import Said, caches_outputs, context_of
from vpd.train.dense_fields import DenseTrainConfig
from vpd.train.dense_table import DenseBatch
from vpd.train.dense_training import DenseRun, DenseTraining
from vpd.train.footprint import Footprint, counted
from vpd.train.frozen import hold_frozen
from vpd.train.picture_latents import reproducible

__all__ = ["BlankTable", "blank_run", "dense_footprint"]

Model = DenseModel[Any]


def dense_footprint(
    config: Any,
    empty: Callable[[Any, Sequence[str]], Model],
    training: type[DenseTraining],
    names: Sequence[str],
) -> Footprint:
    """Works out what `vpd train semantic`, `panoptic` or `depth` will need, by a step on tensors
    without values: see :func:`vpd.train.footprint.footprint`.

    Not in it: the data set, the evaluation between steps, and what fills the caches of latents and
    of U-Net outputs before the first one.

    Args:
        config: Of the training.
        empty: Makes its model, without weights, of the config and ``names``.
        training: Of the task.
        names: Of the classes, or of the types of scenes.
    """
    if hasattr(config, "average"):
        config = replace(config, average="all")  # the other counts pixels, which have no values
    with FakeTensorMode(allow_non_fake_inputs=True):  # small constants have values
        model = empty(config, names)
        hold_frozen(model, config)
        module = training(config, blank_run(config, model))
        rows = slice(0, module.shares.rows)
        return counted(model, module, config.loop, lambda: module.losses(0, rows)["loss"])


def blank_run(config: DenseTrainConfig, model: Model) -> DenseRun:
    """A run on :class:`BlankTable`, with blank outputs of the backbone where it would keep
    them."""
    table, noise = BlankTable(config, model), model.config.noise
    anew = config.fresh_noise and noise.adds_noise
    if anew or not reproducible(noise) or not caches_outputs(config):
        return DenseRun(model, table, said=_said(model), present=lambda picture: ())
    return DenseRun(model, table, cached=_blank_outputs(model, table))  # type: ignore[arg-type]


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
            weight = next(self._model.vae.parameters())
            pictures = torch.ones(rows, 3, *self._padded, dtype=weight.dtype)
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                self._model.vae.encode(pictures)
        grid = [side // config.finest for side in self._padded]
        return torch.zeros(rows, config.unet.in_channels, *grid)

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


def _blank_outputs(model: Model, table: BlankTable) -> Callable[[Tensor], UNetOutput]:
    """In the shapes of the U-Net's outputs, float32 as those that are kept come back. Ones: the
    system gives zeros their memory only when they are written to."""
    batch = table.draw(0, slice(0, 1))
    with torch.no_grad():
        out = model.attend(batch.latents, context_of(model, _said(model), batch.pictures))
    features = [feature.shape[1:] for feature in out.features]
    maps = {stride: map_.shape[1:] for stride, map_ in out.attention.items()}

    def outputs(views: Tensor) -> UNetOutput:
        rows = len(views)
        return UNetOutput(
            None,
            tuple(torch.ones(rows, *shape) for shape in features),
            {stride: torch.ones(rows, *shape) for stride, shape in maps.items()},
        )

    return outputs
