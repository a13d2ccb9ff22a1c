"""What a tagger or a captioner said once, kept in a JSON file by picture.

```
{"<file>": {"tags": ["cube", "ball"], "scores": [0.9, 0.7]}}   # scores may be left out
{"<file>": "cube | ball"}                                      # RAM's output, joined
{"<file>": {"tags": "cube | ball", "caption": "a cube"}}       # Tag2Text's
{"<file>": {"captions": ["a cube and a ball"]}}                # captions, as TADP keeps them
{"images": [...], "annotations": [...]}                        # COCO's captions
```
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Generic, TypeVar

from vpd.data.files import atomic_write, parse_json
from vpd.tags.tagger import Tag, Tagger, picture_name

__all__ = ["CachedTagger", "PictureTable", "read_captions", "write_tags"]

T = TypeVar("T")


class PictureTable(Mapping[str, T], Generic[T]):
    """Something for each picture, by file name.

    A picture is found by its path or any end of it (``train/a.png``, ``a.png``), and else by its
    name without folders or ending, if only one entry has that.

    Args:
        where: What errors call the table.
        rows: By file name.
    """

    def __init__(self, where: str, rows: Mapping[str, T]) -> None:
        self.where = where
        self._rows = dict(rows)
        self._short: dict[str, list[str]] = {}
        for key in self._rows:
            path = PurePosixPath(key.replace("\\", "/"))
            for short in {path.name, path.stem}:
                self._short.setdefault(short, []).append(key)

    def __getitem__(self, name: str) -> T:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, picture: Any) -> T:
        """What belongs to a picture.

        Args:
            picture: A path, or a sample of a data set.

        Raises:
            TypeError: It has no name. ValueError: The table has nothing for it, or several entries
                that could be meant.
        """
        name = picture_name(picture)
        key = self.find(name)
        if key is None:
            raise ValueError(f"{self.where}: nothing for {name!r} among {len(self)} pictures")
        return self._rows[key]

    def find(self, name: str) -> str | None:
        """The entry of a file name, None if there is none; raises as :meth:`of` for several."""
        if name in self._rows:
            return name
        path = PurePath(name)
        for start in range(len(path.parts)):
            key = "/".join(path.parts[start:])
            if key in self._rows:
                return key
        for short in (path.name, path.stem):
            keys = self._short.get(short, [])
            if len(keys) > 1:
                raise ValueError(f"{self.where}: {name!r} could be {keys[0]!r} or {keys[1]!r}")
            if keys:
                return keys[0]
        return None


class CachedTagger(Tagger):
    """Tags from a file.

    Args:
        path: JSON, in one of the forms above.

    Raises:
        OSError: It cannot be opened. ValueError: It holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        said = _read(Path(path))
        rows = {name: _tags(f"{path}: {name!r}", value) for name, value in said.items()}
        self.table: PictureTable[tuple[Tag, ...]] = PictureTable(str(path), rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Every word in the file, in alphabetical order: a vocabulary for :class:`TagSet`."""
        return tuple(sorted({word for tags in self.table.values() for word, _ in tags}))

    def tags(self, picture: Any) -> list[Tag]:
        """See :meth:`Tagger.tags`; raises as :meth:`PictureTable.of`."""
        return list(self.table.of(picture))


def read_captions(path: str | os.PathLike[str]) -> PictureTable[tuple[str, ...]]:
    """Captions from a file: ``captions`` (several), ``caption`` (one), or the text itself; or
    COCO's, ``captions_train2017.json``, also beside segments (``coco_captions``).

    Raises:
        OSError: It cannot be opened. ValueError: It holds something else.
    """
    said = _read(Path(path))
    if isinstance(said.get("images"), list) and isinstance(said.get("annotations"), list):
        said = _of_coco(path, said["images"], said["annotations"])
    return PictureTable(
        str(path), {name: _captions(f"{path}: {name!r}", value) for name, value in said.items()}
    )


def write_tags(path: str | os.PathLike[str], tags: Mapping[str, Sequence[Tag]]) -> Path:
    """Writes tags by file name, for :class:`CachedTagger`."""
    said = {
        name: {"tags": [word for word, _ in one], "scores": [round(score, 6) for _, score in one]}
        for name, one in tags.items()
    }
    with atomic_write(path) as file:
        file.write((json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode())
    return Path(path)


def _read(path: Path) -> dict[str, Any]:
    said = parse_json(path.read_bytes(), path)
    if not isinstance(said, dict):
        raise ValueError(f"{path}: expected a JSON object by file name, got {type(said).__name__}")
    return said


def _tags(where: str, value: Any) -> tuple[Tag, ...]:
    """Tags and scores of one entry, each word once, the highest score first."""
    words, scores = value, None
    if isinstance(value, dict):
        words, scores = value.get("tags"), value.get("scores")
    if isinstance(words, str):
        words = [word.strip() for word in words.split("|") if word.strip()]
    if not isinstance(words, list) or not all(isinstance(w, str) and w.strip() for w in words):
        raise ValueError(f'{where}: expected tags, a list of words or "one | another"')
    if scores is None:
        scores = [1.0] * len(words)
    if (
        not isinstance(scores, list)
        or len(scores) != len(words)
        or not all(isinstance(s, (int, float)) and abs(s) <= sys.float_info.max for s in scores)
    ):
        raise ValueError(f"{where}: expected {len(words)} finite scores, one for each tag")
    best: dict[str, float] = {}
    for word, score in zip(words, scores, strict=True):
        best[word.strip()] = max(float(score), best.get(word.strip(), -math.inf))
    return tuple(sorted(best.items(), key=lambda tag: -tag[1]))


def _of_coco(
    path: str | os.PathLike[str], images: list[Any], annotations: list[Any]
) -> dict[str, Any]:
    """COCO's captions by file name: one to an annotation, or all of a picture beside its
    segments."""
    try:
        files = {image["id"]: str(image["file_name"]) for image in images}
        said: dict[str, Any] = {}
        for own in annotations:
            texts = own["coco_captions"] if "coco_captions" in own else [own["caption"]]
            said.setdefault(files[own["image_id"]], []).extend(texts)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected captions of COCO, but {error} is missing") from error
    return said


def _captions(where: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = value["captions"] if "captions" in value else value.get("caption")
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{where}: expected captions, a list of texts")
    return tuple(value)
