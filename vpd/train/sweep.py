"""Runs a grid of trainings: cell by cell, resumable, by any number of processes at once."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from vpd.data.files import atomic_write
from vpd.train.refer import train
from vpd.train.refer_config import recipe
from vpd.train.sweep_grid import Cell, SweepConfig, cells_of, chosen, flat
from vpd.train.sweep_results import draw, read_rows, table, write_results

__all__ = ["State", "SweepConfig", "SweepReport", "sweep"]

log = logging.getLogger("vpd")

State = Literal["finished", "running", "interrupted", "waiting"]


@dataclass(frozen=True)
class SweepReport:
    """Where a sweep stands."""

    cells: dict[str, State]
    """Of every cell, by name; ``running``: some process has it."""
    steps: dict[str, str]
    """Steps x batch of every cell."""
    rows: list[dict[str, Any]]
    """Of the finished cells: choices, variant, seed, metrics, seconds."""
    table: str
    """Markdown: mean and standard deviation over seeds."""
    failed: dict[str, str] = field(default_factory=dict)
    """Cells that ended in an error, and the error."""
    files: tuple[Path, ...] = ()


def sweep(
    config: SweepConfig,
    *,
    cells: Iterable[str] | None = None,
    dry_run: bool = False,
    run: bool = True,
) -> SweepReport:
    """Trains the cells that are not finished; an interrupted one goes on from its checkpoint.

    Every cell is a run folder below ``config.out``, finished once it has a ``result.json``. A
    process claims a cell by locking a file in it; the system drops the lock when the process
    ends, however it ends, so several processes (also of several machines on a file system with
    locks) may work on one sweep. ``results.json``, ``table.md`` and the pictures are written anew
    after each cell.

    Args:
        cells: Names or patterns of the cells to run; all if None.
        dry_run: Only say what would run; nothing is written.
        run: False: only write results, table and pictures of what is finished.

    Raises:
        ValueError: A mistake in any cell, before the first one runs; or a cell's folder that holds
            a run of another config.
        OSError: A file that cannot be read or written.
    """
    out = Path(config.out)
    grid = cells_of(config)
    wanted = chosen(grid, cells)
    for cell in grid:
        _check_same(cell, out)
    failed: dict[str, str] = {}
    if dry_run:
        return _report(config, grid, failed, ())
    for cell in wanted if run else ():
        with _claimed(out / cell.name) as mine:
            if not mine or _result(out / cell.name).exists():
                continue
            log.info("cell %s", cell.name)
            try:
                _run(cell, out)
            except (ValueError, TypeError, OSError, RuntimeError, ArithmeticError) as error:
                log.exception("cell %s failed", cell.name)
                failed[cell.name] = f"{type(error).__name__}: {error}"
        write_results(config, grid)
    files = write_results(config, grid) + draw(config, grid)
    return _report(config, grid, failed, tuple(files))


def _run(cell: Cell, out: Path) -> None:
    folder = out / cell.name
    own = {"cell": cell.name, "overrides": cell.overrides, "recipe": flat(recipe(cell.config))}
    _write_json(folder / "cell.json", own)
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
    _write_json(_result(folder), result)


def _machine() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"host": socket.gethostname(), "threads": torch.get_num_threads(), "gpu": gpu}


@contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
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


def _state(folder: Path) -> State:
    if _result(folder).exists():
        return "finished"
    lock = folder / "lock"
    if lock.exists():
        with open(lock) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return "running"
    return "interrupted" if (folder / "last.ckpt").exists() else "waiting"


def _check_same(cell: Cell, out: Path) -> None:
    """Refuses a folder that holds a run of another config. Fields that only one of the two knows,
    as those of another version of vpd, are not compared."""
    path = out / cell.name / "cell.json"
    if not path.exists():
        return
    own = json.loads(json.dumps(flat(recipe(cell.config))))
    there = json.loads(path.read_text())["recipe"]
    for name in own.keys() & there.keys():
        if own[name] != there[name]:
            raise ValueError(
                f"{path.parent} holds a run with {name} = {there[name]!r}, expected "
                f"{own[name]!r}; choose another folder with --out, or remove it"
            )


def _report(
    config: SweepConfig, grid: list[Cell], failed: dict[str, str], files: tuple[Path, ...]
) -> SweepReport:
    out = Path(config.out)
    steps = {}
    for cell in grid:
        loop, epochs = cell.config.loop, cell.config.epochs
        length = f"{loop.steps} steps" if epochs is None else f"{epochs} epochs"
        steps[cell.name] = f"{length} x {loop.batch}"
    rows = read_rows(config, grid)
    states = {cell.name: _state(out / cell.name) for cell in grid}
    return SweepReport(states, steps, rows, table(config, rows), failed, files)


def _result(folder: Path) -> Path:
    return folder / "result.json"


def _write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())
