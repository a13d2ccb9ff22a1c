"""Metrics of panoptic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from vpd._load import core

if TYPE_CHECKING:
    from vpd.data.segments import SegmentMap

__all__ = ["PanopticMetrics"]


class PanopticMetrics:
    """Panoptic quality (Kirillov et al. 2019) by the rules of COCO's evaluation.

    A predicted and a labelled segment of one class match where their IoU is above one half, which
    at most one pair can do. Of a class with TP matches, FP false alarms and FN misses, PQ = (sum of
    IoU over matches) / (TP + FP / 2 + FN / 2) = SQ RQ, with SQ the mean IoU of matches and RQ = TP
    / (TP + FP / 2 + FN / 2). Scores are means over the classes that occur at all.

    * Pixels without a label (void) do not count: not in the union, and a segment that lies there by
      more than half is no false alarm.
    * Crowd regions are neither matched nor missed; what a prediction of their class has on them
      counts as void when it is looked at as a false alarm (all crowd regions of the class together;
      COCO has one of each class in a picture).

    Args:
        things: By class, whether it has countable objects; the others are stuff.
        names: Of the classes, for ``compute(per_class=True)``.

    Raises:
        ValueError: No class, or not one name for each class.

    Example:
        >>> from vpd.data import PanopticLabel, Segment
        >>> label = PanopticLabel(np.array([[1, 1, 2, 2]]), (Segment(1, 0), Segment(2, 1)))
        >>> metrics = vpd.metrics.PanopticMetrics(things=(True, False))
        >>> metrics.update(label, label)
        >>> metrics.compute()["PQ"]
        100.0
    """

    def __init__(self, things: Sequence[bool], names: Sequence[str] | None = None) -> None:
        if names is not None and (len(names) != len(things) or len(set(names)) != len(things)):
            raise ValueError(
                f"PanopticMetrics: expected {len(things)} different names, got {len(names)}, "
                f"{len(set(names))} of them different"
            )
        self.things = tuple(bool(thing) for thing in things)
        self.names = tuple(names) if names is not None else None
        self._core = core.PanopticMetrics(list(self.things))

    def update(self, prediction: SegmentMap, target: SegmentMap) -> None:
        """Adds one picture.

        Args:
            prediction: Something with ``ids`` [H, W], 0 where there is no segment, and
                ``segments``: a :class:`vpd.tasks.panoptic_results.PanopticResult`, or a label.
            target: A :class:`vpd.data.PanopticLabel` of the same size.

        Raises:
            ValueError: Sizes that differ, a class out of range, an id in a map that is no
                segment's, or a segment without a pixel; nothing is added then.
        """
        self._core.update(_parts(prediction, "prediction"), _parts(target, "target"))

    def merge(self, other: PanopticMetrics) -> None:
        """Adds what another accumulator counted.

        Raises:
            ValueError: It has other classes.
        """
        self._core.merge(other._core)

    def compute(self, *, per_class: bool = False) -> dict[str, float]:
        """``PQ``, ``SQ`` and ``RQ`` in percent of all classes and, with ``_things`` or ``_stuff``
        behind, of those; ``classes``, ``classes_things``, ``classes_stuff``: how many were averaged
        over; ``n``, the number of pictures. Without classes to average over, scores are 0.

        Args:
            per_class: Also ``PQ/<name>`` (its index, without names), ``SQ/...``, ``RQ/...`` of
                every class that is labelled or predicted somewhere.
        """
        scores = self._core.compute()
        result: dict[str, float] = {}
        for end, own in (("", scores.all), ("_things", scores.things), ("_stuff", scores.stuff)):
            result |= {f"PQ{end}": own.pq, f"SQ{end}": own.sq, f"RQ{end}": own.rq}
        for end, own in (("", scores.all), ("_things", scores.things), ("_stuff", scores.stuff)):
            result[f"classes{end}"] = own.classes
        result["n"] = self._core.n
        if per_class:
            for index, own in enumerate(scores.by_class):
                name = self.names[index] if self.names else index
                if own.classes:
                    result |= {f"PQ/{name}": own.pq, f"SQ/{name}": own.sq, f"RQ/{name}": own.rq}
        return result

    def counts(self) -> list[dict[str, float]]:
        """Of each class: ``tp``, ``fp``, ``fn`` and ``iou``, the sum over matches."""
        own = self._core
        rows = zip(own.matches, own.false_alarms, own.misses, own.iou, strict=True)
        return [{"tp": tp, "fp": fp, "fn": fn, "iou": iou} for tp, fp, fn, iou in rows]


def _parts(found: SegmentMap, name: str) -> Any:
    ids = torch.as_tensor(found.ids)
    if any(segment.crowd for segment in found.segments) and name == "prediction":
        raise ValueError("PanopticMetrics: a prediction cannot have crowd regions, got one")
    segments = found.segments
    return (
        ids,
        [s.id for s in segments],
        [s.category for s in segments],
        [s.crowd for s in segments],
    )
