"""What an editor returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["EditResult"]


@dataclass(frozen=True)
class EditResult:
    """A picture, edited as an instruction says."""

    image: np.ndarray
    """The edited picture, uint8 [H, W, 3]."""
    before: np.ndarray
    """What was edited: the given picture at that size, uint8 [H, W, 3]."""
    instruction: str
    seed: int | None
    """Of its noise; None where the noise was given."""
    text_guidance: float
    image_guidance: float
    truncated: bool = False
    """Whether the instruction was longer than the model reads."""

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"EditResult({self.instruction!r}, {width} x {height} px, seed {self.seed})"

    def _repr_png_(self) -> bytes:
        return self.show()._repr_png_()

    def show(self) -> Any:
        """A figure of the picture before and after; notebooks draw it."""
        from vpd.viz.edit import edit_figure

        return edit_figure([self])

    def save(self, path: str | Path) -> Path:
        """Writes the edited picture (``.png``, ``.jpg``), everything as arrays (``.npz``) or the
        figure (``.figure.png``). The file appears only when complete."""
        from vpd.viz.edit import save_edit

        return save_edit(self, Path(path))
