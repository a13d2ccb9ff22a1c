"""Training of monocular depth: VPD's recipe (Zhao et al. 2023, section 4.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vpd.data.augment import DepthAugmentation
from vpd.losses import silog_loss
from vpd.tasks.evaluate_dense import evaluate_depth
from vpd.train.dense.config import DepthTrainConfig
from vpd.train.dense.fields import DenseData
from vpd.train.dense.model import build_depth, empty_depth
from vpd.train.dense.run import Recipe, run
from vpd.train.dense.stream import Augment, augmented_depth
from vpd.train.dense.table import depth_target
from vpd.train.dense.training import DenseTraining
from vpd.train.distributed import group
from vpd.train.loop.optimizer import Rule, matrix_rule

__all__ = ["RECIPE", "DenseData", "DepthTrainConfig", "DepthTraining", "train"]


class DepthTraining(DenseTraining):
    """The scale-invariant log error. That of a batch is no sum over its rows: where it is taken in
    parts, its loss is their mean, as VPD's over GPUs."""

    monitor, mode = "rmse", "min"
    config: DepthTrainConfig

    def losses(self, step: int, rows: slice) -> dict[str, Tensor]:
        config = self.config
        batch = self.table.draw(step, rows)
        size = (batch.targets.shape[-2], batch.targets.shape[-1])
        found = self.run.model.depth(self.features(batch), size)[:, 0]
        loss = silog_loss(found, batch.targets, variance_focus=config.variance_focus)
        return {"loss": loss * (len(found) / config.loop.batch)}

    def rule(self) -> Rule:
        return matrix_rule(self.config.unet_lr_mult)

    def evaluate(self, limit: int | None, progress: bool = False) -> dict[str, float]:
        config = self.config
        return evaluate_depth(
            self.scored,
            self.run.val,
            windows=config.windows,
            flip=config.flip_test,
            crop=config.metric_crop,
            limit=limit,
            progress=progress,
            group=group(),
        ).metrics


def _augment(config: DepthTrainConfig, data: Any) -> Augment:
    augmentation = DepthAugmentation(
        short_side=config.crop,  # as in the test; NYUv2's 480 x 640 stay as they are at crop 480
        crop=(config.crop, config.crop),
        cutdepth_cast=config.cutdepth_cast,
        max_depth_m=config.max_depth,
    )
    return augmented_depth(augmentation, config.crop)


def _scene(config: DepthTrainConfig, data: Any) -> Callable[[Any], int]:
    return lambda sample: int(sample.scene)


RECIPE = Recipe("depth", build_depth, empty_depth, DepthTraining, depth_target, _augment, _scene)


def train(config: DepthTrainConfig) -> dict[str, float]:
    """Trains a depth estimator: :func:`vpd.train.dense.run.run`."""
    return run(config, RECIPE)
