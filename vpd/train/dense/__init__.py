"""Training of models with a value for every pixel: what semantic segmentation and depth share
(`run`), and the two recipes (`semantic`, `depth`)."""

from typing import Any

from vpd._lazy import public

_PUBLIC = {
    "DenseData": "vpd.train.dense.fields",
    "SemanticTrainConfig": "vpd.train.dense.config",
    "DepthTrainConfig": "vpd.train.dense.config",
    "TaggingOptions": "vpd.train.dense.condition_fields",
}

__all__ = ["DenseData", "DepthTrainConfig", "SemanticTrainConfig", "TaggingOptions"]


def __getattr__(name: str) -> Any:
    return public(__name__, _PUBLIC, name)
