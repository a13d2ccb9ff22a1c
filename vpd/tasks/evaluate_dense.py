"""Scores segmenters and depth estimators: every picture of a split as a user would have it
predicted, compared at its own size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vpd.metrics import DepthMetrics, SemanticMetrics
from vpd.metrics.depth import DepthCrop
from vpd.tasks.dense_evaluation import (
    DenseEvaluation,
    TagScores,
    add_condition,
    check_names,
    evaluation_of,
    shared_samples,
)
from vpd.tasks.depth import DepthEstimator
from vpd.tasks.semantic import SemanticSegmenter
from vpd.tasks.shares import Group, together
from vpd.tasks.words import words_of

__all__ = ["DenseEvaluation", "evaluate_depth", "evaluate_semantic"]


def evaluate_semantic(
    model: SemanticSegmenter,
    samples: Any,
    *,
    mode: Literal["slide", "whole"] = "slide",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    batch: int = 4,
    words: str | Path | None = None,
    limit: int | None = None,
    variant: Literal["mmseg", "d2"] = "mmseg",
    per_class: bool = False,
    floors: Any = None,
    progress: bool = True,
    group: Group = None,
) -> DenseEvaluation:
    """Scores a semantic segmenter (:class:`vpd.metrics.SemanticMetrics`).

    Args:
        model: Any.
        samples: Labelled pictures: :mod:`vpd.data.semantic`, or ``vpd.data.tabletop.semantic``.
        mode, scales, flip, batch: As the model's call takes them.
        words: JSON file of captions or tags by picture, where the model is told such: see
            :func:`vpd.tasks.words.words_of`. An oracle is told the classes in each label; its
            scores hold ``oracle`` = 1.
        limit: Only the first so many pictures.
        variant: Which classes the mean is taken over.
        per_class: Also the IoU of each class.
        floors: Samples of the training split: ``floor/mIoU`` then is that of its most frequent
            class, predicted everywhere.
        progress: Show a bar.
        group: Who shares the pictures; all processes return the scores of all.

    Raises:
        ValueError: Names of classes that are not the model's, and what the model's call raises.
    """
    names = model.config.classes
    check_names(names, samples.names)
    config = model.config
    metrics = SemanticMetrics(len(names), samples.ignore_index, variant, names)
    tags = TagScores(model)
    source = words_of(config.condition, config.tag_source, samples, words)
    seconds = 0.0
    for sample in shared_samples(samples, limit, group, progress):
        image, label = sample.read()
        said = None if source is None else source(sample)
        start = time.perf_counter()
        result = model(image, words=said, mode=mode, scales=scales, flip=flip, batch=batch)
        seconds += time.perf_counter() - start
        metrics.update(result.classes, label)
        tags.update(image, said, label)
    (metrics, *told), seconds = together([metrics, *tags.counts], seconds, group)
    scores = metrics.compute(per_class=per_class) | tags.compute(told)
    if floors is not None:
        scores["floor/mIoU"] = _majority(floors, samples, limit, metrics)
    test = {"mode": mode, "scales": list(scales), "flip": flip, "window": model.config.image_size}
    found = evaluation_of("semantic", model, samples, scores, metrics.protocol(), test, seconds)
    return add_condition(found, config.condition, source, told)


def evaluate_depth(
    model: DepthEstimator,
    samples: Any,
    *,
    windows: int | None = None,
    flip: bool = True,
    crop: DepthCrop = "none",
    limit: int | None = None,
    floors: Any = None,
    progress: bool = True,
    group: Group = None,
) -> DenseEvaluation:
    """Scores a depth estimator (:class:`vpd.metrics.DepthMetrics`).

    Args:
        model: Any.
        samples: Pictures with depth: :mod:`vpd.data.depth`, or ``vpd.data.tabletop.depth``. Each
            is predicted under its own type of scene, as VPD does.
        windows, flip: As the model's call takes them.
        crop: Where pixels count; ``nyu_eigen`` for NYUv2.
        limit: Only the first so many pictures.
        floors: Samples of the training split: ``floor/...`` then are the scores of their mean depth
            at each place.
        progress: Show a bar.
        group: Who shares the pictures; all processes return the scores of all.

    Raises:
        ValueError: A type of scene that the model does not know, and what the model's call raises.
    """
    scenes = model.config.scenes
    unknown = [scene for scene in samples.scenes if scene not in scenes]
    if unknown:
        raise ValueError(
            f"the model knows {len(scenes)} types of scenes ({', '.join(scenes[:3])}, ...), the "
            f"data set has {unknown[0]!r} besides"
        )
    metrics = DepthMetrics(max_depth=model.config.max_depth, crop=crop)
    seconds = 0.0
    for sample in shared_samples(samples, limit, group, progress):
        image, depth_m = sample.read()
        start = time.perf_counter()
        found = model(image, scene=samples.scenes[sample.scene], windows=windows, flip=flip)
        seconds += time.perf_counter() - start
        metrics.update(found.depth_m[None], depth_m[None])
    (metrics,), seconds = together([metrics], seconds, group)
    scores = metrics.compute()
    if floors is not None:
        scores |= _mean_map(floors, samples, limit, DepthMetrics(max_depth=10.0, crop=crop))
    test = {"windows": windows or "as needed", "flip": flip, "window": model.config.image_size}
    return evaluation_of("depth", model, samples, scores, metrics.protocol(), test, seconds)


def _majority(train: Any, samples: Any, limit: int | None, like: SemanticMetrics) -> float:
    """mIoU of the training split's most frequent class everywhere."""
    counts = np.zeros(like.num_classes, np.int64)
    for sample in train:
        label = sample.read_label()
        inside = label[label != like.ignore_index].ravel()
        counts += np.bincount(inside, minlength=like.num_classes)
    scores = SemanticMetrics(like.num_classes, like.ignore_index, like.variant)
    for i in range(min(len(samples), limit or len(samples))):
        label = samples[i].read_label()
        scores.update(np.full(label.shape, counts.argmax(), np.int64), label)
    return scores.compute()["mIoU"]


def _mean_map(
    train: Any, samples: Any, limit: int | None, scores: DepthMetrics
) -> dict[str, float]:
    """Scores of the training split's mean depth at each place, resized to each picture."""
    import cv2

    if not len(train):
        raise ValueError("floors: expected pictures of a training split, got none")
    shape = train[0].read_depth().shape
    total, count = np.zeros(shape), np.zeros(shape)
    for sample in train:
        depth_m = sample.read_depth()
        if depth_m.shape != shape:
            depth_m = cv2.resize(depth_m, shape[::-1], interpolation=cv2.INTER_NEAREST)
        total += depth_m
        count += depth_m > 0
    mean = (total / np.maximum(count, 1)).astype(np.float32)
    for i in range(min(len(samples), limit or len(samples))):
        depth_m = samples[i].read_depth()
        seen = cv2.resize(mean, depth_m.shape[::-1], interpolation=cv2.INTER_LINEAR)
        scores.update(torch.from_numpy(seen)[None], torch.from_numpy(depth_m)[None])
    found = scores.compute()
    return {f"floor/{name}": found[name] for name in ("delta1", "abs_rel", "rmse")}
