"""Configs from plain data: values of other types are named, not left for later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from vpd.config import from_dict


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1,)
    pair: tuple[float, str] = (0.5, "a")


@dataclass(frozen=True)
class Outer:
    count: int
    share: float = 0.5
    on: bool = False
    name: str | None = None
    kind: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    either: int | str | tuple[int, ...] = 3

    def __post_init__(self) -> None:
        self.share / self.count  # makes no sense for 0


def test_good_values():
    data = {"count": 2, "share": 1, "on": True, "name": "x", "kind": "b"}
    data["inner"] = {"sizes": [1, 2, 3], "pair": [1, "b"]}
    inner = Inner((1, 2, 3), (1, "b"))
    assert from_dict(Outer, data) == Outer(2, 1, True, "x", "b", inner)
    assert from_dict(Outer, {"count": 1, "name": None, "either": [1, 2]}).either == (1, 2)
    assert from_dict(Outer, {"count": 1, "inner": inner}).inner is inner


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "Outer: .*missing.*'count'"),
        ({"count": "2"}, "Outer.count: expected an integer, got '2'"),
        ({"count": True}, "Outer.count: expected an integer, got True"),
        ({"count": 2.0}, "Outer.count: expected an integer, got 2.0"),
        ({"count": 0}, "Outer: float division by zero"),
        ({"count": 1, "share": "x"}, "Outer.share: expected a number"),
        ({"count": 1, "on": 1}, "Outer.on: expected true or false, got 1"),
        ({"count": 1, "name": 5}, "Outer.name: expected text, got 5"),
        ({"count": 1, "kind": ["a"]}, "Outer.kind: expected one of .'a', 'b'.*, got"),
        ({"count": 1, "inner": {"sizes": 3}}, "Outer.inner.sizes: expected a list, got 3"),
        ({"count": 1, "inner": {"sizes": [1, None]}}, r"Outer.inner.sizes\[1\]: expected an int"),
        ({"count": 1, "inner": {"pair": [1]}}, "Outer.inner.pair: expected 2 values"),
        ({"count": 1, "cuont": 2}, "unknown key 'cuont'; did you mean 'count'"),
    ],
)
def test_bad_values(data, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Outer, data)
