"""Grids of trainings: cell by cell, resumable, by any number of processes at once."""

from typing import Any

from vpd._lazy import public

_PUBLIC = {
    "SweepConfig": "vpd.train.sweep.grid",
    "SweepReport": "vpd.train.sweep.run",
    "sweep": "vpd.train.sweep.run",
}

__all__ = ["SweepConfig", "SweepReport", "sweep"]


def __getattr__(name: str) -> Any:
    return public(__name__, _PUBLIC, name)
