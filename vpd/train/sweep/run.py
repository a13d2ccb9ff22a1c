"""Runs a grid of trainings: cell by cell, resumable, by any number of processes at once."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vpd.train.loop.recipe import check_recipe
from vpd.train.sweep import launchers
from vpd.train.sweep.cell import State, claimed, run_cell, state_of
from vpd.train.sweep.grid import Cell, SweepConfig, cells_of, chosen
from vpd.train.sweep.launchers import Launcher
from vpd.train.sweep.results import draw, read_rows, table, write_results

__all__ = ["State", "SweepReport", "sweep"]

log = logging.getLogger("vpd")


@dataclass(frozen=True)
class SweepReport:
    """Where a sweep stands."""

    cells: dict[str, State]
    """Of every cell, by name; ``running``: some process has it."""
    steps: dict[str, str]
    """Steps x batch of every cell."""
    rows: list[dict[str, Any]]
    """Of the trained cells: choices, variant, seed, metrics, seconds; one more for each condition
    of inference."""
    table: str
    """Markdown: mean and standard deviation over seeds."""
    failed: dict[str, str] = field(default_factory=dict)
    """Cells that ended in an error, and the error."""
    files: tuple[Path, ...] = ()
    note: str = ""
    """What a launcher has to say."""


def sweep(
    config: SweepConfig,
    *,
    cells: Iterable[str] | None = None,
    dry_run: bool = False,
    run: bool = True,
    launcher: Launcher = "local",
    workers: int = 1,
) -> SweepReport:
    """Trains the cells that are not finished; an interrupted one goes on from its checkpoint.

    Every cell is a run folder below ``config.out``, trained once it has a ``result.json``. A
    process claims a cell by locking a file in it; the system drops the lock when the process
    ends, however it ends, so several processes (also of several machines on a file system with
    locks) may work on one sweep. The results are written anew after each cell.

    Args:
        cells: Names or patterns of the cells to run; all if None.
        dry_run: Only say what would run; nothing is written.
        run: False: only write results, tables and pictures of what is finished.
        launcher: ``local``: in this process, one after the other. ``ray``: spread over a Ray
            cluster, or over processes of this machine if there is none. ``slurm``: submitted as an
            array of jobs; returns at once.
        workers: Of ``ray``: cells at a time; of ``slurm``: jobs.

    Raises:
        ValueError: A mistake in any cell, before the first one runs; or a cell's folder that holds
            a run of another config.
        OSError: A file that cannot be read or written.
        ImportError: Ray is asked for and not installed.
    """
    grid = cells_of(config)
    wanted = chosen(grid, cells)
    for cell in grid:
        check_recipe(cell.config)
    if dry_run:
        return _report(config, grid)
    if launcher == "slurm" and run:
        return _report(config, grid, note=launchers.submit(config, wanted, workers))
    if launcher == "ray" and run:
        failed = launchers.spread(config, wanted, workers)
    else:
        failed = run_cells(config, grid, wanted if run else [])
    rows = read_rows(config, grid)
    files = write_results(config, rows) + draw(config, grid, rows)
    return _report(config, grid, failed, tuple(files))


def run_cells(config: SweepConfig, grid: list[Cell], wanted: list[Cell]) -> dict[str, str]:
    """Runs cells here, one after the other; returns those that failed, and why."""
    failed: dict[str, str] = {}
    for cell in wanted:
        with claimed(Path(cell.config.out)) as mine:
            if not mine:
                continue
            try:
                run_cell(config, cell)
            except (ValueError, TypeError, OSError, RuntimeError, ArithmeticError) as error:
                log.exception("cell %s failed", cell.name)
                failed[cell.name] = f"{type(error).__name__}: {error}"
        write_results(config, read_rows(config, grid))
    return failed


def _report(
    config: SweepConfig,
    grid: list[Cell],
    failed: dict[str, str] | None = None,
    files: tuple[Path, ...] = (),
    note: str = "",
) -> SweepReport:
    steps = {}
    for cell in grid:
        loop, epochs = cell.config.loop, cell.config.epochs
        length = f"{loop.steps} steps" if epochs is None else f"{epochs} epochs"
        steps[cell.name] = f"{length} x {loop.batch}"
    rows = read_rows(config, grid)
    states = {cell.name: state_of(config, cell) for cell in grid}
    return SweepReport(states, steps, rows, table(config, rows), failed or {}, files, note)
