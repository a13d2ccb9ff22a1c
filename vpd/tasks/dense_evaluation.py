"""What scoring of models with a value for every pixel shares: the pictures, what is counted, and
what it is labelled with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vpd.metrics import TagMetrics
from vpd.tasks.dense import DenseConfig, DenseModel
from vpd.tasks.evaluation import Scored, preset_name
from vpd.tasks.samples import check_counts
from vpd.tasks.shares import Group, own_part, speaks
from vpd.tasks.words import Words

__all__ = [
    "DenseEvaluation",
    "TagScores",
    "add_condition",
    "check_names",
    "evaluation_of",
    "shared_samples",
]


@dataclass(frozen=True)
class DenseEvaluation(Scored):
    """Scores of a model with a value for every pixel; ``floor/<name>``: of a prediction that looks
    at no picture."""

    tags: TagMetrics | None = None
    """Of models with the tagging adapter: what was counted for ``tags/...``, also for curves."""

    def table(self) -> str:
        """The scores as text."""
        p = self.protocol
        how = ", ".join(f"{k} {v}" for k, v in p["test"].items())
        lines = [
            f"{p['data']} {p['split']}: {p['images']} images, {_input(p)}",
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


def _input(protocol: dict[str, Any]) -> str:
    if protocol["backbone"] == "vit":
        return "features of a vision transformer"
    return f"protocol {protocol['preset']}"


def check_names(model: Sequence[str], data: Sequence[str]) -> None:
    """Raises ValueError unless a model and a data set have the same classes."""
    if tuple(data) != tuple(model):
        raise ValueError(
            f"the model has {len(model)} classes ({', '.join(model[:3])}, ...), the data set "
            f"{len(data)} ({', '.join(data[:3])}, ...): expected the same"
        )


def shared_samples(samples: Any, limit: int | None, group: Group, progress: bool) -> Iterator[Any]:
    """This process's share of the pictures."""
    from tqdm import tqdm

    check_counts(limit=limit)
    places = own_part(range(min(len(samples), limit or len(samples))), group)
    title = f"{samples.name} {samples.split}"
    hidden = not progress or not speaks(group)
    yield from (samples[i] for i in tqdm(places, desc=title, unit="image", disable=hidden))


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
        **_backbone(config),
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


def _backbone(config: DenseConfig) -> dict[str, Any]:
    """What the head reads, and under which noise."""
    if config.vit is not None:
        return {"backbone": "vit", "vit": asdict(config.vit), "noise": None, "preset": "none"}
    noise = config.noise
    return {"backbone": "unet", "noise": noise.to_dict(), "preset": preset_name(noise)}


def add_condition(
    found: DenseEvaluation, condition: str, source: Words | None, told: Sequence[TagMetrics]
) -> DenseEvaluation:
    """Labels scores with what the U-Net was told; an oracle's hold ``oracle`` = 1. ``told`` are the
    :attr:`TagScores.counts` of all processes."""
    if condition == "oracle":
        found.metrics["oracle"] = 1.0
    found.protocol["condition"] = condition
    found.protocol["oracle"] = condition == "oracle"
    found.protocol["words"] = None if source is None else source.source
    return replace(found, tags=told[0] if told else None)


class TagScores:
    """How well a model's tagging adapter, if it has one, finds the classes of each label, beside
    the same scores on other pictures' labels."""

    def __init__(self, model: Any) -> None:
        self._model = model
        classes = len(model.config.classes)
        self._metrics = TagMetrics(classes) if model.config.condition == "tagging" else None

    def update(self, image: np.ndarray, words: Any, classes: np.ndarray) -> None:
        """Adds a picture and the ids in its label."""
        if self._metrics is not None:
            found = self._model.tags(image, words=words).scores
            true = np.isin(np.arange(self._metrics.num_classes), classes)
            self._metrics.update(found[None], true[None])

    @property
    def counts(self) -> list[TagMetrics]:
        """What was counted, if anything is."""
        return [] if self._metrics is None else [self._metrics]

    @staticmethod
    def compute(counts: Sequence[TagMetrics]) -> dict[str, float]:
        """The scores of :attr:`counts`, those of others added."""
        if not counts:
            return {}
        (tags,) = counts
        found = tags.compute()
        chosen = {name: found[name] for name in ("mAP", "OF1")}
        chosen["shuffled/mAP"] = tags.shuffled().compute()["mAP"]
        return {f"tags/{name}": value for name, value in chosen.items()}
