"""Pictures that a training run writes as it goes: its curves, and what it can do by now."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import lightning.pytorch as pl

from vpd.viz.page import Picture
from vpd.viz.training import training_curves

__all__ = ["CurvesPicture", "show"]


def show(module: pl.LightningModule, picture: Picture) -> None:
    """Keeps a picture of the present state below the run's folder, by its step."""
    folder = Path(module.trainer.default_root_dir) / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"step-{module.global_step:06d}.png")


class CurvesPicture(pl.Callback):
    """Draws ``curves.png`` from ``metrics.csv`` at the end, and after a validation if a minute has
    passed since the last time."""

    def __init__(self) -> None:
        self._drawn = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if time.monotonic() - self._drawn > 60:
            self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        path = folder / "metrics.csv"
        if path.exists():
            with path.open(newline="") as file:
                training_curves(list(csv.DictReader(file))).save(folder / "curves.png")
        self._drawn = time.monotonic()
