"""``vpd train``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vpd.cli.answer import Answer, plain
from vpd.train.dense.config import DepthTrainConfig, SemanticTrainConfig
from vpd.train.distributed import join
from vpd.train.edit.config import EditTrainConfig
from vpd.train.open.config import OpenTrainConfig
from vpd.train.panoptic.config import PanopticTrainConfig
from vpd.train.refer.config import ReferTrainConfig


def train(config: ReferTrainConfig) -> Answer | None:
    """Trains a referring segmenter: vpd train --config configs/refer/mini.yaml --data.limit 500.

    An interrupted run goes on from its last checkpoint when started again. The trained model is
    the folder OUT/model. Several processes train together: torchrun --nproc-per-node 4 -m vpd.cli
    train --config ..., or srun.
    """
    from vpd.train.refer.run import train

    return _trained(train, config)


def train_semantic(config: SemanticTrainConfig) -> Answer | None:
    """Trains a semantic segmenter: vpd train semantic --config configs/semantic/mini.yaml.

    An interrupted run goes on from its last checkpoint when started again. The trained model is
    the folder OUT/model. Several processes train together, as with vpd train.
    """
    from vpd.train.dense.semantic import train

    return _trained(train, config)


def train_panoptic(config: PanopticTrainConfig) -> Answer | None:
    """Trains a panoptic segmenter: vpd train panoptic --config configs/panoptic/mini.yaml.

    An interrupted run goes on from its last checkpoint when started again. The trained model is
    the folder OUT/model. Several processes train together, as with vpd train.
    """
    from vpd.train.panoptic.training import train

    return _trained(train, config)


def train_open_panoptic(config: OpenTrainConfig) -> Answer | None:
    """Trains an open-vocabulary panoptic segmenter: vpd train open-panoptic --config
    configs/open/mini_labels.yaml.

    An interrupted run goes on from its last checkpoint when started again. The trained model is
    the folder OUT/model. Several processes train together, as with vpd train.
    """
    from vpd.train.open.run import train

    return _trained(train, config)


def train_depth(config: DepthTrainConfig) -> Answer | None:
    """Trains a depth estimator: vpd train depth --config configs/depth/mini.yaml.

    An interrupted run goes on from its last checkpoint when started again. The trained model is
    the folder OUT/model. Several processes train together, as with vpd train.
    """
    from vpd.train.dense.depth import train

    return _trained(train, config)


def train_edit(config: EditTrainConfig) -> Answer | None:
    """Trains an editor of pictures by instruction: vpd train edit --config configs/edit/mini.yaml.

    An interrupted run goes on from its last checkpoint when started again. The trained model is
    the folder OUT/model. Several processes train together, as with vpd train.
    """
    from vpd.train.edit.run import train

    return _trained(train, config)


def _trained(train: Callable[[Any], dict[str, float]], config: Any) -> Answer | None:
    with join() as processes:
        metrics = train(config)
    return trained(metrics, config.out) if processes.first else None


def trained(metrics: dict[str, float], out: str) -> Answer:
    """The answer of a training command."""
    lines = [f"{name:<24} {value:.4g}" for name, value in metrics.items()]
    return Answer(
        plain({"metrics": metrics, "out": out}), "\n".join([*lines, f"wrote {out}/model"])
    )
