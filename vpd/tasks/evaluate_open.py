"""Scores open-vocabulary segmenters: on the names they were trained on, on others, and with names
that are not those of what they stand for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

from vpd.tasks.dense_evaluation import DenseEvaluation, shared_samples, together
from vpd.tasks.evaluate_panoptic import PanopticScores, floor_scores
from vpd.tasks.open_panoptic import OpenPanopticSegmenter
from vpd.vocabulary import Vocabulary

__all__ = ["evaluate_open", "mixed_up"]

_MEANS = ("PQ", "SQ", "RQ", "AP", "IoU")  # of classes, whose means are given for a part of them
_MEAN_NAMES = {"AP": "mAP", "IoU": "mIoU"}


def evaluate_open(
    model: OpenPanopticSegmenter,
    samples: Any,
    vocabulary: Vocabulary | None = None,
    *,
    shuffled: bool = False,
    min_score: float | None = None,
    min_overlap: float | None = None,
    limit: int | None = None,
    per_class: bool = False,
    floors: Any = None,
    progress: bool = True,
    group: dist.ProcessGroup | None = None,
) -> DenseEvaluation:
    """Scores an open-vocabulary panoptic segmenter as :func:`vpd.tasks.evaluate_panoptic` does.

    ``PQ``, ``mAP``, ``mIoU`` and the rest are of all categories; ``seen/PQ`` ... of those things
    that share a name with one that the model was trained on, ``held_out/PQ`` ... of the other
    things, where there are such. With ``shuffled``, ``shuffled/held_out/PQ`` ... are of the same
    pictures when the names of all things are mixed up (:func:`mixed_up`): what is left is not
    owed to words.

    Args:
        model: Any.
        samples: Pictures with segments: :mod:`vpd.data.panoptic`, or
            ``vpd.data.tabletop.panoptic``.
        vocabulary: Names of the data set's classes, in their order; its own ones by default.
        shuffled: Look at every picture once more, with names mixed up.
        min_score, min_overlap: As the model's call takes them.
        limit: Only the first so many pictures.
        per_class: Also the scores of each class.
        floors: As for :func:`vpd.tasks.evaluate_panoptic.evaluate_panoptic`.
        progress: Show a bar.
        group: Processes that share the pictures; all return the scores of all.

    Raises:
        ValueError: A vocabulary of another length than the data set's classes, or one that
            disagrees with it on which are things; and what the model's call raises.
    """
    names, things = tuple(samples.names), tuple(samples.things)
    if vocabulary is None:
        vocabulary = Vocabulary(tuple((name,) for name in names), things)
    if len(vocabulary) != len(names) or vocabulary.things != things:
        raise ValueError(
            f"vocabulary: expected names and things of {len(names)} classes in their order "
            f"({', '.join(names[:3])}, ...), got {vocabulary!r}"
        )
    asked = {"": model.sought(vocabulary)}
    if shuffled:
        asked["shuffled/"] = model.sought(mixed_up(vocabulary))
    scores = {prefix: PanopticScores(names, things) for prefix in asked}
    seconds = 0.0
    for sample in shared_samples(samples, limit, group, progress):
        image, label = sample.read()
        instances = sample.read_instances()
        for prefix, sought in asked.items():
            start = time.perf_counter()
            found = model.panoptic(image, sought, min_score=min_score, min_overlap=min_overlap)
            seconds += 0.0 if prefix else time.perf_counter() - start
            scores[prefix].update(found, found.classes, label)
            scores[prefix].instances.update(found.instances, instances)
    seen = asked[""].seen
    metrics: dict[str, float] = {}
    for prefix, own in scores.items():
        counted, spent = together(own, 0.0 if prefix else seconds, group)
        seconds = seconds if prefix else spent
        every = counted.compute(per_class=True)
        for part, wanted in (("seen", True), ("held_out", False)):
            chosen = [
                name
                for name, thing, known in zip(names, things, seen, strict=True)
                if thing and known == wanted
            ]
            means = _means(every, chosen) if chosen else {}
            metrics |= {f"{prefix}{part}/{name}": value for name, value in means.items()}
        if not prefix:
            metrics = {k: v for k, v in every.items() if per_class or "/" not in k} | metrics
    if floors is not None:
        metrics |= floor_scores(floors, samples, limit)
    config, images = model.config, int(metrics["n"])
    protocol = {
        "task": "open-panoptic",
        "preset": "odise",
        "noise": [noise.to_dict() for noise in config.noises],
        "test": {
            "side": config.test_size,
            "min_score": config.min_score if min_score is None else min_score,
            "min_overlap": config.min_overlap if min_overlap is None else min_overlap,
            "clip_branch": config.clip_branch,
            "alpha": config.alpha,
            "beta": config.beta,
        },
        "supervision": config.supervision,
        "seen": [name for name, known in zip(names, seen, strict=True) if known],
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "data": samples.name,
        "split": samples.split,
        "images": images,
    }
    return DenseEvaluation(metrics, protocol, seconds / max(images, 1))


def mixed_up(vocabulary: Vocabulary) -> Vocabulary:
    """The same categories, each thing under the names of the next one; stuff keeps its own.

    Raises:
        ValueError: Fewer than two things.
    """
    places = [i for i, thing in enumerate(vocabulary.things) if thing]
    if len(places) < 2:
        raise ValueError(f"expected at least two things to mix up, got {len(places)}")
    categories = list(vocabulary.categories)
    for place, other in zip(places, [*places[1:], places[0]], strict=True):
        categories[place] = vocabulary.categories[other]
    return Vocabulary(tuple(categories), vocabulary.things)


def _means(scores: dict[str, float], names: Sequence[str]) -> dict[str, float]:
    """Means over some classes, of those that have a score."""
    found = {}
    for kind in _MEANS:
        own = [scores[f"{kind}/{name}"] for name in names if f"{kind}/{name}" in scores]
        found[_MEAN_NAMES.get(kind, kind)] = sum(own) / max(len(own), 1)
    return found
