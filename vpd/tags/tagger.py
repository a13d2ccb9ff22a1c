"""What all taggers are: something that says which tags a picture has."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from vpd.images import read_image
from vpd.tags.result import TagResult

__all__ = ["Tag", "Tagger", "picture_name", "picture_pixels", "squashed"]

Tag: TypeAlias = tuple[str, float]
"""A word, and how sure the tagger is of it."""


class Tagger(ABC):
    """Says which tags a picture has."""

    @abstractmethod
    def tags(self, picture: Any) -> list[Tag]:
        """The tags of one picture, the surest first.

        Args:
            picture: What :func:`vpd.images.read_image` takes, or a sample of a data set. A tagger
                that looks reads its pixels, one that remembers its name.
        """

    def __call__(self, picture: Any, truth: Sequence[str] | None = None) -> TagResult:
        """The tags with the picture, to be shown or saved.

        Args:
            picture: As for :meth:`tags`.
            truth: What would be right, if known.
        """
        true = None if truth is None else tuple(truth)
        return TagResult(picture_pixels(picture), tuple(self.tags(picture)), true)


def picture_pixels(picture: Any) -> np.ndarray:
    """uint8 [H, W, 3] of a sample, or of what :func:`vpd.images.read_image` takes."""
    return picture.read_image() if hasattr(picture, "read_image") else read_image(picture)


def picture_name(picture: Any) -> str:
    """The file of a path or sample; the id of a sample without one.

    Raises:
        TypeError: Pixels have no name.
    """
    if isinstance(picture, (str, os.PathLike)):
        return os.fspath(picture)
    for attribute in ("image_path", "id"):
        if hasattr(picture, attribute):
            return str(getattr(picture, attribute))
    raise TypeError(
        f"expected a file name or a sample of a data set, got {type(picture).__name__}: pixels "
        "have no name to look up"
    )


def squashed(picture: Any, size: int, *, bicubic: bool = False) -> np.ndarray:
    """A picture as PIL resizes it, which is what CLIP and RAM were trained with.

    Returns:
        float32 [3, size, size] in [0, 1]; the aspect ratio is not kept.
    """
    from PIL import Image

    pixels = picture_pixels(picture)
    if pixels.shape[:2] != (size, size):
        how = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
        pixels = np.asarray(Image.fromarray(pixels).resize((size, size), how))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)
