"""Training of panoptic segmentation, and what both panoptic trainings share: Mask2Former's
criterion and segments as targets."""

from typing import Any

from vpd._lazy import public

_PUBLIC = {
    "RECIPE": "vpd.train.panoptic.training",
    "PanopticTrainConfig": "vpd.train.panoptic.config",
    "train": "vpd.train.panoptic.training",
}

__all__ = ["RECIPE", "PanopticTrainConfig", "train"]


def __getattr__(name: str) -> Any:
    return public(__name__, _PUBLIC, name)
