"""Training of panoptic segmentation: Mask2Former's criterion (Cheng et al. 2022) under ODISE's
recipe (Xu et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vpd.data.jitter import PanopticAugmentation
from vpd.tasks.evaluate_panoptic import evaluate_panoptic
from vpd.tasks.words import Words
from vpd.train.dense.conditioned import ConditionedTraining, said_words
from vpd.train.dense.fields import DenseData
from vpd.train.dense.run import Recipe, run
from vpd.train.dense.stream import Augment
from vpd.train.dense.table import DenseBatch
from vpd.train.dense.training import DenseRun
from vpd.train.distributed import group
from vpd.train.loop.optimizer import Rule, matrix_rule
from vpd.train.panoptic.config import PanopticTrainConfig
from vpd.train.panoptic.criterion import MaskCriterion
from vpd.train.panoptic.model import build_panoptic, empty_panoptic
from vpd.train.panoptic.segments import augmented_segments, counts_of, objects_of, segment_numbers

__all__ = ["RECIPE", "DenseData", "PanopticTrainConfig", "PanopticTraining", "train"]

_BLANK_SEGMENTS = 10  # of a picture without values; COCO has 11 on average


class PanopticTraining(ConditionedTraining):
    """The criterion at every layer of the head: the same sum however a batch is divided."""

    monitor, mode = "PQ", "max"
    config: PanopticTrainConfig

    def __init__(self, config: PanopticTrainConfig, run: DenseRun) -> None:
        super().__init__(config, run)
        self._criterion = MaskCriterion(config)

    def losses(self, step: int, rows: slice) -> dict[str, Tensor]:
        batch = self.table.draw(step, rows)
        context = self.context(batch)
        out = self.run.model.masks(self.features(batch, context))
        labels, masks = self.objects(batch)
        self._criterion.begin(step, lambda: self._counts(step), self.device)
        sums = self._criterion(step, rows, out.logits, out.masks, labels, masks)
        tags = self.tag_sums(context, batch)
        if tags:
            sums["loss"] = sums["loss"] + self.config.tag_weight * tags["tag_loss"]
        return sums | tags

    def logged(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss, the terms of the last layer without their weights, and what a tagging adapter
        learns."""
        names = ("loss", "classes", "masks", "dice")
        return {name: sums[name] for name in names} | self.tag_scores(sums)

    def objects(self, batch: DenseBatch) -> tuple[list[Tensor], list[Tensor]]:
        """Classes and masks of each picture's segments."""
        assert self.run.present is not None
        segments = [self.run.present(picture) for picture in batch.pictures]
        return objects_of(batch.targets, segments)

    def _counts(self, step: int) -> list[int]:
        return [n for k in range(self.shares.passes) for n in self.counts(step, k)]

    def counts(self, step: int, number: int) -> list[int]:
        """Of the pictures in one of this process's passes, how many segments are to be seen."""
        return counts_of(self.table.targets(step, self.shares.part(number)))

    def seen_classes(self, batch: DenseBatch) -> Tensor:
        labels, _ = self.objects(batch)
        return self.one_hot([own.tolist() for own in labels])

    def label_classes(self, picture: int) -> Sequence[int]:
        assert self.run.present is not None
        return [segment.category for segment in self.run.present(picture)]

    def rule(self) -> Rule:
        return matrix_rule(self.config.unet_lr_mult)

    def evaluate(self, limit: int | None, progress: bool = False) -> dict[str, float]:
        return evaluate_panoptic(
            self.scored,
            self.run.val,
            words=self.config.words,
            limit=limit,
            progress=progress,
            group=group(),
        ).metrics


class BlankPanoptic(PanopticTraining):
    """Stands for it where targets have no values."""

    def objects(self, batch: DenseBatch) -> tuple[list[Tensor], list[Tensor]]:
        size = batch.targets.shape[1:]
        labels = torch.zeros(_BLANK_SEGMENTS, dtype=torch.int64)
        masks = torch.zeros(_BLANK_SEGMENTS, *size, dtype=torch.bool)
        return [labels] * len(batch.targets), [masks] * len(batch.targets)

    def counts(self, step: int, number: int) -> list[int]:
        return [_BLANK_SEGMENTS] * self.shares.rows

    def seen_classes(self, batch: DenseBatch) -> Tensor:
        return self.one_hot([()] * len(batch.targets))


def _augment(config: PanopticTrainConfig, data: Any) -> Augment:
    augmentation = PanopticAugmentation((config.crop, config.crop), scale=config.scale)
    return augmented_segments(augmentation, config.crop)


def _segments(config: PanopticTrainConfig, data: Any) -> Callable[[Any], Any]:
    return Words("labels", lambda sample: sample.read_segments())


def _kinds(data: Any) -> Sequence[tuple[str, bool]]:
    return tuple(zip(data.names, data.things, strict=True))


RECIPE = Recipe(
    "panoptic", build_panoptic, empty_panoptic, PanopticTraining, segment_numbers, _augment,
    said_words, _segments, kinds=_kinds, blank=BlankPanoptic,
)  # fmt: skip


def train(config: PanopticTrainConfig) -> dict[str, float]:
    """Trains a panoptic segmenter: :func:`vpd.train.dense.run.run`."""
    return run(config, RECIPE)
