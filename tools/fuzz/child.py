"""A process in which Atheris, which is libFuzzer for Python, feeds one target.

usage: python -m fuzz.child TARGET FOLDER [libFuzzer's arguments]
"""

from __future__ import annotations

import gc
import logging
import random
import resource
import sys
import types
from pathlib import Path

import atheris

from fuzz.targets import TARGETS, Target, corpus

MEMORY_BYTES = 4 * 2**30  # of address space, beyond what libraries take


def _limit_memory() -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES,) * 2)


def _warm(target: Target, name: str, folder: Path) -> None:
    """Imports and first calls take memory and time that no input is charged for."""
    for file, data in corpus(name).items():
        if file.startswith("good"):
            error = target.check(data, folder)
            if error is not None:
                raise AssertionError(f"{name}/{file} must be read") from error


def _instrument() -> None:
    """Makes vpd's functions say which branches they take.

    Those in memory, not those to be imported: Atheris knows no loader of editable installations.
    """
    functions = [item for item in gc.get_objects() if isinstance(item, types.FunctionType)]
    for function in functions:
        if (function.__module__ or "").split(".")[0] == "vpd":
            atheris.instrument_func(function)


def main(name: str, folder: Path, arguments: list[str]) -> None:
    """Reads inputs until libFuzzer has enough of them; does not return.

    Args:
        name: Of the target.
        folder: Where its files lie.
        arguments: libFuzzer's.
    """
    logging.disable(logging.CRITICAL)
    target = TARGETS[name]
    _warm(target, name, folder)
    _instrument()
    _limit_memory()

    def read(data: bytes) -> None:
        target.check(data, folder)

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        return target.form.damage(data, rng, lambda part: atheris.Mutate(part, most))[:most]

    atheris.Setup([name, *arguments], read, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
