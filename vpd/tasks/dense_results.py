"""What tasks with a value for every pixel return: small dataclasses that show and save
themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["DepthResult", "SemanticResult", "TaggedResult"]


@dataclass(frozen=True)
class SemanticResult:
    """The class of each pixel."""

    image: np.ndarray
    """The image as it came, uint8 [H, W, 3]."""
    classes: np.ndarray
    """uint8 [H, W] (int32 beyond 256 classes), ids in [0, len(names))."""
    probability: np.ndarray
    """float32 [H, W], how likely the class is in the eyes of the model."""
    names: tuple[str, ...]
    oracle: bool = False
    """Whether the model was told the classes of the picture's label."""

    @cached_property
    def shares(self) -> dict[str, float]:
        """Name -> share of the pixels, of the classes that are there, the largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=len(self.names))
        order = np.argsort(-counts, kind="stable")
        return {self.names[i]: float(counts[i]) / self.classes.size for i in order if counts[i]}

    def mask(self, name: str) -> np.ndarray:
        """bool [H, W]: where a class is.

        Raises:
            KeyError: No class of that name.
        """
        if name not in self.names:
            raise KeyError(f"no class {name!r}; the classes are {', '.join(self.names)}")
        return self.classes == self.names.index(name)

    def __repr__(self) -> str:
        height, width = self.classes.shape
        top = ", ".join(f"{name} {share:.0%}" for name, share in list(self.shares.items())[:4])
        told = ", told its label's classes" if self.oracle else ""
        return f"SemanticResult({width} x {height} px{told}: {top})"

    def show(self) -> Any:
        """Image, classes and their names in colour, as a figure."""
        from vpd.viz.dense import semantic_figure

        return semantic_figure(self)

    def save(self, path: str | Path) -> Path:
        """Writes class ids (``.png``, with a palette), everything as arrays (``.npz``) or the
        figure (``.figure.png``). The file appears only when complete."""
        from vpd.viz.dense import save_semantic

        return save_semantic(self, Path(path))


@dataclass(frozen=True)
class TaggedResult:
    """The classes that a tagging adapter finds in a picture."""

    image: np.ndarray
    """The image as it came, uint8 [H, W, 3]."""
    names: tuple[str, ...]
    """All classes."""
    scores: np.ndarray
    """float32 [K], how likely each is there in the eyes of the adapter."""
    attention: np.ndarray | None
    """float32 [K, rows, columns], where its queries look for each class, summing to 1 over the
    picture; None for an adapter that sees no picture."""

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes and their scores."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        return [(self.names[i], float(self.scores[i])) for i in order]

    def __repr__(self) -> str:
        said = ", ".join(f"{name} {score:.2f}" for name, score in self.top())
        return f"TaggedResult({said})"

    def show(self, top: int = 5) -> Any:
        """The likeliest classes and where the adapter looks for each, as a figure."""
        from vpd.viz.tags import tag_attention_figure, tags_figure

        if self.attention is None:
            from vpd.tags.result import TagResult

            return tags_figure(TagResult(self.image, tuple(self.top(len(self.names)))), top)
        order = np.argsort(-self.scores, kind="stable")[:top]
        names, scores = zip(*self.top(top), strict=True)
        return tag_attention_figure(self.image, self.attention[order], names, scores)


@dataclass(frozen=True)
class DepthResult:
    """The depth of each pixel."""

    image: np.ndarray
    """The image as it came, uint8 [H, W, 3]."""
    depth_m: np.ndarray
    """float32 [H, W], metres."""

    def __repr__(self) -> str:
        height, width = self.depth_m.shape
        low, high = float(self.depth_m.min()), float(self.depth_m.max())
        return f"DepthResult({width} x {height} px, {low:.2f} to {high:.2f} m)"

    def show(self) -> Any:
        """Image and depth in colour, as a figure."""
        from vpd.viz.dense import depth_figure

        return depth_figure(self)

    def save(self, path: str | Path) -> Path:
        """Writes millimetres (``.png``, 16 bit, as NYUv2 stores them), everything as arrays
        (``.npz``) or the figure (``.figure.png``). The file appears only when complete."""
        from vpd.viz.dense import save_depth

        return save_depth(self, Path(path))
