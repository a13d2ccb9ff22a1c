"""A vocabulary of tags: names, how they are said, how sure one must be of each, their texts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from vpd.data.files import atomic_write, parse_json
from vpd.data.naming import checked_names, plain
from vpd.models.clip_text import CLIPTextEncoder
from vpd.tags.tagger import Tag
from vpd.tasks.class_texts import embed_classes, embed_sentences, synonyms, templates

__all__ = ["RAM_THRESHOLD", "TagSet", "Tags", "plain", "read_thresholds"]

RAM_THRESHOLD = 0.68
"""What the Recognize Anything Model asks of tags without a threshold of their own."""
Tags: TypeAlias = Sequence[str] | Sequence[Tag]
"""Of one picture: words, or what a tagger says."""


class TagSet:
    """The tags that a model knows.

    Words are compared without regard to capitals, and with ``_`` as a space.

    Args:
        entries: One for each tag; of synonyms, ``"sofa; couch"``, the first is its name.
        templates_: Sentences around a name, as :func:`vpd.tasks.class_texts.templates` takes them.
        thresholds: Probability that a picture's tags exceed: one for all tags, or one for each.
        subsets: Names of smaller sets, and their tags.

    Raises:
        ValueError: No tag, two of one name, thresholds that are not one for each tag or not
            numbers, or a subset with a tag that is none.

    Example:
        >>> tags = TagSet(["cube", "ball; sphere"], thresholds=[0.6, 0.7])
        >>> tags.ids(["Sphere", "unicorn", "cube"])
        [1, 0]
        >>> tags.select(torch.tensor([0.65, 0.66]))
        [('cube', 0.65)]
    """

    def __init__(
        self,
        entries: Sequence[str],
        *,
        templates_: str | Sequence[str] = "single",
        thresholds: float | Sequence[float] = RAM_THRESHOLD,
        subsets: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.entries = checked_names("tags", entries)
        words = [synonyms(entry) for entry in self.entries]
        self.names = tuple(one[0] for one in words)
        checked_names("tags", [plain(name) for name in self.names])
        self.templates = templates(templates_)
        self.thresholds = _thresholds(thresholds, len(self.names))
        # A tag's own name counts before what is a synonym of another's.
        self._ids: dict[str, int] = {}
        for i, name in enumerate(self.names):
            self._ids.setdefault(plain(name), i)
        for i, one in enumerate(words):
            for word in one:
                self._ids.setdefault(plain(word), i)
        self.subsets = {name: tuple(tags) for name, tags in (subsets or {}).items()}
        for name, tags in self.subsets.items():
            if not all(isinstance(tag, str) for tag in tags):
                raise ValueError(f"subset {name!r}: expected names of tags, got other values")
            unknown = self.unknown(tags)
            if unknown:
                raise ValueError(f"subset {name!r}: {unknown[0]!r} is none of the tags")
        self.embeddings: Tensor | None = None
        """float32 [K, C] after :meth:`embedded`."""
        self.empty: Tensor | None = None
        """float32 [C]: the text without a word, which stands for no tags."""

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and plain(word) in self._ids

    def __repr__(self) -> str:
        shown = ", ".join(self.names[:3]) + (", ..." if len(self) > 3 else "")
        return f"TagSet({len(self)}: {shown})"

    def ids(self, tags: Tags, unknown: Literal["skip", "error"] = "skip") -> list[int]:
        """The tags' numbers, in their order, each once.

        Raises:
            ValueError: A word that is none of the tags, with ``unknown="error"``.
        """
        found = [self._ids.get(plain(word)) for word in _words(tags)]
        if unknown == "error" and None in found:
            lost = self.unknown(tags)
            raise ValueError(
                f"{lost[0]!r} is none of the {len(self)} tags"
                + (f", nor are {len(lost) - 1} others" if len(lost) > 1 else "")
            )
        return list(dict.fromkeys(i for i in found if i is not None))

    def unknown(self, tags: Tags) -> list[str]:
        """The words that are none of the tags, each once."""
        return list(dict.fromkeys(word for word in _words(tags) if word not in self))

    def targets(self, tags: Sequence[Tags]) -> Tensor:
        """bool [B, K]: which tags each picture has; unknown ones are left out."""
        return self.scores([[(word, 1.0) for word in _words(one)] for one in tags]) > 0

    def scores(self, tags: Sequence[Sequence[Tag]]) -> Tensor:
        """float32 [B, K]: a tagger's score of each tag, 0 for what it does not name."""
        table = torch.zeros(len(tags), len(self))
        for row, one in zip(table, tags, strict=True):
            for word, score in one:
                i = self._ids.get(plain(word))
                if i is not None:
                    row[i] = max(float(row[i]), score)
        return table

    def select(
        self, scores: Tensor, *, top: int | None = None, threshold: float | None = None
    ) -> list[Tag]:
        """Tags with scores above their thresholds, the highest first.

        Args:
            scores: float [K].
            top: At most so many.
            threshold: Instead of their own.
        """
        if scores.shape != (len(self),):
            raise ValueError(f"expected scores of {len(self)} tags, got {list(scores.shape)}")
        scores = scores.detach().float().cpu()
        least = torch.tensor(self.thresholds if threshold is None else threshold)
        order = scores.argsort(descending=True, stable=True)
        chosen = order[(scores > least)[order]][:top].tolist()
        return [(self.names[i], float(scores[i])) for i in chosen]

    def subset(self, which: str | Sequence[str]) -> TagSet:
        """A smaller set, in the order asked for: one of ``subsets``, or the tags given.

        Raises:
            ValueError: No such subset, or a word that is none of the tags.
        """
        if isinstance(which, str):
            if which not in self.subsets:
                raise ValueError(f"subset must be one of {list(self.subsets)}, got {which!r}")
            which = self.subsets[which]
        ids = self.ids(which, "error")
        part = TagSet(
            [self.entries[i] for i in ids],
            templates_=self.templates,
            thresholds=[self.thresholds[i] for i in ids],
        )
        part.empty = self.empty
        part.embeddings = None if self.embeddings is None else self.embeddings[ids]
        return part

    def embedded(self, text: CLIPTextEncoder) -> TagSet:
        """The same set with the texts of its tags: :func:`vpd.tasks.class_texts.embed_classes` of
        each, and of no word at all."""
        found = TagSet(
            self.entries,
            templates_=self.templates,
            thresholds=self.thresholds,
            subsets=self.subsets,
        )
        found.embeddings = embed_classes(text, self.entries, self.templates)
        found.empty = embed_sentences(text, [""])[0]
        return found

    def tokens(
        self, tags: Sequence[Tags], unknown: Literal["skip", "error"] = "skip"
    ) -> tuple[Tensor, Tensor]:
        """The texts of each picture's tags, as :class:`vpd.TaggingAdapter` and a U-Net take them.

        Returns:
            float32 [B, n, C], one token a tag, in the order given, then zeros; and bool [B, n],
            True where there is a tag. A picture without tags has one token, that of the empty text.

        Raises:
            ValueError: The set is not :meth:`embedded`, or see :meth:`ids`.
        """
        if self.embeddings is None or self.empty is None:
            raise ValueError("this TagSet has no texts yet: use its embedded(text_encoder)")
        table = torch.cat([self.embeddings, self.empty[None]])
        rows = [self.ids(one, unknown) or [len(self)] for one in tags]
        ids = torch.full((len(rows), max(map(len, rows), default=1)), -1)
        for to, row in zip(ids, rows, strict=True):
            to[: len(row)] = torch.tensor(row)
        mask = ids >= 0
        return table[ids.clamp(min=0)] * mask[..., None], mask

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], thresholds: str | os.PathLike[str] | None = None
    ) -> TagSet:
        """Reads a set: a file of :meth:`save` (``.json``), or a text file with a tag a line, as RAM
        comes with.

        Args:
            path: The file.
            thresholds: A text file with one number a line, as RAM's.

        Raises:
            OSError: A file cannot be opened. ValueError: It holds something else.
        """
        path = Path(path)
        if path.suffix == ".json":
            found = cls._from_json(path)
        else:
            lines = _lines(path)
            try:
                found = cls(lines)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        if thresholds is not None:
            found.thresholds = read_thresholds(thresholds, len(found))
        return found

    @classmethod
    def _from_json(cls, path: Path) -> TagSet:
        said: Any = parse_json(path.read_bytes(), path)
        try:
            if isinstance(said, list):
                said = {"tags": said}
            return cls(
                said["tags"],
                templates_=said.get("templates", "single"),
                thresholds=said.get("thresholds", RAM_THRESHOLD),
                subsets=said.get("subsets", {}),
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(
                f"{path}: expected JSON with tags, and if need be templates, thresholds and "
                f"subsets, but {type(error).__name__}: {error}"
            ) from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes tags, templates, thresholds and subsets as JSON; not the texts."""
        path = Path(path)
        if path.suffix != ".json":
            raise ValueError(f"{path}: expected a name ending in .json")
        said = {
            "tags": list(self.entries),
            "templates": list(self.templates),
            "thresholds": list(self.thresholds),
            "subsets": {name: list(tags) for name, tags in self.subsets.items()},
        }
        with atomic_write(path) as file:
            file.write((json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode())
        return path


def read_thresholds(path: str | os.PathLike[str], count: int) -> tuple[float, ...]:
    """Thresholds of ``count`` tags from a text file with one number a line.

    Raises:
        OSError: It cannot be opened. ValueError: Other lines, or not so many.
    """
    lines = _lines(Path(path))
    try:
        return _thresholds([float(line) for line in lines], count)
    except ValueError as error:
        raise ValueError(f"{path}: expected one number a line, but {error}") from error


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected one entry a line in UTF-8, but {error}") from error
    return [line.strip() for line in lines]


def _thresholds(values: float | Sequence[float], count: int) -> tuple[float, ...]:
    each = [values] * count if isinstance(values, (int, float)) else values
    found = tuple(float(value) for value in each)
    if len(found) != count:
        raise ValueError(f"expected {count} thresholds, one for each tag, got {len(found)}")
    bad = [v for v in found if not math.isfinite(v)]
    if bad:
        raise ValueError(f"thresholds must be finite, got {bad[0]}")
    return found


def _words(tags: Tags) -> list[str]:
    return [tag if isinstance(tag, str) else tag[0] for tag in tags]
