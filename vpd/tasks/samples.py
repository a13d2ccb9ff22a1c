"""What a referring segmenter is scored on: pictures, each with everything that is asked about
it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np

from vpd.data.refer import Ref, ReferDataset
from vpd.data.subset import Subset
from vpd.data.tabletop import TabletopSplit, expressions_for, floors

__all__ = ["Question", "ReferSamples", "SamplePicture", "first", "groups", "refer_samples"]


@dataclass(frozen=True)
class Question:
    """One sentence and the mask it asks for."""

    text: str
    mask: np.ndarray
    """bool [H, W]."""
    kind: str | None = None
    """``attribute``, ``place`` or ``relation`` on Tabletop."""
    target: int = 0
    """The object's id in the picture's instance map; 0 without one."""


@dataclass(frozen=True)
class SamplePicture:
    """One picture with its sentences."""

    image: np.ndarray
    """uint8 [H, W, 3], RGB."""
    questions: tuple[Question, ...]
    instances: np.ndarray | None = None
    """uint8 [H, W], every object's id, 0 = none; None where objects overlap or are not all
    annotated."""


class ReferSamples(Protocol):
    """Pictures of a split, in a fixed order; each is read when it is asked for."""

    name: str
    split: str

    def __len__(self) -> int: ...
    def __getitem__(self, place: int, /) -> SamplePicture: ...
    def __iter__(self) -> Iterator[SamplePicture]: ...
    def sentences(self, place: int) -> int:
        """How many are asked about a picture, known without reading it."""
        ...

    def floors(self, limit: int | None) -> dict[str, float]:
        """Scores in percent that take no reading of the whole sentence, for the first ``limit``
        pictures; may be empty."""
        ...


def refer_samples(source: Any, subset: Subset | None = None) -> ReferSamples:
    """Samples from a :class:`vpd.data.ReferDataset`, a Tabletop split, or samples themselves.

    Args:
        subset: Of a Tabletop split, its first sentences only. (A data set on disk has its own.)
    """
    if isinstance(source, TabletopSplit):
        return TabletopSamples(source, subset)
    if isinstance(source, ReferDataset):
        return DatasetSamples(source)
    if all(hasattr(source, name) for name in ("name", "split", "floors", "sentences")):
        return source
    raise TypeError(
        f"samples must be a ReferDataset or a TabletopSplit, got {type(source).__name__}"
    )


class TabletopSamples:
    """A rendered Tabletop split; nothing is written to disk."""

    name = "tabletop"

    def __init__(self, source: TabletopSplit, subset: Subset | None = None) -> None:
        if source.name == "pretrain":
            raise ValueError("the split 'pretrain' has captions only; score on 'val' or 'test'")
        self.split = source.name
        self._source = source
        self._sentences = expressions_for(source, subset)
        self._order = [i for i, spoken in enumerate(self._sentences) if spoken]

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[SamplePicture]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, place: int) -> SamplePicture:
        i = self._order[place]
        instances = np.array(self._source.instances[i])
        questions = tuple(
            Question(e.text, instances == e.target + 1, e.kind, e.target + 1)
            for e in self._sentences[i]
        )
        return SamplePicture(np.array(self._source.images[i]), questions, instances)

    def sentences(self, place: int) -> int:
        return len(self._sentences[self._order[place]])

    def floors(self, limit: int | None) -> dict[str, float]:
        chosen = self._order[:limit]
        found = floors(
            (self._source.scene(i) for i in chosen), (self._sentences[i] for i in chosen)
        )
        return {name: 100 * value for name, value in found.items()}


@dataclass
class DatasetSamples:
    """A data set on disk in the REFER layout, grouped by picture in the order of its refs."""

    source: ReferDataset
    name: str = field(init=False)
    split: str = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.split = self.source.name, self.source.split
        refs: dict[int, list[Ref]] = {}
        for ref in self.source.refs:
            refs.setdefault(ref.image_id, []).append(ref)
        self._refs = list(refs.values())  # of each picture

    def __len__(self) -> int:
        return len(self._refs)

    def __iter__(self) -> Iterator[SamplePicture]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, place: int) -> SamplePicture:
        refs = self._refs[place]
        image_id = refs[0].image_id
        instances, ids = None, {}
        if self.name == "tabletop":  # its objects cover each pixel once
            masks = self.source.instances(image_id)
            ids = {ann_id: index for index, ann_id in enumerate(masks, start=1)}
            instances = np.zeros(next(iter(masks.values())).shape, np.uint8)
            for ann_id, mask in masks.items():
                instances[mask] = ids[ann_id]
        questions = []
        for ref in refs:
            mask = self.source.mask(ref)
            for s in ref.sentences:
                questions.append(Question(s.text, mask, s.kind, ids.get(ref.ann_id, 0)))
        return SamplePicture(self.source.image(image_id), tuple(questions), instances)

    def sentences(self, place: int) -> int:
        return sum(len(ref.sentences) for ref in self._refs[place])

    def floors(self, limit: int | None) -> dict[str, float]:
        return {}


def check_counts(**counts: int | None) -> None:
    """Raises ValueError for a number below 1; None is no number."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def first(samples: ReferSamples, limit: int | None) -> Iterator[SamplePicture]:
    """The first ``limit`` pictures, all if None."""
    return islice(iter(samples), limit)


def groups(source: ReferSamples, sentences: int, limit: int | None = None) -> list[range]:
    """Places of pictures, as many together as have no more than so many sentences; one at least.
    None is read for it.

    Args:
        limit: Only the first so many pictures.
    """
    found: list[range] = []
    start = rows = 0
    count = min(len(source), limit or len(source))
    for place in range(count):
        own = source.sentences(place)
        if place > start and rows + own > sentences:
            found.append(range(start, place))
            start, rows = place, 0
        rows += own
    return [*found, range(start, count)] if count else found
