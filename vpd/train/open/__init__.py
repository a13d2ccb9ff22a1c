"""Training of open-vocabulary panoptic segmentation."""

from typing import Any

from vpd._lazy import public

_PUBLIC = {
    "OpenTrainConfig": "vpd.train.open.config",
    "train": "vpd.train.open.run",
}

__all__ = ["OpenTrainConfig", "train"]


def __getattr__(name: str) -> Any:
    return public(__name__, _PUBLIC, name)
