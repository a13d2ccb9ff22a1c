"""Tags of one picture, as something to look at and to keep."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vpd.data.files import atomic_write

__all__ = ["TagResult"]


@dataclass(frozen=True)
class TagResult:
    """The tags of one picture."""

    image: np.ndarray
    """The image as it came, uint8 [H, W, 3]."""
    tags: tuple[tuple[str, float], ...]
    """Words and scores, the surest first."""
    truth: tuple[str, ...] | None = None
    """The tags it should have, if known."""

    @property
    def names(self) -> tuple[str, ...]:
        """The words alone."""
        return tuple(name for name, _ in self.tags)

    def __repr__(self) -> str:
        top = ", ".join(f"{name} {score:.2f}" for name, score in self.tags[:4])
        return f"TagResult({len(self.tags)} tags: {top}{', ...' if len(self.tags) > 4 else ''})"

    def _repr_png_(self) -> bytes:
        return self.show()._repr_png_()

    def show(self, top: int = 12) -> Any:
        """A figure of the image and the ``top`` surest tags as bars; notebooks draw it."""
        from vpd.viz.tags import tags_figure

        return tags_figure(self, top)

    def save(self, path: str | Path) -> Path:
        """Writes tags and scores (``.json``) or the figure (``.figure.png``). The file appears only
        when complete.

        Raises:
            ValueError: Another extension.
        """
        from vpd.viz.files import save_as

        def tags(path: Path) -> None:
            said = {"tags": list(self.names), "scores": [score for _, score in self.tags]}
            with atomic_write(path) as file:
                file.write((json.dumps(said, ensure_ascii=False) + "\n").encode())

        return save_as(path, {".figure.png": lambda path: self.show().save(path), ".json": tags})
