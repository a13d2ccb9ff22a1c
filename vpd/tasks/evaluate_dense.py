"""Scores segmenters and depth estimators: every picture of a split as a user would have it
predicted, compared at its own size."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist

from vpd.metrics import DepthMetrics, SemanticMetrics
from vpd.metrics.depth import DepthCrop
from vpd.tasks.depth import DepthEstimator
from vpd.tasks.evaluation import preset_name
from vpd.tasks.samples import check_counts
from vpd.tasks.semantic import SemanticSegmenter

__all__ = ["DenseEvaluation", "evaluate_depth", "evaluate_semantic"]


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
        lines += [
            f"{name:<28}{value:>9.{0 if name == 'n' else self._digits(name)}f}"
            for name, value in self.metrics.items()
        ]
        return "\n".join([*lines, f"{self.seconds_per_image:.3f} seconds per image"])

    def _digits(self, name: str) -> int:
        return 2 if self.protocol["task"] == "semantic" else 4


def evaluate_semantic(
    model: SemanticSegmenter,
    samples: Any,
    *,
    mode: Literal["slide", "whole"] = "slide",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    batch: int = 4,
    limit: int | None = None,
    variant: Literal["mmseg", "d2"] = "mmseg",
    per_class: bool = False,
    floors: Any = None,
    progress: bool = True,
    group: dist.ProcessGroup | None = None,
) -> DenseEvaluation:
    """Scores a semantic segmenter (:class:`vpd.metrics.SemanticMetrics`).

    Args:
        model: Any.
        samples: Labelled pictures: :mod:`vpd.data.semantic`, or ``vpd.data.tabletop.semantic``.
        mode, scales, flip, batch: As the model's call takes them.
        limit: Only the first so many pictures.
        variant: Which classes the mean is taken over.
        per_class: Also the IoU of each class.
        floors: Samples of the training split: ``floor/mIoU`` then is that of its most frequent
            class, predicted everywhere.
        progress: Show a bar.
        group: Processes that share the pictures; all return the scores of all.

    Raises:
        ValueError: Names of classes that are not the model's, and what the model's call raises.
    """
    names = model.config.classes
    if tuple(samples.names) != tuple(names):
        raise ValueError(
            f"the model has {len(names)} classes ({', '.join(names[:3])}, ...), the data set "
            f"{len(samples.names)} ({', '.join(samples.names[:3])}, ...): expected the same"
        )
    metrics = SemanticMetrics(len(names), samples.ignore_index, variant, names)
    seconds = 0.0
    for sample in _shared(samples, limit, group, progress):
        image, label = sample.read()
        start = time.perf_counter()
        found = model(image, mode=mode, scales=scales, flip=flip, batch=batch)
        seconds += time.perf_counter() - start
        metrics.update(found.classes, label)
    metrics, seconds = _together(metrics, seconds, group)
    scores = metrics.compute(per_class=per_class)
    if floors is not None:
        scores["floor/mIoU"] = _majority(floors, samples, limit, metrics)
    test = {"mode": mode, "scales": list(scales), "flip": flip, "window": model.config.image_size}
    return _evaluation("semantic", model, samples, scores, metrics.protocol(), test, seconds)


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
    group: dist.ProcessGroup | None = None,
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
        group: Processes that share the pictures; all return the scores of all.

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
    for sample in _shared(samples, limit, group, progress):
        image, depth_m = sample.read()
        start = time.perf_counter()
        found = model(image, scene=samples.scenes[sample.scene], windows=windows, flip=flip)
        seconds += time.perf_counter() - start
        metrics.update(found.depth_m[None], depth_m[None])
    metrics, seconds = _together(metrics, seconds, group)
    scores = metrics.compute()
    if floors is not None:
        scores |= _mean_map(floors, samples, limit, DepthMetrics(max_depth=10.0, crop=crop))
    test = {"windows": windows or "as needed", "flip": flip, "window": model.config.image_size}
    return _evaluation("depth", model, samples, scores, metrics.protocol(), test, seconds)


def _shared(
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


def _together(metrics: Any, seconds: float, group: dist.ProcessGroup | None) -> tuple[Any, float]:
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


def _evaluation(
    task: str,
    model: SemanticSegmenter | DepthEstimator,
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
