"""Scores of referring masks: all sentences, and each kind of them."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from vpd.metrics import PickScore, ReferMetrics
from vpd.tasks.samples import Question, SamplePicture

__all__ = ["Row", "Scores"]

Row = tuple[int, Question]
"""A row of a pass: which picture of the group, and what is asked."""


class Scores:
    """Metrics of all sentences and of each kind; pick only where objects are known."""

    def __init__(self) -> None:
        self._refer: dict[str, ReferMetrics] = {"": ReferMetrics()}
        self._pick: dict[str, PickScore] = {}

    def score(self, group: list[SamplePicture], rows: list[Row], logits: Tensor) -> None:
        """Adds predictions: object minus background, [rows, S, S] on the CPU."""
        for (image, question), row in zip(rows, logits, strict=True):
            size = row.shape[-1]
            instances = group[image].instances
            known = None if instances is None else _nearest(instances, size)
            self._update(question, row, _nearest(question.mask.astype(np.uint8), size) > 0, known)

    def _update(
        self, question: Question, logits: Tensor, truth: np.ndarray, instances: np.ndarray | None
    ) -> None:
        for prefix in ("", f"{question.kind}/") if question.kind else ("",):
            refer = self._refer.setdefault(prefix, ReferMetrics())
            refer.update((logits > 0)[None], truth[None])
            if instances is not None and question.target:
                pick = self._pick.setdefault(prefix, PickScore())
                pick.update(logits, instances, question.target)

    def merge(self, other: Scores) -> None:
        """Adds what another one counted."""
        for prefix, refer in other._refer.items():
            self._refer.setdefault(prefix, ReferMetrics()).merge(refer)
        for prefix, pick in other._pick.items():
            self._pick.setdefault(prefix, PickScore()).merge(pick)

    def overall(self) -> dict[str, float]:
        return self._of("")

    def compute(self) -> dict[str, float]:
        kinds = sorted(self._refer)
        return {prefix + name: v for prefix in kinds for name, v in self._of(prefix).items()}

    def _of(self, prefix: str) -> dict[str, float]:
        found = self._refer[prefix].compute()
        if prefix in self._pick:
            found["pick"] = self._pick[prefix].compute()["pick"]
        return found


def _nearest(labels: np.ndarray, size: int) -> np.ndarray:
    if labels.shape == (size, size):
        return labels
    return cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
