"""``vpd evaluate`` of semantic segmenters and depth estimators."""

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

__all__ = ["DENSE", "OWNERS", "evaluate_dense"]

DENSE = ("semantic", "panoptic", "depth")
# Which options belong to some tasks alone; others that are checked to referring segmentation.
OWNERS = {
    "reduce_zero_label": ("semantic",),
    "units_per_metre": ("depth",),
    "scene": ("depth",),
    "mode": ("semantic",),
    "scales": ("semantic",),
    "variant": ("semantic",),
    "per_class": ("semantic", "panoptic", "open-panoptic"),
    "words": ("semantic", "panoptic"),
    "tag_curves": ("semantic", "panoptic"),
    "flip": ("semantic", "depth"),
    "min_score": ("panoptic", "open-panoptic"),
    "min_overlap": ("panoptic", "open-panoptic"),
    "windows": ("depth",),
    "crop": ("depth",),
}


def evaluate_dense(
    task: Any,
    model: str,
    data: Any,
    split: str,
    where: dict[str, Any],
    test: dict[str, Any],
    protocol: str | None,
    t: int,
    conditions: dict[str, Any],
    launch: Launch,
    dtype: DType,
    curves: Path | None = None,
) -> Answer | None:
    """Scores a model on a split; on Tabletop beside what looks at no picture.

    Args:
        where: Options of :func:`vpd.data.dense.dense_samples`.
        test: Options of :func:`vpd.tasks.evaluate_dense.evaluate_semantic`, ``evaluate_depth`` or
            ``evaluate_panoptic``; those that are None are left to them.
        protocol, t: Noise instead of the model's own, if there is a protocol.
        conditions: Options of :func:`vpd.tasks.evaluation.under`.
        curves: Picture to draw of how well the tagging adapter finds the classes.
    """
    from vpd.cli.models import dense_model
    from vpd.cli.pictures import draw_tag_curves
    from vpd.data.dense import dense_samples
    from vpd.tasks import evaluate_dense as dense
    from vpd.tasks.evaluate_panoptic import evaluate_panoptic
    from vpd.tasks.evaluation import under
    from vpd.tasks.maps import at_timestep
    from vpd.train.distributed import first_in_turn

    if curves is not None and curves.suffix != ".png":
        raise ValueError(f"{curves}: expected a name ending in .png")
    test = {name: value for name, value in test.items() if value is not None}
    if task == "semantic":
        test.setdefault("batch", 16)
    elif "batch" in test:
        one = "window" if task == "depth" else "image"
        raise ValueError(f"batch is no option of {task}, which predicts one {one} after another")
    elif data == "nyuv2":
        test.setdefault("crop", "nyu_eigen")

    def ready() -> Callable[[Group], DenseEvaluation]:
        floors = None
        with first_in_turn():  # which renders what is not there yet
            samples = dense_samples(task, data, split, **where)
            if data == "tabletop" and where["root"] is None:
                floors = dense_samples(task, data, "train")
        network: Any = dense_model(task, model, launch.device, dtype)
        if curves is not None and network.config.condition != "tagging":
            raise ValueError(
                "tag_curves are of models with condition=tagging, got one with "
                f"condition={network.config.condition}"
            )
        _check_adapter(network.config, conditions["text_adapter"])
        noise = None if protocol is None else at_timestep(protocol, t, network.config.noise)
        network = under(network, noise, **conditions)
        score: Any = {
            "semantic": dense.evaluate_semantic,
            "panoptic": evaluate_panoptic,
            "depth": dense.evaluate_depth,
        }[task]
        return lambda group: score(network, samples, floors=floors, group=group, **test)

    found = scored(ready, launch)
    if found is not None and found.tags is not None and curves is not None:
        draw_tag_curves(found.tags, curves)
    return answered(found, model)


def _check_adapter(config: Any, wanted: bool | None) -> None:
    """Refuses a choice about a text adapter that the model does not have."""
    condition = getattr(config, "condition", "classes")
    if wanted is not None and condition != "classes":
        raise ValueError(f"text_adapter: a model with condition={condition} has none")
    if wanted and not config.text_adapter:
        raise ValueError("text_adapter: this model was trained without one")
