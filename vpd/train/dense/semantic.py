"""Training of semantic segmentation: VPD's recipe (Zhao et al. 2023, section 4.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vpd.data.augment import SemanticAugmentation
from vpd.images import sides
from vpd.losses import segmentation_sums
from vpd.randomness import named_generator
from vpd.tasks.evaluate_dense import evaluate_semantic
from vpd.train.dense.conditioned import ConditionedTraining, present_classes, said_words
from vpd.train.dense.config import SemanticTrainConfig
from vpd.train.dense.fields import DenseData
from vpd.train.dense.model import build_semantic, empty_semantic
from vpd.train.dense.run import Recipe, run
from vpd.train.dense.stream import Augment, augmented_label
from vpd.train.dense.table import DenseBatch, label
from vpd.train.dense.training import DenseRun
from vpd.train.distributed import group, total
from vpd.train.loop.optimizer import Rule, semantic_rule

__all__ = ["RECIPE", "DenseData", "SemanticTrainConfig", "SemanticTraining", "train"]


class SemanticTraining(ConditionedTraining):
    """Cross-entropy of every pixel that has a class, and that of the auxiliary head if there is
    one."""

    monitor, mode = "mIoU", "max"
    config: SemanticTrainConfig

    def __init__(self, config: SemanticTrainConfig, run: DenseRun) -> None:
        super().__init__(config, run)
        self._ignored: int = getattr(run.val, "ignore_index", 255)
        self._valid = (-1, 0.0)  # step, and what its loss is divided by

    def losses(self, step: int, rows: slice) -> dict[str, Tensor]:
        config, model = self.config, self.run.model
        batch = self.table.draw(step, rows)
        context = self.context(batch)
        out = self.features(batch, context)
        # Dropout of some rows of a step is the same whenever, and by whomever, they are computed.
        first = rows.indices(config.loop.batch)[0]
        generator = named_generator(self.device, "dropout", config.seed, step, first)
        scores = model.scores(out, generator=generator)
        found = segmentation_sums(scores, batch.targets, ignore_index=self._ignored)
        pixels = self._pixels(step, batch.targets)
        loss = found.cross_entropy / pixels
        if config.auxiliary:
            scores = model.aux_scores(out, generator=generator)
            extra = segmentation_sums(scores, batch.targets, ignore_index=self._ignored)
            loss = loss + config.aux_weight * extra.cross_entropy / pixels
        tags = self.tag_sums(context, batch)
        if tags:
            loss = loss + config.tag_weight * tags["tag_loss"]
        return {"loss": loss, "correct": found.correct, "valid": found.valid, **tags}

    def seen_classes(self, batch: DenseBatch) -> Tensor:
        count = len(self.run.model.config.classes)
        found = torch.zeros(len(batch.targets), count + 1, dtype=torch.bool, device=self.device)
        labels = batch.targets.flatten(1).long()
        labels = labels.masked_fill(labels == self._ignored, count)  # into a column of their own
        return found.scatter_(1, labels, True)[:, :count]

    def logged(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss, and the share of the pixels with a class that are right, in percent; of a
        tagging adapter, its own loss and the F1 score of all its decisions."""
        share = 100.0 * sums["correct"] / sums["valid"].clamp(min=1)
        return {"loss": sums["loss"], "accuracy": share} | self.tag_scores(sums)

    def _pixels(self, step: int, targets: Tensor) -> float:
        """What the whole batch's cross-entropy is divided by."""
        if self.config.average == "all":
            return float(self.config.loop.batch * targets[0].numel())
        if self._valid[0] != step:
            count = torch.zeros((), device=self.device)
            for number in range(self.shares.passes):
                count += self._labelled(step, number)
            self._valid = (step, max(1.0, float(total({"valid": count})["valid"])))
        return self._valid[1]

    def _labelled(self, step: int, number: int) -> Tensor:
        """Pixels with a class in one of this process's passes."""
        return (self.table.targets(step, self.shares.part(number)) != self._ignored).sum()

    def rule(self) -> Rule:
        config = self.config
        return semantic_rule(self.named_parameters(), config.unet_lr_mult, config.mmcv_key_quirk)

    def evaluate(self, limit: int | None, progress: bool = False) -> dict[str, float]:
        return evaluate_semantic(
            self.scored,
            self.run.val,
            words=self.config.words,
            batch=self.config.eval_batch,
            limit=limit,
            progress=progress,
            group=group(),
        ).metrics


def _augment(config: SemanticTrainConfig, data: Any) -> Augment:
    crop = sides(config.crop)
    augmentation = SemanticAugmentation(
        scale=config.resize_to or (4 * min(crop), min(crop)),
        ratio=config.ratio,
        crop=crop,
        ignore_index=data.ignore_index,
    )
    return augmented_label(augmentation, crop)


RECIPE = Recipe(
    "semantic", build_semantic, empty_semantic, SemanticTraining, label, _augment, said_words,
    present_classes,
)  # fmt: skip


def train(config: SemanticTrainConfig) -> dict[str, float]:
    """Trains a semantic segmenter: :func:`vpd.train.dense.run.run`."""
    return run(config, RECIPE)
