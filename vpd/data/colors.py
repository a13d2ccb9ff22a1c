"""Random photometric changes of uint8 pictures, as tables from old value to new.

Values are cut to whole numbers, not rounded, as mmsegmentation and albumentations do. Hue is in
OpenCV's steps of two degrees, 0..179.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # [H, W, 3], RGB
Table = NDArray[np.uint8]  # [256], new value by old
_VALUES = np.arange(256, dtype=np.float32)
_HUES = 180


def distort(image: Picture, generator: np.random.Generator) -> Picture:
    """Photometric distortion in mmsegmentation's ranges and order; each change has probability 1/2.

    Brightness +-32; contrast x 0.5-1.5, here or last; saturation x 0.5-1.5; hue -18..17 steps.
    """

    def sometimes(change: Callable[[Picture], Picture], picture: Picture) -> Picture:
        return change(picture) if generator.integers(2) else picture

    def brightness(picture: Picture) -> Picture:
        return _apply(picture, _table(_VALUES + np.float32(generator.uniform(-32, 32))))

    def contrast(picture: Picture) -> Picture:
        return _apply(picture, _table(_VALUES * np.float32(generator.uniform(0.5, 1.5))))

    def saturation(picture: Picture) -> Picture:
        table = _table(_VALUES * np.float32(generator.uniform(0.5, 1.5)))
        return _apply_hsv(picture, saturation=table)

    def hue(picture: Picture) -> Picture:
        return _apply_hsv(picture, hue=_hue_table(int(generator.integers(-18, 18))))

    image = sometimes(brightness, image)
    contrast_first = bool(generator.integers(2))
    if contrast_first:
        image = sometimes(contrast, image)
    image = sometimes(hue, sometimes(saturation, image))
    return image if contrast_first else sometimes(contrast, image)


def vary(image: Picture, generator: np.random.Generator) -> Picture:
    """The colour changes of VPD's depth recipe, in albumentations' usual ranges.

    Contrast and brightness +-0.2; gamma 0.8-1.2; hue +-20, saturation +-30, value +-20; each of the
    three with probability 1/2.
    """
    if generator.random() < 0.5:
        contrast, brightness = generator.uniform(-0.2, 0.2, 2)
        image = _apply(image, _table(_VALUES * np.float32(1 + contrast) + brightness * 255))
    if generator.random() < 0.5:
        gamma = generator.uniform(0.8, 1.2)
        image = _apply(image, _table((_VALUES / 255) ** gamma * 255))
    if generator.random() < 0.5:
        hue, saturation, value = generator.uniform((-20, -30, -20), (20, 30, 20))
        image = _apply_hsv(
            image, _hue_table(hue), _table(_VALUES + saturation), _table(_VALUES + value)
        )
    return image


def _table(values: NDArray[Any]) -> Table:
    return np.clip(values, 0, 255).astype(np.uint8)


def _hue_table(shift: float) -> Table:
    return np.mod(_VALUES + shift, _HUES).astype(np.uint8)


def _apply(image: Picture, table: Table) -> Picture:
    import cv2

    return np.asarray(cv2.LUT(image, table), np.uint8)


def _apply_hsv(
    image: Picture,
    hue: Table | None = None,
    saturation: Table | None = None,
    value: Table | None = None,
) -> Picture:
    """Changes hue (0-179), saturation and value (0-255) each by a table."""
    import cv2

    same = np.arange(256, dtype=np.uint8)
    tables = [same if table is None else table for table in (hue, saturation, value)]
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), np.stack(tables, axis=1)[None])
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
