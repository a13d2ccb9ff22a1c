"""Vocabularies of open-vocabulary models: categories, each with one name or several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vpd.data.files import write_texts
from vpd.data.naming import plain

__all__ = ["LABEL_SETS", "Vocabulary", "data_vocabulary", "label_set", "usual_set"]

_LABELS = Path(__file__).parent / "labels"
LABEL_SETS = tuple(sorted(path.stem for path in _LABELS.glob("*.txt")))
"""Names of the label sets that come with vpd."""
_INVALID = "invalid_class_id"
_STUFF = re.compile(r"#\s*stuff\s*:(.*)", re.IGNORECASE)
_CATEGORY, _NAME = ";", ","
_USUAL = {"coco-panoptic": "coco_panoptic", "ade20k-panoptic": "ade20k_150"}
_TABLETOP = ("tabletop_shapes", "tabletop_colors")


@dataclass(frozen=True)
class Vocabulary:
    """Categories to find in pictures, in the order of their ids.

    Names are compared without regard to capitals, and with ``_`` as a space. Two categories may
    share a name, as they do in the label sets of some data sets: they then share its probability.
    :meth:`parse` and :meth:`of` refuse that.

    Args:
        categories: The names of each category, synonyms: as a model is told them, the first one is
            shown. Repeated names of one category are dropped.
        things: By category, whether it has countable objects (the others are stuff); () says that
            all have.

    Raises:
        ValueError: No category, one without a name, an empty name, or flags that are not one for
            each.
        TypeError: Names that are no strings.

    Example:
        >>> words = Vocabulary.parse("cube, box; ring; floor", stuff="floor")
        >>> words
        Vocabulary(3: cube, ring, floor)
        >>> words.categories, words.things
        ((('cube', 'box'), ('ring',), ('floor',)), (True, True, False))
        >>> words.seen(Vocabulary.parse("box; wall"))
        (True, False, False)
    """

    categories: tuple[tuple[str, ...], ...]
    things: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        found = tuple(_category(i, names) for i, names in enumerate(self.categories))
        if not found:
            raise ValueError("vocabulary: expected at least one category, got none")
        things = tuple(bool(one) for one in self.things) or (True,) * len(found)
        if len(things) != len(found):
            raise ValueError(
                f"vocabulary: expected a flag of things for each of {len(found)} categories, got "
                f"{len(things)}"
            )
        object.__setattr__(self, "categories", found)
        object.__setattr__(self, "things", things)

    def __len__(self) -> int:
        return len(self.categories)

    def __repr__(self) -> str:
        shown = ", ".join(self.names[:3]) + (", ..." if len(self) > 3 else "")
        return f"Vocabulary({len(self)}: {shown})"

    @property
    def names(self) -> tuple[str, ...]:
        """The first name of each category."""
        return tuple(names[0] for names in self.categories)

    @property
    def words(self) -> tuple[str, ...]:
        """All names, category after category."""
        return tuple(name for names in self.categories for name in names)

    @property
    def owners(self) -> tuple[int, ...]:
        """The category of each of ``words``."""
        return tuple(i for i, names in enumerate(self.categories) for _ in names)

    def seen(self, training: Vocabulary) -> tuple[bool, ...]:
        """By category, whether it shares a name with one that a model was trained on."""
        known = set(map(plain, training.words))
        return tuple(any(plain(name) in known for name in names) for names in self.categories)

    def __add__(self, other: Vocabulary) -> Vocabulary:
        """Both: what a user asks for, before a label set around it.

        A category of ``other`` whose first name is in this one is the same category and left out;
        of the others, names that are in this one are.
        """
        known = set(map(plain, self.words))
        kept = [
            (tuple(name for name in names if plain(name) not in known), thing)
            for names, thing in zip(other.categories, other.things, strict=True)
            if plain(names[0]) not in known
        ]
        return Vocabulary(
            (*self.categories, *(names for names, _ in kept)),
            (*self.things, *(thing for _, thing in kept)),
        )

    def with_stuff(self, stuff: str | Iterable[str]) -> Vocabulary:
        """The same categories, of which those named are stuff and the others stay what they are.

        Args:
            stuff: Any name of each, in a sequence or in one string, "floor, wall".

        Raises:
            ValueError: A name that is in no category.
        """
        asked = _split(stuff, f"[{_NAME}{_CATEGORY}]") if isinstance(stuff, str) else stuff
        wanted = {plain(name): name for name in asked}
        unknown = wanted.keys() - set(map(plain, self.words))
        if unknown:
            named = ", ".join(sorted(repr(wanted[one]) for one in unknown))
            raise ValueError(f"vocabulary: stuff must be names of its categories, got {named}")
        things = (
            thing and wanted.keys().isdisjoint(map(plain, names))
            for names, thing in zip(self.categories, self.things, strict=True)
        )
        return Vocabulary(self.categories, tuple(things))

    @classmethod
    def parse(cls, text: str, *, stuff: str | Iterable[str] = ()) -> Vocabulary:
        """A vocabulary as people type it: ``"black pickup truck, pickup truck; blue sky, sky"``.

        Args:
            text: ``;`` between categories, ``,`` between the names of one; blank parts count for
                nothing.
            stuff: Names of the categories that are stuff, as for :meth:`with_stuff`.

        Raises:
            ValueError: No name at all, a name in two categories, or ``stuff`` that is in none.
        """
        if not isinstance(text, str):
            raise TypeError(f"vocabulary: expected a string, got {type(text).__name__}")
        parts = [_split(part, _NAME) for part in text.split(_CATEGORY)]
        categories = [tuple(names) for names in parts if names]
        if not categories:
            raise ValueError(f"vocabulary: expected names such as 'cube, box; ring', got {text!r}")
        _check_distinct(categories)
        return cls(tuple(categories)).with_stuff(stuff)

    @classmethod
    def of(cls, what: Vocabulary | str | Sequence[str]) -> Vocabulary:
        """A vocabulary as it is, as a string for :meth:`parse`, or one name for each category.

        Raises:
            ValueError, TypeError: As :meth:`parse`, or none of these.
        """
        if isinstance(what, Vocabulary):
            return what
        if isinstance(what, str):
            return cls.parse(what)
        if not isinstance(what, Sequence):
            raise TypeError(
                "vocabulary: expected a Vocabulary, a string such as 'cube, box; ring' or a "
                f"sequence of names, got {type(what).__name__}"
            )
        found = cls(tuple((name,) for name in what))
        _check_distinct(found.categories)
        return found

    @classmethod
    def read(cls, path: str | Path, *, stuff: str | Iterable[str] = ()) -> Vocabulary:
        """Reads a label set, a text file with a category a line: ``id:name1,name2,...``.

        Categories stand in the order of the lines; an id is a whole number, used once, and says
        no more. Lines whose name is ``invalid_class_id`` are left out, as are empty ones and those
        that begin with ``#``, but for one of these: ``# stuff: 2, 5-9`` lists the ids of stuff. In
        a file without it all categories are things.

        Args:
            path: The file.
            stuff: Names of further categories that are stuff, as for :meth:`with_stuff`.

        Raises:
            OSError: It cannot be opened.
            ValueError: It holds something else; the message names the line.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: expected a label set in UTF-8, but {error}") from error
        return _label_lines(str(path), lines).with_stuff(stuff)

    @classmethod
    def of_caption(cls, caption: str) -> Vocabulary:
        """What a caption speaks of: each of its noun phrases
        (:func:`vpd.data.nouns.noun_phrases`) is a category.

        Raises:
            ValueError: A caption without nouns.
        """
        from vpd.data.nouns import noun_phrases

        found = [phrase for phrase in noun_phrases(caption) if phrase]
        if not found:
            raise ValueError(f"vocabulary: expected a caption with nouns, got {caption!r}")
        return cls(tuple((phrase,) for phrase in found))

    @classmethod
    def named(cls, name: str | Path) -> Vocabulary:
        """A label set that comes with vpd, or a file of one.

        Raises:
            OSError, ValueError: As :func:`label_set` and :meth:`read`.
        """
        return label_set(str(name)) if str(name) in LABEL_SETS else cls.read(name)

    def save(self, path: str | Path) -> Path:
        """Writes a label set that :meth:`read` reads, ids from 1.

        Raises:
            ValueError: A name with ``,`` or with a line's end, which no such file can hold.
        """
        path = Path(path)
        bad = next(
            (name for name in self.words if _NAME in name or name.splitlines() != [name]), ""
        )
        if bad:
            raise ValueError(f"{path}: a label set cannot hold the name {bad!r}")
        rows = [f"{i}:{_NAME.join(names)}\n" for i, names in enumerate(self.categories, 1)]
        stuff = [str(i) for i, thing in enumerate(self.things, 1) if not thing]
        head = f"# stuff: {', '.join(stuff)}\n" if stuff else ""
        return write_texts(path.parent, {path.name: head + "".join(rows)})[0]


def label_set(name: str, *, synonyms: bool = True) -> Vocabulary:
    """A label set that comes with vpd (:data:`LABEL_SETS`), with things and stuff where its data
    set has them.

    Args:
        name: Such as "coco_panoptic".
        synonyms: Take all names of a category, not its first one alone.

    Raises:
        ValueError: Another name.
    """
    if name not in LABEL_SETS:
        raise ValueError(f"label set must be one of {', '.join(LABEL_SETS)}, got {name!r}")
    found = Vocabulary.read(_LABELS / f"{name}.txt")
    if synonyms:
        return found
    return Vocabulary(tuple(names[:1] for names in found.categories), found.things)


def usual_set(data: str, by: str = "shape") -> str | None:
    """The label set of a data set by the names that commands use; None if it has none.

    Args:
        data: Such as "coco-panoptic".
        by: Of Tabletop: what a category is, "shape" or "color".
    """
    return f"tabletop_{by}s" if data == "tabletop" else _USUAL.get(data)


def data_vocabulary(
    data: str, names: Sequence[str], things: Sequence[bool], by: str = "shape"
) -> Vocabulary:
    """What the classes of a data set are called: its :func:`usual_set` if that has as many and the
    same of them are things, else the names that it comes with.

    Tabletop's are always those of its label sets: no caption of it says "floor", so vpd-mini could
    not tell it from "wall" by these names alone.

    Args:
        data, by: As for :func:`usual_set`.
        names, things: Of its classes.
    """
    own = Vocabulary(tuple((name,) for name in names), tuple(things))
    usual = usual_set(data, by)
    for name in dict.fromkeys((*([usual] if usual else []), *_TABLETOP)):
        found = label_set(name)
        if found.things == own.things and (name == usual or found.names == own.names):
            return found
    return own


def _category(number: int, names: object) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(
            f"vocabulary: expected the names of category {number + 1} in a sequence, got "
            f"{type(names).__name__}"
        )
    found: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"vocabulary: expected names, got {type(name).__name__}")
        if not name.strip():
            raise ValueError(f"vocabulary: category {number + 1} has an empty name")
        found.setdefault(plain(name), " ".join(name.split()))
    if not found:
        raise ValueError(f"vocabulary: category {number + 1} has no name")
    return tuple(found.values())


def _check_distinct(categories: Sequence[Sequence[str]]) -> None:
    owner: dict[str, int] = {}
    for i, names in enumerate(categories):
        for name in names:
            first = owner.setdefault(plain(name), i)
            if first != i:
                raise ValueError(
                    f"vocabulary: expected each name in one category, got {name!r} in "
                    f"{', '.join(categories[first])!r} and in {', '.join(names)!r}"
                )


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in re.split(separator, text) if part.strip()]


def _label_lines(path: str, lines: Sequence[str]) -> Vocabulary:
    ids: dict[int, int] = {}  # where each is named
    categories: list[tuple[str, ...]] = []
    kept: list[int] = []
    stuff: set[int] = set()
    marks: list[tuple[str, set[int]]] = []
    for number, line in enumerate(lines, 1):
        where, text = f"{path}:{number}", line.strip()
        mark = _STUFF.fullmatch(text)
        if mark:
            marks.append((where, _ids(where, mark[1])))
        if not text or text.startswith("#"):
            continue
        start, colon, rest = text.partition(":")
        if not colon or not re.fullmatch(r"\d+", start.strip(), re.ASCII):
            raise ValueError(f"{where}: expected 'id:name1,name2,...', got {text!r}")
        own = int(start)
        if ids.setdefault(own, number) != number:
            raise ValueError(f"{where}: expected every id once, got {own} of line {ids[own]} again")
        names = tuple(_split(rest, _NAME))
        if not names:
            raise ValueError(f"{where}: expected names behind {start.strip()}:, got none")
        if names != (_INVALID,):
            categories.append(names)
            kept.append(own)
    for where, named in marks:
        unknown = named - ids.keys()
        if unknown:
            raise ValueError(f"{where}: expected ids of this file, got {min(unknown)}")
        stuff |= named
    try:
        return Vocabulary(tuple(categories), tuple(own not in stuff for own in kept))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _ids(where: str, text: str) -> set[int]:
    found: set[int] = set()
    for part in _split(text, ","):
        match = re.fullmatch(r"(\d{1,9})(?:\s*-\s*(\d{1,9}))?", part, re.ASCII)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else -1
        if last < first or last - first > 100_000:
            raise ValueError(f"{where}: expected ids of stuff such as '2, 5-9', got {part!r}")
        found.update(range(first, last + 1))
    return found
