"""``vpd evaluate`` of semantic segmenters and depth estimators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vpd.cli.answer import Answer, plain
from vpd.cli.models import DType

__all__ = ["DENSE", "OWNERS", "evaluate_dense"]

DENSE = ("semantic", "depth")
# Which options belong to some tasks alone; all others here to referring segmentation.
OWNERS = {
    "mode": ("semantic",),
    "scales": ("semantic",),
    "variant": ("semantic",),
    "per_class": ("semantic",),
    "flip": DENSE,
    "windows": ("depth",),
    "crop": ("depth",),
}


def evaluate_dense(
    task: Any,
    model: str,
    data: Any,
    root: Path | None,
    split: str,
    limit: int | None,
    test: dict[str, Any],
    batch: int,
    device: str,
    dtype: DType,
) -> Answer | None:
    """Scores a model on a split; on Tabletop beside what looks at no picture.

    Args:
        test: Options of :func:`vpd.tasks.evaluate_dense.evaluate_semantic` or ``evaluate_depth``;
            those that are None are left to them.
    """
    test = {name: value for name, value in test.items() if value is not None}
    if task == "semantic":
        test["batch"] = batch
    elif data == "nyuv2":
        test.setdefault("crop", "nyu_eigen")
    from vpd.cli.models import dense_model
    from vpd.data.dense import dense_samples
    from vpd.tasks.evaluate_dense import evaluate_depth, evaluate_semantic
    from vpd.train.distributed import first_in_turn, group, join

    with join() as processes:
        floors = None
        with first_in_turn():  # which renders what is not there yet
            samples = dense_samples(task, data, split, root=root, limit=limit)
            if data == "tabletop" and root is None:
                floors = dense_samples(task, data, "train")
        network: Any = dense_model(task, model, device, dtype)
        score: Any = evaluate_semantic if task == "semantic" else evaluate_depth
        found = score(network, samples, floors=floors, group=group(), **test)
    if not processes.first:
        return None
    result = found.to_dict()
    result["protocol"] = {"model": model, **result["protocol"]}
    return Answer(plain(result), f"{model} on {found.table()}")
