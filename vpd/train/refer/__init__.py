"""Training of referring segmentation."""

from typing import Any

from vpd._lazy import public

_PUBLIC = {
    "ReferData": "vpd.train.refer.config",
    "ReferTrainConfig": "vpd.train.refer.config",
    "build": "vpd.train.refer.model",
    "train": "vpd.train.refer.run",
}

__all__ = ["ReferData", "ReferTrainConfig", "build", "train"]


def __getattr__(name: str) -> Any:
    return public(__name__, _PUBLIC, name)
