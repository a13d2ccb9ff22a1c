"""Workers of a Ray cluster that share a job part by part, and may die."""

from __future__ import annotations

import importlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from vpd.tasks.shares import Counted, Group, Spread, count_unit

__all__ = ["cluster", "score", "spread"]

P = TypeVar("P")
R = TypeVar("R")

_TRIES = 3  # of a part whose workers die
_AHEAD = 4  # parts of a worker that may be finished before an earlier one is
_SHARE = 8  # parts of a worker when a data set is scored
_REFUSALS = (ValueError, TypeError, OSError, ImportError)


@contextmanager
def cluster(cpus: int) -> Iterator[Any]:
    """The Ray cluster that this process belongs to or that ``RAY_ADDRESS`` names; or one of this
    machine with so many CPUs, for the length of the block. Nothing is reported to Ray's makers.

    Returns:
        The module ``ray``.

    Raises:
        ImportError: Ray is not installed.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise ImportError("--launcher ray needs Ray: pip install 'vpd[ray]'") from error
    started = not ray.is_initialized()
    if started:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # A cluster has its own CPUs.
        here = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": cpus}
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        ray.init(include_dashboard=False, **quiet, **here)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def spread(
    ready: Callable[[], Callable[[P], R]],
    parts: Iterable[P],
    workers: int,
    *,
    gpu: bool = False,
) -> Iterator[R]:
    """Does a job's parts in several processes, each with its share of this machine's CPU threads.

    A worker that dies is replaced and its part done again; a part that costs three workers ends the
    job.

    Args:
        ready: Called in each worker, in the folder that this process is in; returns what does a
            part. Parts, what they give and ``ready`` are pickled.
        parts: Taken as they are needed.
        workers: How many at a time; in a cluster, as many of them as it has room for.
        gpu: Each has one to itself.

    Returns:
        What each part gave, in their order.

    Raises:
        ValueError, TypeError, OSError, ImportError: What a worker raised.
        RuntimeError: Another error in a worker.
        ChildProcessError: Three workers died over one part.
        ValueError: ``workers`` below 1, or a cluster without room for one.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    with cluster(workers * threads) as ray:
        needs = {"num_cpus": threads, "num_gpus": int(gpu)}
        workers = min(workers, _room(ray, needs))
        actor = ray.remote(**needs, max_restarts=0)(_Worker)
        start = partial(actor.remote, ready, threads, os.getcwd())
        yield from _in_order(ray, start, parts, workers)


def score(
    ready: Callable[[], Callable[[Group], R]],
    workers: int,
    *,
    gpu: bool = False,
    progress: bool = True,
) -> R:
    """Scores a model on a data set in several processes; the sums are those of one process.

    Args:
        ready: Loads model and data and returns a function such as ``lambda group:
            evaluate_refer(model, samples, group=group)``; called here and in each worker.
        workers, gpu: As for :func:`spread`.
        progress: Show a bar.

    Raises:
        ValueError, OSError, RuntimeError: As :func:`spread`, and what ``ready`` raises.
    """
    from tqdm import tqdm

    def count(units: int) -> Iterator[Counted]:
        size = max(1, units // (workers * _SHARE))
        parts = [range(i, min(i + size, units)) for i in range(0, units, size)]
        if not parts:
            return
        found = spread(partial(_counter, ready), parts, min(workers, len(parts)), gpu=gpu)
        with tqdm(total=units, unit="part", disable=not progress) as bar:
            for counts in found:
                yield from counts
                bar.update(len(counts))

    return ready()(Spread(count))


def _counter(ready: Callable[[], Callable[[Group], R]]) -> Callable[[range], list[Counted]]:
    scorer = ready()
    return lambda part: [count_unit(scorer, index) for index in part]


@dataclass(frozen=True)
class _Refused:
    """What a worker raised and the caller is to raise: Ray would put the worker's traceback into
    the message."""

    error: Exception


class _Worker:
    """What runs in a process of its own."""

    def __init__(
        self, ready: Callable[[], Callable[[Any], Any]], threads: int, folder: str
    ) -> None:
        self._ready, self._threads, self._folder = ready, threads, folder
        self._work: Callable[[Any], Any] | None = None

    def do(self, part: Any) -> Any:
        """What a part gives, or why it is refused."""
        try:
            if self._work is None:
                import cv2
                import torch

                os.chdir(self._folder)
                torch.set_num_threads(self._threads)
                cv2.setNumThreads(self._threads)
                self._work = self._ready()
            return self._work(part)
        except _REFUSALS as error:
            # As one of the kinds that anything can unpickle.
            kind = next(kind for kind in _REFUSALS if isinstance(error, kind))
            return _Refused(kind(str(error)))


def _room(ray: Any, needs: dict[str, int]) -> int:
    """How many workers fit into the cluster as a whole."""
    there = ray.cluster_resources()
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    rooms = [int(there.get(names[key], 0) // need) for key, need in needs.items() if need]
    if min(rooms) < 1:
        raise ValueError(
            f"a worker needs {needs['num_cpus']} CPUs and {needs['num_gpus']} GPUs, the cluster "
            f"has {there.get('CPU', 0):g} and {there.get('GPU', 0):g}"
        )
    return min(rooms)


def _in_order(
    ray: Any, start: Callable[[], Any], parts: Iterable[P], workers: int
) -> Iterator[Any]:
    waiting = enumerate(parts)
    again: deque[tuple[int, P]] = deque()  # their workers have died
    idle = [start() for _ in range(workers)]
    running: dict[Any, tuple[Any, int, P]] = {}
    deaths: dict[int, int] = {}
    found: dict[int, Any] = {}
    taken = given = 0  # parts that were begun; those whose results the caller has
    while True:
        while idle:
            if again:
                number, part = again.popleft()
            elif taken - given < workers * _AHEAD and (one := next(waiting, None)):
                number, part = one
                taken += 1
            else:
                break
            worker = idle.pop()
            running[worker.do.remote(part)] = (worker, number, part)
        if not running:
            return
        (done,), _ = ray.wait(list(running), num_returns=1)
        worker, number, part = running.pop(done)
        try:
            result = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"a worker failed: {error}") from None
        except ray.exceptions.RayError as error:  # it is dead, or the machine it was on
            deaths[number] = deaths.get(number, 0) + 1
            if deaths[number] == _TRIES:
                last = str(error).strip().splitlines()[0]
                raise ChildProcessError(
                    f"part {number}: {_TRIES} workers died over it: {last}"
                ) from None
            again.append((number, part))
            idle.append(start())
            continue
        if isinstance(result, _Refused):
            raise result.error
        idle.append(worker)
        found[number] = result
        while given in found:
            yield found.pop(given)
            given += 1
