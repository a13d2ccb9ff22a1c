"""Scores panoptic segmenters: segments, objects and classes of every picture in one pass."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpd.data.segments import Instance, PanopticLabel, Segment, SegmentMap
from vpd.metrics import InstanceMetrics, PanopticMetrics, SemanticMetrics
from vpd.tasks.dense_evaluation import (
    DenseEvaluation,
    TagScores,
    add_condition,
    check_names,
    evaluation_of,
    shared_samples,
)
from vpd.tasks.panoptic import PanopticSegmenter
from vpd.tasks.panoptic_results import PanopticResult
from vpd.tasks.shares import Group, together
from vpd.tasks.words import words_of

__all__ = ["PanopticScores", "evaluate_panoptic", "floor_scores"]

_SEMANTIC = ("mIoU", "mAcc", "aAcc", "fwIoU")


def evaluate_panoptic(
    model: PanopticSegmenter,
    samples: Any,
    *,
    min_score: float | None = None,
    min_overlap: float | None = None,
    words: str | Path | None = None,
    limit: int | None = None,
    per_class: bool = False,
    floors: Any = None,
    progress: bool = True,
    group: Group = None,
) -> DenseEvaluation:
    """Scores a panoptic segmenter: PQ, SQ and RQ of all classes, things and stuff
    (:class:`vpd.metrics.PanopticMetrics`), mask AP of its objects
    (:class:`vpd.metrics.InstanceMetrics`), and mIoU of its classes
    (:class:`vpd.metrics.SemanticMetrics`, over labelled classes).

    Args:
        model: Any.
        samples: Pictures with segments: :mod:`vpd.data.panoptic`, or
            ``vpd.data.tabletop.panoptic``.
        min_score, min_overlap: As the model's call takes them.
        words: JSON file of captions or tags by picture, where the model is told such: see
            :func:`vpd.tasks.words.words_of`. An oracle is told the classes in each label; its
            scores hold ``oracle`` = 1.
        limit: Only the first so many pictures.
        per_class: Also the scores of each class.
        floors: Samples of the training split: ``floor/PQ`` and ``floor/mIoU`` then are those of the
            class that is most frequent there at each place; all pictures must have one size.
        progress: Show a bar.
        group: Who shares the pictures; all processes return the scores of all.

    Raises:
        ValueError: Names of classes, or which of them are things, that are not the model's, and
            what the model's call raises.
    """
    config = model.config
    check_names(config.classes, samples.names)
    if tuple(samples.things) != tuple(config.things):
        raise ValueError(
            f"the model and the data set disagree on which of {', '.join(config.classes[:3])}, ... "
            "are things: expected the same"
        )
    scores = PanopticScores(config.classes, config.things)
    tags = TagScores(model)
    source = words_of(config.condition, config.tag_source, samples, words)
    seconds = 0.0
    for sample in shared_samples(samples, limit, group, progress):
        image, label = sample.read()
        said = None if source is None else source(sample)
        start = time.perf_counter()
        result = model(image, words=said, min_score=min_score, min_overlap=min_overlap)
        seconds += time.perf_counter() - start
        scores.add(result, label, sample.read_instances())
        tags.update(image, said, np.array([s.category for s in label.segments], np.int64))
    (scores, *told), seconds = together([scores, *tags.counts], seconds, group)
    found = scores.compute(per_class) | tags.compute(told)
    if floors is not None:
        found |= floor_scores(floors, samples, limit)
    test = {
        "mode": "whole",
        "side": config.image_size,
        "min_score": config.min_score if min_score is None else min_score,
        "min_overlap": config.min_overlap if min_overlap is None else min_overlap,
    }
    how = {"mIoU": scores.semantic.protocol(), "things": sum(config.things)}
    result_of = evaluation_of("panoptic", model, samples, found, how, test, seconds)
    return add_condition(result_of, config.condition, source, told)


class PanopticScores:
    """Segments, objects and classes of pictures, counted together.

    Args:
        names: Of the classes.
        things: By class, whether it has countable objects.
    """

    def __init__(self, names: Sequence[str], things: Sequence[bool]) -> None:
        self._names, self._things = names, things
        self.segments = PanopticMetrics(things, names)
        self.instances = InstanceMetrics(len(names), names)
        self.ignore = 255 if len(names) <= 255 else len(names)
        self.semantic = SemanticMetrics(len(names), self.ignore, "d2", names)

    def add(
        self, found: PanopticResult, label: PanopticLabel, instances: Sequence[Instance]
    ) -> None:
        """Adds a picture's segments, classes and objects; sums over its segments as one number, so
        that they are the same wherever it was counted."""
        one = PanopticScores(self._names, self._things)
        one.update(found, found.classes, label)
        one.instances.update(found.instances, instances)
        self.merge(one)

    def update(self, found: SegmentMap, classes: np.ndarray, label: PanopticLabel) -> None:
        """Adds a picture's segments and classes."""
        self.segments.update(found, label)
        self.semantic.update(classes, label.semantic(self.ignore))

    def merge(self, other: PanopticScores) -> None:
        self.segments.merge(other.segments)
        self.instances.merge(other.instances)
        self.semantic.merge(other.semantic)

    def compute(self, per_class: bool = False) -> dict[str, float]:
        found = self.segments.compute(per_class=per_class)
        pictures = found.pop("n")
        objects = self.instances.compute(per_class=per_class)
        pixels = self.semantic.compute(per_class=per_class)
        found |= {name: value for name, value in objects.items() if name != "n"}
        kept = (n for n in pixels if n in _SEMANTIC or n.startswith("IoU/"))
        return found | {name: pixels[name] for name in kept} | {"n": pictures}


def floor_scores(train: Any, samples: Any, limit: int | None) -> dict[str, float]:
    """Scores of the training split's most frequent class at each place, a segment each."""
    if not len(train):
        raise ValueError("floors: expected pictures of a training split, got none")
    count = len(samples.names)
    shape = train[0].read_label().ids.shape
    counts = np.zeros((count, *shape), np.int32)
    for sample in train:
        classes = sample.read_label().semantic(count)
        for index in range(count):
            counts[index] += classes == index
    usual = counts.argmax(0)
    guess = PanopticLabel(
        (usual + 1).astype(np.int32), tuple(Segment(int(c) + 1, int(c)) for c in np.unique(usual))
    )
    scores = PanopticScores(samples.names, samples.things)
    for i in range(min(len(samples), limit or len(samples))):
        scores.update(guess, usual, samples[i].read_label())
    found = scores.compute()
    return {f"floor/{name}": found[name] for name in ("PQ", "mIoU")}
