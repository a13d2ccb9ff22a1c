"""What is said about the pictures of a data set, where a segmenter is told something about each:
captions, tags, or the classes in its label."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vpd.data.segments import PanopticLabel
from vpd.tasks.condition_config import ConditionName, TagSource

__all__ = ["Words", "present", "words_of"]


class Words:
    """From a sample to what is said about it; asked once for each.

    Args:
        source: Where it comes from, for protocols.
        read: Says it.
    """

    def __init__(self, source: str, read: Callable[[Any], Any]) -> None:
        self.source = source
        self._read = read
        self._said: dict[str, Any] = {}

    def __call__(self, sample: Any) -> Any:
        if sample.id not in self._said:
            self._said[sample.id] = self._read(sample)
        return self._said[sample.id]


def words_of(
    condition: ConditionName,
    tag_source: TagSource,
    samples: Any,
    path: str | Path | None = None,
) -> Words | None:
    """What a segmenter of that condition is told about labelled pictures; None where that is
    nothing about a single picture.

    Args:
        condition, tag_source: Of :class:`vpd.SemanticConfig`.
        samples: Labelled pictures.
        path: JSON file of captions or tags by picture (:mod:`vpd.tags.cached`). None: rendered
            scenes of Tabletop say their own.

    Raises:
        ValueError: Captions or tags that are nowhere, or a file where none is read.
        OSError: A file that cannot be opened.
    """
    if condition == "oracle":
        _no_file(condition, path)
        ignored = getattr(samples, "ignore_index", 255)  # segments leave out what has no class
        return Words("labels", lambda sample: present(sample, ignored))
    if condition == "caption":
        return _captions(samples, path)
    if condition == "tagging" and tag_source == "tags":
        return _tags(samples, path)
    _no_file(condition, path)
    return None


def present(sample: Any, ignore_index: int) -> tuple[int, ...]:
    """The classes in the whole label of a sample, in rising order."""
    label = sample.read_label()
    if isinstance(label, PanopticLabel):
        return tuple(sorted({segment.category for segment in label.segments}))
    ids = np.unique(label)
    return tuple(int(one) for one in ids if one != ignore_index)


def _captions(samples: Any, path: str | Path | None) -> Words:
    if path is not None:
        from vpd.tags.cached import read_captions

        table = read_captions(path)
        return Words(str(path), lambda sample: next(iter(table.of(sample)), ""))
    _rendered("captions", samples)
    return Words("true captions of Tabletop", _tabletop_caption)


def _tabletop_caption(sample: Any) -> str:
    """Always the same for a scene."""
    from vpd.data import tabletop

    scene = sample.source.scene(sample.index)
    return tabletop.caption(scene, random.Random(f"caption of {scene.spec.seed}"))


def _tags(samples: Any, path: str | Path | None) -> Words:
    from vpd.tags.cached import CachedTagger
    from vpd.tags.tabletop import TabletopTagger

    if path is None:
        _rendered("tags", samples)
    tagger = TabletopTagger() if path is None else CachedTagger(path)
    source = "true tags of Tabletop" if path is None else str(path)
    return Words(source, lambda sample: tuple(word for word, _ in tagger.tags(sample)))


def _rendered(what: str, samples: Any) -> None:
    if samples.name != "tabletop":
        raise ValueError(
            f"words: {what} of the pictures are needed, a JSON file by picture; only rendered "
            f"scenes of Tabletop have their own, got {samples.name} without one"
        )


def _no_file(condition: str, path: str | Path | None) -> None:
    if path is not None:
        raise ValueError(
            f"words: condition={condition} reads neither captions nor tags, got {path}"
        )
