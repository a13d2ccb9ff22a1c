"""Reads pickles that hold data only. Anything that would import or call is refused, not run."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

from vpd import _C


class _LatinBytes:
    """What Python 3 writes into protocol 2 for `bytes`: a call of `_codecs.encode`.

    Stands in for that function. Without a `__dict__` there is nothing a pickle could alter.
    """

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
        return text.encode("latin-1")


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _LatinBytes()
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def load_plain(path: str | os.PathLike[str]) -> Any:
    """Loads a pickle of dictionaries, lists, tuples, strings and numbers; runs no code of its own.

    Pickles of Python 2 are welcome: their byte strings are read as Latin-1, and bytes become text.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it asks for anything else, or is no whole pickle.
    """
    data = Path(path).read_bytes()
    try:
        _C.check_pickle(data)
        return _as_text(_DataUnpickler(io.BytesIO(data), encoding="latin-1").load(), {})
    # A damaged or hostile pickle can raise nearly anything from inside the unpickler.
    except Exception as error:
        raise ValueError(
            f"{path}: expected a pickle of plain data (dict, list, str, int), but {error}"
        ) from error


def _as_text(value: Any, known: dict[int, Any]) -> Any:
    """``known``: what became of containers, by id; a short pickle can name one over and over."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")
    if not isinstance(value, (dict, list, tuple)):
        return value
    if id(value) not in known:
        if isinstance(value, dict):
            made: Any = {_as_text(k, known): _as_text(v, known) for k, v in value.items()}
        else:
            made = type(value)(_as_text(v, known) for v in value)
        known[id(value)] = made
    return known[id(value)]
