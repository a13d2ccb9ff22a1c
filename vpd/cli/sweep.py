"""``vpd sweep``."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from vpd.cli.answer import Answer, plain
from vpd.train.sweep import run as sweeps
from vpd.train.sweep.grid import SweepConfig
from vpd.train.sweep.launchers import Launcher


def sweep(
    config: SweepConfig,
    *,
    cell: list[str] | None = None,
    dry_run: bool = False,
    run: bool = True,
    launcher: Launcher = "local",
    workers: int = 2,
) -> Answer:
    """Trains every cell of a grid: vpd sweep --config configs/experiments/prior_value.yaml.

    Finished cells are left as they are, interrupted ones go on from their last checkpoint; several
    processes started with the same options share the work. Writes OUT/results.jsonl and, drawn from
    it, results.csv, summary.csv, table.md and the pictures that the config asks for.

    Args:
        cell: only these cells; * stands for anything
        dry_run: only list the cells and where they stand
        run: --no-run writes results, table and pictures of what is finished
        launcher: local: in this process; ray: spread over a Ray cluster, or over processes here;
            slurm: submitted as an array of jobs
        workers: cells at a time (ray), jobs (slurm)
    """
    report = sweeps.sweep(
        config, cells=cell, dry_run=dry_run, run=run, launcher=launcher, workers=workers
    )
    lines = []
    if dry_run:
        width = max(map(len, report.cells))
        lines = [f"{n:<{width}}  {report.steps[n]:<18} {s}" for n, s in report.cells.items()]
    elif report.rows:
        lines = [report.table]
    counts = Counter(report.cells.values())
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    lines.append(f"{len(report.cells)} cells: {states}")
    lines += [report.note] if report.note else []
    lines += [f"failed: {name}: {error}" for name, error in report.failed.items()]
    lines += [f"wrote {path}" for path in report.files]
    return Answer(plain(asdict(report)), "\n".join(lines), code=1 if report.failed else 0)
