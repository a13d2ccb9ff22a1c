"""What every training shares: the loop with its checkpoints and curves, batches in parts, learning
rates, what trains, what is held frozen, what is saved. Nothing here knows a task."""

from typing import Any

from vpd._lazy import public

_PUBLIC = {
    "LoopConfig": "vpd.train.loop.fit",
}

__all__ = ["LoopConfig"]


def __getattr__(name: str) -> Any:
    return public(__name__, _PUBLIC, name)
