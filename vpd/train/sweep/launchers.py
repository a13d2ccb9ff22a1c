"""Ways to run the cells of a sweep elsewhere than in this process."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from vpd.cli.answer import plain
from vpd.data.files import atomic_write
from vpd.train.sweep.grid import Cell, SweepConfig
from vpd.train.workers import cluster

__all__ = ["Launcher", "spread", "submit"]

Launcher = Literal["local", "ray", "slurm"]


def spread(config: SweepConfig, cells: list[Cell], workers: int) -> dict[str, str]:
    """Runs cells as tasks of a Ray cluster (the one that this process belongs to, or one that is
    started for the occasion), ``workers`` at a time. ``config.out`` must lie on a file system that
    all machines share.

    Returns:
        Cells that failed, and why.

    Raises:
        ImportError: Ray is not installed.
    """
    with cluster(workers) as ray:  # without one that is there, a worker gets one CPU
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_run_one)
        waiting = list(cells)
        running: dict[Any, str] = {}
        failed: dict[str, str] = {}
        while waiting or running:
            while waiting and len(running) < workers:
                name = waiting.pop(0).name
                running[task.remote(config, name)] = name
            (done,), _ = ray.wait(list(running), num_returns=1)
            name = running.pop(done)
            try:
                failed |= ray.get(done)
            except ray.exceptions.RayError as error:  # the worker died, or the cell is broken
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        return failed


def _run_one(config: SweepConfig, name: str) -> dict[str, str]:
    """What a Ray worker does: one cell, by its name."""
    from vpd.train.sweep.run import sweep

    return sweep(config, cells=[name]).failed


def submit(config: SweepConfig, cells: list[Cell], workers: int) -> str:
    """Submits an array of SLURM jobs that share the cells among them.

    Writes ``sweep.yaml`` and ``sweep.sbatch`` below ``config.out``; options of SLURM (time,
    partition, GPUs) come from the environment: ``SBATCH_TIMELIMIT``, ``SBATCH_PARTITION``,
    ``SBATCH_GPUS``, ...

    Returns:
        What ``sbatch`` answered.

    Raises:
        OSError: There is no ``sbatch`` here, or it refuses.
    """
    import yaml

    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    options = plain(asdict(config)) | {"out": str(out.resolve())}
    with atomic_write(out / "sweep.yaml") as file:
        file.write(yaml.safe_dump(options, sort_keys=False).encode())
    words = [
        sys.executable,
        "-m",
        "vpd.cli",
        "sweep",
        "--config",
        str(out.resolve() / "sweep.yaml"),
    ]
    words += ["--cell", *(cell.name for cell in cells)]
    script = out / "sweep.sbatch"
    with atomic_write(script) as file:
        file.write(
            "#!/bin/bash\n"
            f"#SBATCH --job-name=vpd-sweep --array=1-{workers} --ntasks=1 --requeue\n"
            f"#SBATCH --output={shlex.quote(str(out.resolve() / 'slurm-%A_%a.log'))}\n"
            f"exec {shlex.join(words)}\n".encode()
        )
    if shutil.which("sbatch") is None:
        raise OSError(f"there is no sbatch here; on a machine that has it: sbatch {script}")
    done = subprocess.run(["sbatch", str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"sbatch {script}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()
