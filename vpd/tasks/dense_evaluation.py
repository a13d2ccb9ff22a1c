"""What scoring of models with a value for every pixel shares: the pictures, what is counted, and
what it is labelled with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from vpd.metrics import TagMetrics
from vpd.tasks.dense import DenseModel
from vpd.tasks.evaluation import preset_name
from vpd.tasks.samples import check_counts
from vpd.tasks.words import Words

__all__ = [
    "DenseEvaluation",
    "add_condition",
    "check_names",
    "evaluation_of",
    "shared_samples",
    "tag_scores",
    "together",
]


@dataclass(frozen=True)
class DenseEvaluation:
    """Scores of one model on one split."""

    metrics: dict[str, float]
    """By name; ``floor/<name>``: of a prediction that looks at no picture."""
    protocol: dict[str, Any]
    """How they were made."""
    seconds_per_image: float
    """Of the prediction, without reading the picture."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "metrics": self.metrics,
            "protocol": self.protocol,
            "seconds_per_image": self.seconds_per_image,
        }

    def table(self) -> str:
        """The scores as text."""
        p = self.protocol
        how = ", ".join(f"{k} {v}" for k, v in p["test"].items())
        lines = [
            f"{p['data']} {p['split']}: {p['images']} images, protocol {p['preset']}",
            f"test: {how}",
        ]
        if p.get("oracle"):
            lines.append("ORACLE: told the classes in each picture's label; no result of a test")
        if p.get("words"):
            lines.append(f"told about each picture: {p['words']}")
        lines += [
            f"{name:<28}{value:>9.{self._digits(name)}f}" for name, value in self.metrics.items()
        ]
        return "\n".join([*lines, f"{self.seconds_per_image:.3f} seconds per image"])

    def _digits(self, name: str) -> int:
        if name == "n" or name.startswith("classes"):
            return 0
        return 4 if self.protocol["task"] == "depth" else 2


def check_names(model: Sequence[str], data: Sequence[str]) -> None:
    """Raises ValueError unless a model and a data set have the same classes."""
    if tuple(data) != tuple(model):
        raise ValueError(
            f"the model has {len(model)} classes ({', '.join(model[:3])}, ...), the data set "
            f"{len(data)} ({', '.join(data[:3])}, ...): expected the same"
        )


def shared_samples(
    samples: Any, limit: int | None, group: dist.ProcessGroup | None, progress: bool
) -> Iterator[Any]:
    """This process's share of the pictures."""
    from tqdm import tqdm

    check_counts(limit=limit)
    rank, size = (0, 1) if group is None else (group.rank(), group.size())
    places = range(min(len(samples), limit or len(samples)))[rank::size]
    title = f"{samples.name} {samples.split}"
    hidden = not progress or rank > 0
    yield from (samples[i] for i in tqdm(places, desc=title, unit="image", disable=hidden))


def together(metrics: Any, seconds: float, group: dist.ProcessGroup | None) -> tuple[Any, float]:
    """What all processes have counted, and their time, in the same order everywhere."""
    if group is None:
        return metrics, seconds
    found: list[Any] = [None] * group.size()
    dist.all_gather_object(found, (metrics, seconds), group=group)
    total, spent = found[0]
    for theirs, more in found[1:]:
        total.merge(theirs)
        spent += more
    return total, spent


def evaluation_of(
    task: str,
    model: DenseModel[Any],
    samples: Any,
    scores: dict[str, float],
    scored: dict[str, Any],
    test: dict[str, Any],
    seconds: float,
) -> DenseEvaluation:
    config = model.config
    images = int(scores["n"]) + int(scores.get("skipped", 0))
    protocol = {
        "task": task,
        "noise": config.noise.to_dict(),
        "preset": preset_name(config.noise),
        "metrics": scored,
        "test": test,
        "text_adapter": config.text_adapter,
        "image_norm": config.image_norm,
        "attention": list(config.attention),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "data": samples.name,
        "split": samples.split,
        "images": images,
    }
    return DenseEvaluation(scores, protocol, seconds / max(images, 1))


def add_condition(found: DenseEvaluation, condition: str, source: Words | None) -> DenseEvaluation:
    """Labels scores with what the U-Net was told; an oracle's hold ``oracle`` = 1."""
    if condition == "oracle":
        found.metrics["oracle"] = 1.0
    found.protocol["condition"] = condition
    found.protocol["oracle"] = condition == "oracle"
    found.protocol["words"] = None if source is None else source.source
    return found


def tag_scores(tags: TagMetrics) -> dict[str, float]:
    """How well a tagging adapter finds the classes of a label, beside the same scores on other
    pictures' labels."""
    found = tags.compute()
    chosen = {name: found[name] for name in ("mAP", "OF1")}
    chosen["shuffled/mAP"] = tags.shuffled().compute()["mAP"]
    return {f"tags/{name}": value for name, value in chosen.items()}
