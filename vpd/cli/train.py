"""``vpd train``."""

from __future__ import annotations

from vpd.cli.answer import Answer, plain
from vpd.train import refer


def train(config: refer.ReferTrainConfig) -> Answer:
    """Trains a referring segmenter: vpd train --config configs/refer/mini.yaml --data.limit 500.

    An interrupted run goes on from its last checkpoint when started again. The trained model is
    the folder OUT/model.
    """
    return trained(refer.train(config), config.out)


def trained(metrics: dict[str, float], out: str) -> Answer:
    """The answer of a training command."""
    lines = [f"{name:<24} {value:.4g}" for name, value in metrics.items()]
    return Answer(
        plain({"metrics": metrics, "out": out}), "\n".join([*lines, f"wrote {out}/model"])
    )
