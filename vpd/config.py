"""Configs are frozen dataclasses; this reads them back from plain data."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")
# Of a field's type: what is taken for it, and what that is called.
_PLAIN: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "an integer"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
    str: ((str,), "text"),
}


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """Builds the dataclass ``cls`` from nested dicts and lists, as JSON or YAML give them.

    Raises:
        ValueError: A key that ``cls`` does not have (with the nearest one as a suggestion) or that
            is missing, a value of another type or outside of what ``cls`` takes, or not a mapping
            at all.
    """
    where = where or cls.__name__
    if not isinstance(data, dict):
        raise ValueError(f"{where}: expected a mapping, got {type(data).__name__}")
    hints = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{where}: unknown key {key!r}{hint}")
    values = {k: _convert(hints[k], v, f"{where}.{k}") for k, v in data.items()}
    try:
        return cls(**values)
    except (
        TypeError,
        ArithmeticError,
    ) as error:  # a field is missing, or its number makes no sense
        raise ValueError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        if len(options) > 1 and isinstance(value, list):  # only a tuple can be written as a list
            options = [option for option in options if typing.get_origin(option) is tuple]
        return value if value is None or len(options) != 1 else _convert(options[0], value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_dict(hint, value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: expected a list, got {value!r:.80}")
        hints = typing.get_args(hint)
        if hints[1:] == (Ellipsis,):  # any length, all items alike
            hints = hints[:1] * len(value)
        if len(hints) != len(value):
            raise ValueError(f"{where}: expected {len(hints)} values, got {value!r:.80}")
        items = zip(hints, value, strict=True)
        return tuple(_convert(own, item, f"{where}[{i}]") for i, (own, item) in enumerate(items))
    if origin is typing.Literal and not any(value == known for known in typing.get_args(hint)):
        raise ValueError(f"{where}: expected one of {typing.get_args(hint)}, got {value!r:.80}")
    if hint in _PLAIN:
        kinds, called = _PLAIN[hint]
        if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
            raise ValueError(f"{where}: expected {called}, got {value!r:.80}")
    return value
