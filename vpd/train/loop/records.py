"""What a run leaves on disk while it goes on, such that it may be killed at any moment: checkpoints
that are whole or not there, curves that a resumed run carries on."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.loggers import Logger

from vpd.data.files import atomic_write

__all__ = ["Curves", "WholeCheckpoints"]


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints written beside their place and renamed.

    Lightning's own go through the system's temporary folder; where that is another file system, a
    run killed while one is moved leaves half a file and nothing to resume from.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(path)
        for left in path.parent.glob(f".{path.name}.*.tmp"):  # of a run killed while writing
            left.unlink()
        with atomic_write(path) as file:
            torch.save(checkpoint, file)


class Curves(Logger):
    """Writes ``metrics.csv``: a row for each time something was logged, its step in ``step``.

    The file is whole after every row. A resumed run keeps the rows before the step it resumes from,
    so that the file is the one an uninterrupted run writes.
    """

    name = ""
    version = ""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._rows: list[dict[str, Any]] = []
        self._earlier: list[dict[str, Any]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                self._earlier = [
                    {name: value for name, value in row.items() if value}
                    for row in csv.DictReader(file)
                ]

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        step = 0 if step is None else step
        if not self._rows:
            self._earlier = [row for row in self._earlier if int(row["step"]) < step]
        self._rows.append({**{name: float(value) for name, value in metrics.items()}, "step": step})
        rows = self._earlier + self._rows
        names = sorted({name for row in rows for name in row})
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with atomic_write(self.path) as file:
            file.write(text.getvalue().encode())

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the config stands beside the run."""
