"""How the pictures of a data set are shared when a model is scored: among the processes of a group,
or among workers that may die."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import torch.distributed as dist

__all__ = ["Counted", "Group", "Spread", "Unit", "count_unit", "own_part", "speaks", "together"]

Counted: TypeAlias = tuple[list[Any], float]
"""Metrics, and the seconds that what they are of took."""
Places = TypeVar("Places", bound=Sequence[Any])


class Unit:
    """One unit of work: a picture, or pictures that share a pass of the networks. It is scored by
    itself, so that it can be scored anywhere and again."""

    def __init__(self, index: int) -> None:
        self.index = index


class Spread:
    """All units, scored elsewhere; here they are only added up.

    They are added in their order, each as one number: the sums are those of one process to the last
    bit, however many workers there are and whatever becomes of them.

    Args:
        count: Scores so many units; what each counted, in their order.
    """

    def __init__(self, count: Callable[[int], Iterable[Counted]]) -> None:
        self._count = count
        self._units = 0

    def expect(self, units: int) -> None:
        self._units = units

    def counted(self) -> Iterable[Counted]:
        return self._count(self._units)


Group: TypeAlias = "dist.ProcessGroup | Unit | Spread | None"
"""Who shares the work: nobody if None."""


class _HandedOver(Exception):
    """Ends the scoring of a unit where its counts would be added to those of others."""

    def __init__(self, counted: Counted) -> None:
        super().__init__()
        self.counted = counted


def count_unit(score: Callable[[Group], object], index: int) -> Counted:
    """What a scoring function counts for one unit; nothing is computed from the counts.

    Args:
        score: Calls :func:`own_part` and :func:`together`, each once, with the group it is given.
    """
    try:
        score(Unit(index))
    except _HandedOver as done:
        return done.counted
    raise AssertionError("the scoring function never came together with others")


def own_part(places: Places, group: Group) -> Places:
    """What of the units (places of pictures, or groups of such) is to be scored here."""
    part = slice(None)
    if isinstance(group, Unit):
        part = slice(group.index, group.index + 1)
    elif isinstance(group, Spread):
        group.expect(len(places))
        part = slice(0)
    elif group is not None:
        part = slice(group.rank(), None, group.size())
    return places[part]  # type: ignore[return-value]


def speaks(group: Group) -> bool:
    """Whether this is where progress is shown."""
    return not isinstance(group, (Unit, Spread)) and (group is None or group.rank() == 0)


def together(metrics: list[Any], seconds: float, group: Group) -> Counted:
    """What all have counted, and their time, in the same order everywhere.

    Args:
        metrics: What was counted here; each has ``merge``.
        seconds: That it took.
    """
    if group is None:
        return metrics, seconds
    if isinstance(group, Unit):
        raise _HandedOver((metrics, seconds))
    found: Iterable[Counted]
    if isinstance(group, Spread):
        found = group.counted()
    else:
        gathered: list[Any] = [None] * group.size()
        dist.all_gather_object(gathered, (metrics, seconds), group=group)
        (metrics, seconds), *found = gathered
    for theirs, more in found:
        for mine, other in zip(metrics, theirs, strict=True):
            mine.merge(other)
        seconds += more
    return metrics, seconds
