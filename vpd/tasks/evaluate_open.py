"""Scores open-vocabulary segmenters: on the names they were trained on, on others, and with names
that are not those of what they stand for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from vpd.tasks.dense_evaluation import DenseEvaluation, shared_samples
from vpd.tasks.evaluate_panoptic import PanopticScores, floor_scores
from vpd.tasks.open_panoptic import OpenPanopticSegmenter
from vpd.tasks.shares import Group, together
from vpd.vocabulary import Vocabulary, data_vocabulary

__all__ = ["evaluate_open", "mixed_up"]

_MEANS = ("PQ", "SQ", "RQ", "AP", "IoU")  # of classes, whose means are given for a part of them
_MEAN_NAMES = {"AP": "mAP", "IoU": "mIoU"}


def evaluate_open(
    model: OpenPanopticSegmenter,
    samples: Any,
    vocabulary: Vocabulary | None = None,
    *,
    shuffled: bool = False,
    without_clip: bool = False,
    min_score: float | None = None,
    min_overlap: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    limit: int | None = None,
    per_class: bool = False,
    floors: Any = None,
    progress: bool = True,
    group: Group = None,
) -> DenseEvaluation:
    """Scores an open-vocabulary panoptic segmenter as :func:`vpd.tasks.evaluate_panoptic` does.

    ``PQ``, ``mAP``, ``mIoU`` and the rest are of all categories; ``seen/PQ`` ... of those things
    that share a name with one that the model was trained on, ``held_out/PQ`` ... of the other
    things, where there are such. With ``shuffled``, ``shuffled/held_out/PQ`` ... are of the same
    pictures when the names of all things are mixed up (:func:`mixed_up`): what is left is not
    owed to words. ``no_clip/PQ``, ``no_clip/held_out/PQ``, ``no_clip/shuffled/held_out/PQ`` ... are
    of the same masks by the trained branch alone.

    Args:
        model: Any.
        samples: Pictures with segments: :mod:`vpd.data.panoptic`, or
            ``vpd.data.tabletop.panoptic``.
        vocabulary: Names of the data set's classes, in their order; by default
            :func:`vpd.vocabulary.data_vocabulary`.
        shuffled: Read every picture's masks once more, with names mixed up.
        without_clip: Read them once more without what CLIP says, where it has a say.
        min_score, min_overlap: As the model's call takes them.
        alpha, beta: As :meth:`vpd.OpenPanopticSegmenter.sought` takes them.
        limit: Only the first so many pictures.
        per_class: Also the scores of each class.
        floors: As for :func:`vpd.tasks.evaluate_panoptic.evaluate_panoptic`.
        progress: Show a bar.
        group: Who shares the pictures; all processes return the scores of all.

    Raises:
        ValueError: A vocabulary of another length than the data set's classes, or one that
            disagrees with it on which are things; and what the model's call raises.
    """
    names, things = tuple(samples.names), tuple(samples.things)
    if vocabulary is None:
        by = getattr(samples, "by", "shape")
        vocabulary = data_vocabulary(samples.name, names, things, by)
    if len(vocabulary) != len(names) or vocabulary.things != things:
        raise ValueError(
            f"vocabulary: expected names and things of {len(names)} classes in their order "
            f"({', '.join(names[:3])}, ...), got {vocabulary!r}"
        )
    plain = model.sought(vocabulary, alpha=alpha, beta=beta)
    asked = {"": plain}
    if shuffled:
        asked["shuffled/"] = model.sought(mixed_up(vocabulary), alpha=alpha, beta=beta)
    if without_clip and model.config.clip_branch != "none":
        alone = {f"no_clip/{k}": one._replace(clip_texts=None) for k, one in asked.items()}
        asked |= alone
    scores = {prefix: PanopticScores(names, things) for prefix in asked}
    seconds = 0.0
    for sample in shared_samples(samples, limit, group, progress):
        image, label = sample.read()
        instances = sample.read_instances()
        start = time.perf_counter()
        every = model.each(
            image, list(asked.values()), min_score=min_score, min_overlap=min_overlap
        )
        seconds += time.perf_counter() - start
        for own, found in zip(scores.values(), every, strict=True):
            own.add(found, label, instances)
    seen = plain.seen
    metrics: dict[str, float] = {}
    every_count, seconds = together(list(scores.values()), seconds, group)
    for prefix, counted in zip(scores, every_count, strict=True):
        of_all = counted.compute(per_class=True)
        for part, wanted in (("seen", True), ("held_out", False)):
            chosen = [
                name
                for name, thing, known in zip(names, things, seen, strict=True)
                if thing and known == wanted
            ]
            means = _means(of_all, chosen) if chosen else {}
            metrics |= {f"{prefix}{part}/{name}": value for name, value in means.items()}
        if not prefix:
            metrics = {k: v for k, v in of_all.items() if per_class or "/" not in k} | metrics
        elif not prefix.endswith("shuffled/"):
            metrics |= {f"{prefix}{name}": of_all[name] for name in ("PQ", "mAP", "mIoU")}
    if floors is not None:
        metrics |= floor_scores(floors, samples, limit)
    config, images = model.config, int(metrics["n"])
    protocol = {
        "task": "open-panoptic",
        "backbone": "unet",
        "preset": "odise",
        "noise": [noise.to_dict() for noise in config.noises],
        "test": {
            "side": config.test_size,
            "min_score": config.min_score if min_score is None else min_score,
            "min_overlap": config.min_overlap if min_overlap is None else min_overlap,
            "clip_branch": config.clip_branch,
            "alpha": plain.alpha,
            "beta": plain.beta,
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
