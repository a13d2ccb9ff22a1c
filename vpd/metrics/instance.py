"""Metrics of instance segmentation."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vpd.metrics.names import one_each

if TYPE_CHECKING:
    from vpd.data.segments import Instance

__all__ = ["InstanceMetrics"]

_MOST = 100  # predictions of a picture that count
_SIZES = {"mAP": "all", "APs": "small", "APm": "medium", "APl": "large"}


class InstanceMetrics:
    """Mask average precision as COCO's own code (pycocotools) computes it.

    Predictions of a picture and class are matched to its objects in the order of their scores;
    precision is interpolated at 101 recalls and averaged over the IoU thresholds 0.5, 0.55 ... 0.95
    and over the classes with an object; the 100 best predictions of a picture count, and crowd
    regions excuse what lies on them. Only run lengths are held, a few hundred bytes an object.

    Args:
        num_classes: Classes are in [0, num_classes).
        names: Of the classes, for ``compute(per_class=True)``.

    Raises:
        ValueError: No class, or not one name for each class.

    Example:
        >>> from vpd.data import Instance
        >>> from vpd.data.masks import encode_mask
        >>> mask = encode_mask(np.ones((8, 8), bool))
        >>> metrics = vpd.metrics.InstanceMetrics(1)
        >>> metrics.update([Instance(0, mask, score=0.9)], [Instance(0, mask)])
        >>> round(metrics.compute()["mAP"], 6)
        100.0
    """

    def __init__(self, num_classes: int, names: Sequence[str] | None = None) -> None:
        if num_classes < 1:
            raise ValueError(f"InstanceMetrics: expected at least 1 class, got {num_classes}")
        self.num_classes = num_classes
        self.names = one_each("InstanceMetrics", names, num_classes)
        self._pictures: list[tuple[tuple[Instance, ...], tuple[Instance, ...]]] = []

    def update(self, predictions: Sequence[Instance], target: Sequence[Instance]) -> None:
        """Adds one picture.

        Args:
            predictions: With scores; any order, any number.
            target: The objects of the picture, crowd regions among them marked as such.

        Raises:
            ValueError: A prediction without a score, a class out of range, or masks of different
                sizes; nothing is added then.
        """
        sizes = {tuple(one.mask["size"]) for one in (*predictions, *target)}
        if len(sizes) > 1:
            raise ValueError(
                f"InstanceMetrics: expected masks of one size, got {sorted(map(list, sizes))}"
            )
        for one in (*predictions, *target):
            if not 0 <= one.category < self.num_classes:
                raise ValueError(
                    f"InstanceMetrics: classes must be in [0, {self.num_classes}), got "
                    f"{one.category}"
                )
        for one in predictions:
            if one.score is None or not np.isfinite(one.score):
                raise ValueError(
                    f"InstanceMetrics: expected a score of every prediction, got {one.score}"
                )
        self._pictures.append((tuple(predictions), tuple(target)))

    def merge(self, other: InstanceMetrics) -> None:
        """Adds what another accumulator holds.

        Raises:
            ValueError: It has another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(
                f"InstanceMetrics.merge: both need the same classes, got {self.num_classes} and "
                f"{other.num_classes}"
            )
        self._pictures += other._pictures

    def compute(self, *, per_class: bool = False) -> dict[str, float]:
        """``mAP``, ``AP50`` and ``AP75`` (one IoU threshold), ``APs``, ``APm`` and ``APl`` (objects
        below 32^2 pixels, below 96^2, larger) in percent, and ``n``, the number of pictures. A
        score without any object to find is 0.

        Args:
            per_class: Also ``AP/<name>`` (its index, without names) of every class with an object.
        """
        result = dict.fromkeys(("mAP", "AP50", "AP75", "APs", "APm", "APl"), 0.0)
        if any(not one.crowd for _, target in self._pictures for one in target):
            precision, sizes = self._precision()
            for key, size in _SIZES.items():
                result[key] = _mean(precision[..., sizes.index(size)])
            whole = precision[..., sizes.index("all")]
            result["AP50"], result["AP75"] = _mean(whole[0]), _mean(whole[5])
            if per_class:
                for index in range(self.num_classes):
                    own = whole[:, :, index]
                    if (own > -1).any():
                        result[f"AP/{self.names[index] if self.names else index}"] = _mean(own)
        result["n"] = len(self._pictures)
        return result

    def _precision(self) -> tuple[np.ndarray, list[str]]:
        """[IoU thresholds, recalls, classes, sizes], -1 where there is nothing to find; names of
        the sizes."""
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):  # it reports on its progress
            found = COCOeval(self._tables(1), self._tables(0), "segm")
            found.params.maxDets = [_MOST]
            found.evaluate()
            found.accumulate()
        return found.eval["precision"][..., 0], list(found.params.areaRngLbl)

    def _tables(self, which: int) -> Any:
        """Predictions (0) or objects (1) as pycocotools holds a file of them."""
        from pycocotools import mask as coco
        from pycocotools.coco import COCO

        rows: list[dict[str, Any]] = []
        for image_id, picture in enumerate(self._pictures):
            for one in picture[which]:
                area = float(coco.area(one.mask)) if one.area is None else one.area
                rows.append(
                    {
                        "id": len(rows) + 1,  # 0 would mean "not matched"
                        "image_id": image_id,
                        "category_id": one.category,
                        "segmentation": one.mask,
                        "area": area,
                        "iscrowd": int(one.crowd),
                        "score": one.score,
                    }
                )
        tables = COCO()
        size = {"height": 0, "width": 0}  # only polygons need them
        tables.dataset = {
            "images": [{"id": i, **size} for i in range(len(self._pictures))],
            "annotations": rows,
            "categories": [{"id": i} for i in range(self.num_classes)],
        }
        tables.createIndex()
        return tables


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return 100 * float(known.mean()) if known.size else 0.0
