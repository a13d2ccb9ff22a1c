"""The size at which a picture is edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vpd.images import RGBImage

__all__ = ["edit_size", "fitted"]


def edit_size(size: tuple[int, int], resolution: int, multiple: int = 64) -> tuple[int, int]:
    """Height and width at which a picture is edited, by InstructPix2Pix' rule.

    The longer side becomes ``resolution`` or a little more: such that the shorter one is a multiple
    of ``multiple``, rounded up; the longer one is then rounded down to one. In whole numbers, so no
    rounding of fractions decides.

    Args:
        size: Height and width of the picture.
        resolution: Of the longer side, in pixels.
        multiple: What both sides become multiples of. Stable Diffusion: 64.

    Raises:
        ValueError: A number below 1.
    """
    if min(size) < 1 or resolution < 1:
        raise ValueError(
            f"expected sides and a resolution of at least 1 pixel, got {size} and {resolution}"
        )
    short, long = min(size), max(size)
    units = -(-short * resolution // (long * multiple))  # of the shorter side
    sides = units * multiple, long * units // short * multiple
    return sides if size[0] == short else (sides[1], sides[0])


def fitted(picture: RGBImage, resolution: int, multiple: int = 64) -> RGBImage:
    """A picture, uint8 [H, W, 3], at its :func:`edit_size`: as much of its middle as has that
    shape, resized as Pillow does (Lanczos)."""
    from PIL import Image, ImageOps

    height, width = edit_size(picture.shape[:2], resolution, multiple)
    if (height, width) == picture.shape[:2]:
        return picture
    fit = ImageOps.fit(Image.fromarray(picture), (width, height), Image.Resampling.LANCZOS)
    return np.array(fit, dtype=np.uint8)
