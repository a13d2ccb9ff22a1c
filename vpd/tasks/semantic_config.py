"""What determines a semantic segmenter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vpd.images import Size, sides
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
    image_size: Size = 512
    """Height and width, or the side, of the crops that it is trained on and of the windows of a
    sliding test."""
    stride: Size = 341
    """Between windows, along y and x or along both."""
    resize: Literal["keep_ratio", "none"] = "keep_ratio"
    """How a picture comes to the test. ``keep_ratio``: its shorter side becomes that of
    ``image_size``, or less where the longer one would exceed four times that. ``none``: as it
    is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        steps = zip(sides(self.stride), sides(self.image_size), strict=True)
        if any(not 0 < step <= side for step, side in steps):
            raise ValueError(
                f"SemanticConfig.stride must be in [1, image_size = {self.image_size}], got "
                f"{self.stride}"
            )
