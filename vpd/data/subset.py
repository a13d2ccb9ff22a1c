"""The first part of a referring data set, as small studies choose it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Subset"]


@dataclass(frozen=True)
class Subset:
    """The first so many sentences, or referred objects, in file order."""

    count: int
    unit: Literal["sentence", "ref"] = "sentence"
    """``sentence``: objects are taken in order with all their sentences, the last one with as many
    as make up the count. ``ref``: objects, each with all of its sentences."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a subset needs at least 1 {self.unit}, got {self.count}")
        if self.unit not in ("sentence", "ref"):
            raise ValueError(f"subset.unit must be 'sentence' or 'ref', got {self.unit!r}")

    def kept(self, sentences: Iterable[int]) -> Iterator[int]:
        """How many sentences of each object are kept, up to the last object that keeps any.

        Args:
            sentences: How many each has, in file order.
        """
        left = self.count
        for number in sentences:
            if left <= 0:
                return
            yield min(number, left) if self.unit == "sentence" else number
            left -= number if self.unit == "sentence" else 1
