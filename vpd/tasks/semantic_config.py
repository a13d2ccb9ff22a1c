"""What determines a semantic segmenter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vpd.tasks.condition_config import ConditionedConfig

__all__ = ["SemanticConfig"]


@dataclass(frozen=True)
class SemanticConfig(ConditionedConfig):
    """A semantic segmenter; the defaults are VPD's on ADE20K, whose classes are not given here."""

    head: Literal["fpn", "uper"] = "fpn"
    """Semantic FPN with its neck, or UperNet."""
    channels: int = 256
    """Width of the head: 256 for ``fpn``, 512 for ``uper``."""
    auxiliary: bool = False
    """Whether an FCN head on the second coarsest map trains beside the head."""
    dropout: float = 0.1
    image_size: int = 512
    """Side of the square crops that it is trained on and of the windows of a sliding test."""
    stride: int = 341
    """Between windows."""
    resize: Literal["keep_ratio", "none"] = "keep_ratio"
    """How a picture comes to the test. ``keep_ratio``: its shorter side becomes ``image_size``, or
    less where the longer one would exceed four times that. ``none``: as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.stride <= self.image_size:
            raise ValueError(
                f"SemanticConfig.stride must be in [1, image_size = {self.image_size}], got "
                f"{self.stride}"
            )
