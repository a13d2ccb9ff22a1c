"""Random choices that stay the same for ever.

Only `random()` of Python's generator is promised to give the same numbers in every version, so
every draw of the world and of its grammar is made from it.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class RandomSource(Protocol):
    """Anything with `random()` in [0, 1): `random.Random`, `numpy.random.Generator`."""

    def random(self) -> float: ...


def uniform(rng: RandomSource, low: float, high: float) -> float:
    """A number in [low, high)."""
    return low + (high - low) * rng.random()


def below(rng: RandomSource, count: int) -> int:
    """An integer in 0 .. count - 1 (count well under 2**53)."""
    return int(rng.random() * count)


def choice(rng: RandomSource, options: Sequence[T]) -> T:
    """One of the options, all equally likely."""
    return options[below(rng, len(options))]


def sample(rng: RandomSource, options: Sequence[T], count: int) -> list[T]:
    """`count` different options in random order."""
    pool = list(options)
    for i in range(count):
        j = i + below(rng, len(pool) - i)
        pool[i], pool[j] = pool[j], pool[i]
    return pool[:count]
