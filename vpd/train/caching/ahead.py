"""Rows of batches made by threads, some steps before they are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

__all__ = ["RowsAhead"]

T = TypeVar("T")
_AHEAD = 2  # steps


class RowsAhead(Generic[T]):
    """Makes rows ahead.

    Args:
        drawn: What the rows of a step's batch are made of.
        make: A row, of that, the step and its place in the batch.
        workers: Threads; None: one per CPU.
    """

    def __init__(
        self,
        drawn: Callable[[int], Sequence[Any]],
        make: Callable[[Any, int, int], T],
        workers: int | None = None,
    ) -> None:
        self._drawn, self._make = drawn, make
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="augment")
        self._rows: dict[tuple[int, int], Future[T]] = {}

    def __call__(self, step: int, places: Sequence[int]) -> list[T]:
        """Rows of a step; the same places of the next ones are begun."""
        for ahead in range(step, step + 1 + _AHEAD):
            drawn = self._drawn(ahead)
            for place in places:
                if (ahead, place) not in self._rows:
                    made = self._pool.submit(self._make, drawn[place], ahead, place)
                    self._rows[ahead, place] = made
        for old in [key for key in self._rows if key[0] < step]:
            self._rows.pop(old).cancel()
        return [self._rows[step, place].result() for place in places]

    def close(self) -> None:
        """Ends the threads; what they have not begun is left."""
        self._pool.shutdown(cancel_futures=True)
