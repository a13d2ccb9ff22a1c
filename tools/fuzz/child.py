"""A process that reads cases of one target; when it dies, the case under way lies in its folder."""

from __future__ import annotations

import logging
import random
import resource
import signal
import tempfile
import time
import traceback
from pathlib import Path

from fuzz.targets import TARGETS, Target, corpus

CPU_SECONDS_A_CASE = 20
MEMORY_BYTES = 4 * 2**30  # of address space, beyond what libraries take


def _limit_memory() -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES,) * 2)


def _warm(target: Target, name: str, folder: Path) -> None:
    """Imports and first calls take memory and time that no case is charged for."""
    for file, data in corpus(name).items():
        if file.startswith("good"):
            error = target.check(data, folder)
            if error is not None:
                raise AssertionError(f"{name}/{file} must be read") from error


def run(name: str, first: int, count: int, seconds: float, keep: Path) -> None:
    """Reads cases until there are ``count`` or the time is over, and prints how many and how long.

    Args:
        keep: Where the input under way lies, as ``<number>``.

    Raises:
        SystemExit: A reader raised what it may not raise.
    """
    logging.disable(logging.CRITICAL)
    target = TARGETS[name]
    files = sorted(corpus(name).items())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "a"
        _warm(target, name, folder)
        _limit_memory()
        begin = time.monotonic()
        number = first
        while number < first + count and time.monotonic() < begin + seconds:
            rng = random.Random(f"{name} {number}")
            data = target.damage(files[number % len(files)][1], rng)
            current = keep / str(number)
            current.write_bytes(data)
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS_A_CASE)
            try:
                target.check(data, folder)
            except Exception:
                traceback.print_exc()
                raise SystemExit(1) from None
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            current.unlink()
            number += 1
    print(number - first, time.monotonic() - begin)
