"""Metrics of multi-label tagging."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vpd._load import core
from vpd.metrics.names import one_each

__all__ = ["PrecisionRecall", "TagMetrics"]


class PrecisionRecall(NamedTuple):
    """Precision and recall at each score that occurs, the highest first; empty if none is right."""

    precision: np.ndarray
    """float64 [n] in [0, 1]."""
    recall: np.ndarray
    """float64 [n] in [0, 1], rising."""
    thresholds: np.ndarray
    """float32 [n]: what scores no less counts as predicted."""

    @property
    def average_precision(self) -> float:
        """Percent; 0 without a positive."""
        return 100 * float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))


class TagMetrics:
    """Multi-label classification: which of K tags each picture has.

    Average precision is exact: precision at every score, weighted by the recall gained there, equal
    scores taken together. It needs all scores, which are kept in 5 bytes for each picture and tag.

    Args:
        num_classes: K.
        threshold: A tag with a higher score counts as predicted.
        recall_at: Numbers k of ``recall@k``.
        names: Of the tags, for ``compute(per_class=True)``.

    Raises:
        ValueError: No class, a k below 1, or not one name for each class.

    Example:
        >>> metrics = vpd.metrics.TagMetrics(2)
        >>> metrics.update(torch.tensor([[0.9, 0.4], [0.2, 0.6]]), torch.tensor([[1, 0], [1, 1]]))
        >>> metrics.compute()["mAP"], metrics.compute()["CR"]
        (100.0, 75.0)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        threshold: float = 0.5,
        recall_at: Sequence[int] = (5,),
        names: Sequence[str] | None = None,
    ) -> None:
        if any(k < 1 for k in recall_at):
            raise ValueError(f"TagMetrics: recall_at must be at least 1, got {list(recall_at)}")
        self.num_classes = num_classes
        self.threshold = threshold
        self.recall_at = tuple(recall_at)
        self.names = one_each("TagMetrics", names, num_classes)
        self._core = core.TagMetrics(num_classes)

    def update(self, scores: Tensor | np.ndarray, target: Tensor | np.ndarray) -> None:
        """Adds n pictures.

        Args:
            scores: Floating point [n, K], probabilities (or anything that ranks, for all but the
                metrics at the threshold); kept in float32.
            target: bool, or numbers that are 0 or 1, [n, K].

        Raises:
            ValueError: Other shapes or types, NaN, or a target that is neither; nothing is added
                then.
        """
        self._core.update(torch.as_tensor(scores), torch.as_tensor(target))

    def merge(self, other: TagMetrics) -> None:
        """Adds what another accumulator holds.

        Raises:
            ValueError: It was made with other choices.
        """
        if other.protocol() != self.protocol():
            raise ValueError(
                "TagMetrics.merge: both need the same protocol, got "
                f"{self.protocol()} and {other.protocol()}"
            )
        self._core.merge(other._core)

    def compute(self, *, per_class: bool = False) -> dict[str, float]:
        """Percentages, 0 for an empty set, and ``n``, the number of pictures.

        ``mAP``; ``CP``, ``CR``: precision (0 of a tag that is never predicted) and recall, means
        over tags; ``CF1``: their harmonic mean; ``OP``, ``OR``, ``OF1``: the same of all decisions
        together (the seven of Ridnik et al. 2021); ``recall@k``: of a picture's tags, the share
        among its k highest scores, mean over pictures. Means over tags are over those that some
        picture has.

        Args:
            per_class: Also ``AP/<name>`` (its index, without names) of these tags.
        """
        found = self._core.compute(self.threshold)
        result: dict[str, float] = {
            "mAP": found.mean_ap,
            "CP": found.class_precision,
            "CR": found.class_recall,
            "CF1": found.class_f1,
            "OP": found.overall_precision,
            "OR": found.overall_recall,
            "OF1": found.overall_f1,
        }
        result |= {f"recall@{k}": self._core.recall_at(k) for k in self.recall_at}
        result["n"] = self._core.n
        if per_class:
            for index, value in enumerate(found.average_precisions):
                if not math.isnan(value):
                    result[f"AP/{self.names[index] if self.names else index}"] = value
        return result

    def curve(self, which: int | str | None = None) -> PrecisionRecall:
        """Precision against recall, of one tag (its name or index) or of all decisions together.

        Raises:
            ValueError: No such tag.
        """
        if isinstance(which, str):
            if self.names is None or which not in self.names:
                raise ValueError(f"TagMetrics.curve: no tag {which!r}")
            which = self.names.index(which)
        elif which is not None and not 0 <= which < self.num_classes:
            raise ValueError(f"TagMetrics.curve: tag must be below {self.num_classes}, got {which}")
        found = self._core.curve(-1 if which is None else which)
        return PrecisionRecall(
            found.precision.numpy(), found.recall.numpy(), found.thresholds.numpy()
        )

    def shuffled(self, seed: int = 0) -> TagMetrics:
        """The same scores beside the tags of other pictures: what knowing how frequent each tag is
        is worth. Every picture gets another one's tags."""
        result = TagMetrics(
            self.num_classes, threshold=self.threshold, recall_at=self.recall_at, names=self.names
        )
        scores, targets = self._core.all_scores(), self._core.all_targets()
        order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
        target = torch.empty_like(targets)
        target[order] = targets[order.roll(1)]
        result.update(scores, target)
        return result

    def protocol(self) -> dict[str, Any]:
        """What the results must be labelled with."""
        return {
            "num_classes": self.num_classes,
            "threshold": self.threshold,
            "recall_at": list(self.recall_at),
        }
