"""Rendered scenes on disk, in chunks of 100: written whole or not at all, so work resumes.

A chunk is `<folder>/<array>-<number>.npy` for each array plus `objects-<number>.json`. Chunks are
rendered by worker processes that take numbers on standard input; a worker whose parent is gone
finds its input closed and ends after the chunk in hand.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpd.data.files import atomic_write
from vpd.data.tabletop.render import render

CHUNK = 100


def chunk_path(folder: Path, array: str, number: int) -> Path:
    """The file of one array ("images", ...) or of the "objects" of a chunk."""
    return folder / f"{array}-{number:05d}.{'json' if array == 'objects' else 'npy'}"


def write_chunk(folder: Path, first_seed: int, number: int, arrays: Sequence[str]) -> None:
    """Renders the scenes of one chunk; objects are written last and mark it as finished."""
    start = first_seed + number * CHUNK
    scenes = [render(seed) for seed in range(start, start + CHUNK)]
    data: dict[str, list[NDArray[Any]]] = {
        "images": [s.image for s in scenes],
        "instances": [s.instance for s in scenes],
        "depths_mm": [np.rint(s.depth_m * 1000).astype(np.uint16) for s in scenes],
    }
    for array in arrays:
        with atomic_write(chunk_path(folder, array, number)) as file:
            np.save(file, np.stack(data[array]))
    rows = [
        [[o.visible_px, o.visible_fraction, o.u, o.z] for o in scene.objects] for scene in scenes
    ]
    with atomic_write(chunk_path(folder, "objects", number)) as file:
        file.write(json.dumps(rows).encode())


def is_finished(folder: Path, number: int, arrays: Sequence[str]) -> bool:
    """Whether every file of a chunk is there."""
    return all(chunk_path(folder, a, number).exists() for a in (*arrays, "objects"))


def render_chunks(
    folder: Path,
    first_seed: int,
    numbers: Sequence[int],
    arrays: Sequence[str],
    workers: int,
    done: Callable[[], object],
) -> None:
    """Renders chunks, in this process or in several; calls `done` after each.

    Raises:
        RuntimeError: if a worker fails, with its error.
    """
    if workers <= 1 or len(numbers) <= 1:
        for number in numbers:
            write_chunk(folder, first_seed, number, arrays)
            done()
        return
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in numbers:
        todo.put(number)
    failures: list[str] = []
    program = f"import sys; from {__name__} import work; work(*sys.argv[1:])"
    command = [sys.executable, "-c", program, str(folder), str(first_seed), *arrays]
    threads = [
        threading.Thread(target=_drive, args=(command, todo, failures, done), daemon=True)
        for _ in range(min(workers, len(numbers)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"rendering failed: {failures[0]}")


def _drive(
    command: list[str],
    todo: "queue.SimpleQueue[int]",
    failures: list[str],
    done: Callable[[], object],
) -> None:
    """Feeds one worker process until nothing is left or any worker has failed."""
    package_root = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as worker:
        assert worker.stdin
        assert worker.stdout
        assert worker.stderr
        while not failures:
            try:
                number = todo.get_nowait()
            except queue.Empty:
                break
            try:
                worker.stdin.write(f"{number}\n")
                worker.stdin.flush()
                answer = worker.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if answer.strip() != str(number):
                printed = worker.stderr.read().strip().splitlines()
                failures.append(printed[-1] if printed else f"a worker ended at chunk {number}")
                break
            done()
        # Leaving the block closes its input, which ends the worker, and waits for it.


def work(folder: str, first_seed: str, *arrays: str) -> None:
    """A worker process: renders the chunks named on standard input, answers with their numbers."""
    for line in sys.stdin:
        write_chunk(Path(folder), int(first_seed), int(line), arrays)
        print(int(line), flush=True)
