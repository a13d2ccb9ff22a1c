"""Class names of the data sets, one a line in `names/`, in the order of their ids."""

import os
from pathlib import Path

_FOLDER = Path(__file__).parent / "names"


def class_names(data_set: str) -> tuple[str, ...]:
    """Names of a data set's classes, as prompts want them (with spaces, not underscores).

    Args:
        data_set: "ade20k" (150), "coco_stuff" (171: 80 things, then 91 stuffs), "cityscapes" (19),
            or "nyuv2" (27 scene types; their order is that of the rule in `vpd.data.depth`).

    Raises:
        ValueError: on another name.
    """
    known = sorted(path.stem for path in _FOLDER.glob("*.txt"))
    if data_set not in known:
        raise ValueError(f"data set must be one of {', '.join(known)}, got {data_set!r}")
    return read_names(_FOLDER / f"{data_set}.txt")


def read_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Reads a text file with one name a line.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it is no UTF-8 text, or see `checked_names`.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected one name a line in UTF-8, but {error}") from error
    return checked_names(str(path), (line.strip() for line in lines))


def checked_names(where: str, names: object) -> tuple[str, ...]:
    """Names as a tuple.

    Raises:
        TypeError: if they are no sequence of strings.
        ValueError: if there is none, or one is empty or repeated: the next ids would be wrong.
    """
    if isinstance(names, str) or not hasattr(names, "__iter__"):
        raise TypeError(f"{where}: expected a sequence of names, got {type(names).__name__}")
    found = tuple(names)
    for i, name in enumerate(found):
        if not isinstance(name, str):
            raise TypeError(f"{where}: expected names, got {type(name).__name__} as number {i}")
        if not name or name in found[:i]:
            fault = f"{name!r} again" if name else "an empty one"
            raise ValueError(f"{where}: expected different names, got {fault} as number {i}")
    if not found:
        raise ValueError(f"{where}: expected at least one name, got none")
    return found


def plain(word: str) -> str:
    """A name as it is compared: `"Dining_Table "` is `"dining table"`."""
    return " ".join(word.replace("_", " ").casefold().split())
