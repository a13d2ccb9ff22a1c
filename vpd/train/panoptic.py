"""Training of panoptic segmentation: Mask2Former's criterion (Cheng et al. 2022) under ODISE's
recipe (Xu et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vpd.data.jitter import PanopticAugmentation
from vpd.losses import mask2former_loss
from vpd.tasks.evaluate_panoptic import evaluate_panoptic
from vpd.tasks.words import Words
from vpd.train.conditioned import ConditionedTraining, said_words
from vpd.train.dense import Recipe, run
from vpd.train.dense_config import DenseData
from vpd.train.dense_model import build_panoptic, empty_panoptic
from vpd.train.dense_stream import Augment
from vpd.train.dense_table import DenseBatch
from vpd.train.dense_training import DenseRun
from vpd.train.distributed import group, total
from vpd.train.drawing import named_generator
from vpd.train.groups import Rule, depth_rule
from vpd.train.panoptic_config import PanopticTrainConfig
from vpd.train.segment_targets import augmented_segments, counts_of, objects_of, segment_numbers

__all__ = ["RECIPE", "DenseData", "PanopticTrainConfig", "PanopticTraining", "train"]

_BLANK_SEGMENTS = 10  # of a picture without values; COCO has 11 on average


class _Whole(NamedTuple):
    """Of the batch of a step, all processes and passes together."""

    masks: float
    """Segments that are to be seen, at least 1."""
    weight: float
    """Sum of the weights of the queries' classes."""


class PanopticTraining(ConditionedTraining):
    """The criterion at every layer of the head: the same sum however a batch is divided."""

    monitor, mode = "PQ", "max"
    config: PanopticTrainConfig

    def __init__(self, config: PanopticTrainConfig, run: DenseRun) -> None:
        super().__init__(config, run)
        self._known = (-1, _Whole(1, 1))  # step, and what is said of its batch

    def losses(self, step: int, rows: slice) -> dict[str, Tensor]:
        config = self.config
        batch = self.table.draw(step, rows)
        context = self.context(batch)
        out = self.run.model.masks(self.features(batch, context))
        labels, masks = self.objects(batch)
        whole = self._whole(step)
        # Points of some rows of a step are the same whenever, and by whomever, they are computed.
        first = rows.indices(config.loop.batch)[0]
        found = mask2former_loss(
            out.logits,
            out.masks,
            labels,
            masks,
            weights=(config.class_weight, config.mask_weight, config.dice_weight),
            no_object=config.no_object,
            points=config.points,
            oversample=config.oversample,
            uncertain=config.uncertain,
            num_masks=whole.masks,
            generator=named_generator(self.device, "points", config.seed, step, first),
        )
        share = self._weight([len(own) for own in labels]) / whole.weight
        classes = found.cross_entropy * share  # a mean by these weights
        loss = (
            config.class_weight * classes.sum()
            + config.mask_weight * found.mask.sum()
            + config.dice_weight * found.dice.sum()
        )
        sums = {"classes": classes[-1], "masks": found.mask[-1], "dice": found.dice[-1]}
        tags = self.tag_sums(context, batch)
        if tags:
            loss = loss + config.tag_weight * tags["tag_loss"]
        return {"loss": loss, **sums, **tags}

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

    def counts(self, step: int, number: int) -> list[int]:
        """Of the pictures in one of this process's passes, how many segments are to be seen."""
        return counts_of(self.table.targets(step, self.shares.part(number)))

    def seen_classes(self, batch: DenseBatch) -> Tensor:
        labels, _ = self.objects(batch)
        return self.one_hot([own.tolist() for own in labels])

    def label_classes(self, picture: int) -> Sequence[int]:
        assert self.run.present is not None
        return [segment.category for segment in self.run.present(picture)]

    def _whole(self, step: int) -> _Whole:
        if self._known[0] != step:
            counts = [n for k in range(self.shares.passes) for n in self.counts(step, k)]
            own = {"masks": float(sum(counts)), "weight": self._weight(counts)}
            sums = total({k: torch.tensor(v, device=self.device) for k, v in own.items()})
            self._known = (step, _Whole(max(1.0, float(sums["masks"])), float(sums["weight"])))
        return self._known[1]

    def _weight(self, counts: Sequence[int]) -> float:
        """What the classes of all queries count together, for pictures of so many segments."""
        queries = self.config.num_queries
        matched = sum(min(count, queries) for count in counts)
        return matched + self.config.no_object * (len(counts) * queries - matched)

    def rule(self) -> Rule:
        return depth_rule(self.config.unet_lr_mult)  # neither norms nor biases decay

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
    return Words("labels", lambda sample: sample.read_label().segments)


def _kinds(data: Any) -> Sequence[tuple[str, bool]]:
    return tuple(zip(data.names, data.things, strict=True))


RECIPE = Recipe(
    "panoptic", build_panoptic, empty_panoptic, PanopticTraining, segment_numbers, _augment,
    said_words, _segments, kinds=_kinds, blank=BlankPanoptic,
)  # fmt: skip


def train(config: PanopticTrainConfig) -> dict[str, float]:
    """Trains a panoptic segmenter: :func:`vpd.train.dense.run`."""
    return run(config, RECIPE)
