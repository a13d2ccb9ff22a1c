"""Training of an editor of pictures by instruction."""

from typing import Any

from vpd._lazy import public

_PUBLIC = {
    "EditData": "vpd.train.edit.config",
    "EditTrainConfig": "vpd.train.edit.config",
    "build": "vpd.train.edit.model",
    "train": "vpd.train.edit.run",
}

__all__ = ["EditData", "EditTrainConfig", "build", "train"]


def __getattr__(name: str) -> Any:
    return public(__name__, _PUBLIC, name)
