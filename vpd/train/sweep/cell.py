"""One cell of a sweep on disk: who has it, what it found, what is still to do."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from vpd.data.files import atomic_write
from vpd.tasks import store
from vpd.train.loop.recipe import keep_recipe
from vpd.train.refer.data import val_samples
from vpd.train.sweep.grid import Cell, SweepConfig
from vpd.train.sweep.inference import Inference, evaluate_under
from vpd.train.tasks import train

__all__ = [
    "State",
    "claimed",
    "read_inference",
    "read_result",
    "run_cell",
    "state_of",
]

log = logging.getLogger("vpd")

State = Literal["finished", "running", "interrupted", "waiting"]


def run_cell(config: SweepConfig, cell: Cell) -> None:
    """Does what is left to do of a cell: trains it, scores it under the sweep's conditions."""
    folder = Path(cell.config.out)
    if read_result(folder) is None:
        log.info("cell %s", cell.name)
        _train(cell, folder)
    missing = _missing(folder, config.inference)
    if missing:
        log.info("cell %s under %s", cell.name, ", ".join(missing))
        _score(cell, folder, missing)


def _train(cell: Cell, folder: Path) -> None:
    keep_recipe(cell.config)
    resumed = (folder / "last.ckpt").exists()
    start = time.perf_counter()
    metrics = train(cell.config)
    result = {
        "cell": cell.name,
        "choices": cell.choices,
        "variant": cell.variant,
        "seed": cell.seed,
        "overrides": cell.overrides,
        "metrics": metrics,
        # Of this process alone: `resumed` says that another one had begun.
        "seconds": round(time.perf_counter() - start, 1),
        "resumed": resumed,
        "machine": _machine(),
    }
    _write_json(folder / "result.json", result)


def _score(cell: Cell, folder: Path, conditions: dict[str, Inference]) -> None:
    config = cell.config
    found = evaluate_under(
        store.load(folder / "model", "cuda" if torch.cuda.is_available() else "cpu"),
        val_samples(config.data, config.progress),
        conditions,
        batch=64,
        limit=config.data.final_limit,
        progress=config.progress,
    )
    known = read_inference(folder)
    for name, metrics in found.items():
        known[name] = {"fields": asdict(conditions[name]), "metrics": metrics}
    _write_json(folder / "inference.json", known)


def _missing(folder: Path, conditions: dict[str, Inference]) -> dict[str, Inference]:
    """Conditions under which a cell was not scored yet, or of other fields than then."""
    known = read_inference(folder)
    return {
        name: condition
        for name, condition in conditions.items()
        if known.get(name, {}).get("fields") != asdict(condition)
    }


def read_result(folder: Path) -> dict[str, Any] | None:
    """What a trained cell found, None before."""
    path = folder / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def read_inference(folder: Path) -> dict[str, Any]:
    """Condition -> its ``fields`` and ``metrics``, of those scored so far."""
    path = folder / "inference.json"
    return json.loads(path.read_text()) if path.exists() else {}


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process holds the cell, for as long as the block lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            log.info("%s is being run by %s", folder.name, file.read().strip() or "another process")
            yield False
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield True


def state_of(config: SweepConfig, cell: Cell) -> State:
    folder = Path(cell.config.out)
    trained = (folder / "result.json").exists()
    if trained and not _missing(folder, config.inference):
        return "finished"
    lock = folder / "lock"
    if lock.exists():
        with open(lock) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return "running"
    return "interrupted" if trained or (folder / "last.ckpt").exists() else "waiting"


def _machine() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"host": socket.gethostname(), "threads": torch.get_num_threads(), "gpu": gpu}


def _write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())
