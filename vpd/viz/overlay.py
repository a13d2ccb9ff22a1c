"""Masks and maps as colours: arrays in, uint8 RGB arrays [H, W, 3] out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["colorize", "overlay_heat", "overlay_mask", "shrink"]

RGB = NDArray[np.uint8]
YELLOW = (255, 255, 0)
SHOWN_PX = 1024


def overlay_mask(
    image: RGB,
    mask: NDArray[np.bool_],
    color: tuple[int, int, int] = YELLOW,
    weight: float = 0.7,
) -> RGB:
    """Adds ``weight * color`` to the image inside the mask, saturating at white.

    Args:
        image: uint8 [H, W, 3].
        mask: bool [H, W].
        color: RGB, 0-255.
        weight: In [0, 1].

    Raises:
        ValueError: Shapes that do not fit.
    """
    if image.ndim != 3 or mask.shape != image.shape[:2]:
        raise ValueError(f"overlay: expected a mask {image.shape[:2]}, got {mask.shape}")
    added = mask[..., None] * (weight * np.asarray(color, np.float32))
    return np.clip(image + added, 0, 255).astype(np.uint8)


def colorize(
    values: NDArray[Any],
    low: float | None = None,
    high: float | None = None,
    colors: str = "hot",
) -> RGB:
    """Colours of a map.

    Args:
        values: [h, w]; NaN is shown as the lowest colour.
        low, high: What the ends of the colour map stand for; the least and greatest value if None.
        colors: Name of a matplotlib colour map.

    Returns:
        uint8 [h, w, 3].
    """
    from matplotlib import colormaps

    return (colormaps[colors](_unit(values, low, high))[..., :3] * 255).round().astype(np.uint8)


def overlay_heat(
    image: RGB,
    values: NDArray[Any],
    low: float | None = None,
    high: float | None = None,
    colors: str = "hot",
) -> RGB:
    """A map, resized to the image (bilinear), over the image in grey; high values cover it more.

    Args:
        image: uint8 [H, W, 3].
        values: [h, w] of any size.
        low, high, colors: As for :func:`colorize`.
    """
    import cv2

    height, width = image.shape[:2]
    heat = cv2.resize(
        np.asarray(_unit(values, low, high), np.float32),
        (width, height),
        interpolation=cv2.INTER_LINEAR,
    )
    grey = image.mean(axis=2, keepdims=True) * 0.75
    weight = 0.25 + 0.65 * heat[..., None]
    return (grey * (1 - weight) + colorize(heat, 0, 1, colors) * weight).round().astype(np.uint8)


def shrink(image: NDArray[Any], longest_px: int = SHOWN_PX) -> NDArray[Any]:
    """The image, area-averaged if a side is longer than a picture can show."""
    import cv2

    height, width = image.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    kind = image.dtype
    resized = cv2.resize(
        image.astype(np.float32) if kind == np.bool_ else image, size, interpolation=cv2.INTER_AREA
    )
    return np.asarray(resized > 0.5) if kind == np.bool_ else resized


def _unit(values: NDArray[Any], low: float | None, high: float | None) -> NDArray[Any]:
    values = np.asarray(values, np.float64)
    if values.ndim != 2:
        raise ValueError(f"a map must be [h, w], got {list(values.shape)}")
    finite = values[np.isfinite(values)]
    if low is None:
        low = float(finite.min()) if finite.size else 0.0
    if high is None:
        high = float(finite.max()) if finite.size else 1.0
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return np.clip(np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
