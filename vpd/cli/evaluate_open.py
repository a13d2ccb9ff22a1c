"""``vpd evaluate`` of open-vocabulary segmenters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpd.cli.answer import Answer
from vpd.cli.launch import Launch, answered, scored
from vpd.cli.models import DType

if TYPE_CHECKING:
    from vpd.tasks.dense_evaluation import DenseEvaluation
    from vpd.tasks.shares import Group

__all__ = ["OWNERS", "evaluate_open_model"]

_TASK = ("open-panoptic",)
# Which options belong to this task alone.
OWNERS = dict.fromkeys(("vocabulary", "by", "shuffled", "without_clip", "alpha", "beta"), _TASK)


def evaluate_open_model(
    model: str,
    weights: list[Path] | None,
    data: Any,
    split: str,
    where: dict[str, Any],
    test: dict[str, Any],
    launch: Launch,
    dtype: DType,
) -> Answer | None:
    """Scores an open-vocabulary model on a split; on Tabletop beside what looks at no picture.

    Args:
        weights: Instead of a model: as for :func:`vpd.tasks.sources.build_open_panoptic`.
        where: Options of :func:`vpd.data.panoptic.panoptic_samples`.
        test: Options of :func:`vpd.tasks.evaluate_open.evaluate_open`; those that are None are left
            to it.
    """
    from vpd.cli.open_vocabulary import open_model
    from vpd.data.panoptic import panoptic_samples
    from vpd.tasks.evaluate_open import evaluate_open
    from vpd.train.distributed import first_in_turn
    from vpd.vocabulary import Vocabulary

    where = {name: value for name, value in where.items() if value is not None}
    test = {name: value for name, value in test.items() if value is not None}
    if "vocabulary" in test:
        test["vocabulary"] = Vocabulary.named(test["vocabulary"])

    def ready() -> Callable[[Group], DenseEvaluation]:
        floors = None
        with first_in_turn():  # which renders what is not there yet
            samples = panoptic_samples(data, split, **where)
            if data == "tabletop" and "root" not in where:
                floors = panoptic_samples(data, "train", by=where.get("by", "shape"))
        network = open_model(model, weights, launch.device, dtype)
        return lambda group: evaluate_open(network, samples, floors=floors, group=group, **test)

    name: str | list[str] = [str(path) for path in weights] if weights else model
    return answered(scored(ready, launch), name)
