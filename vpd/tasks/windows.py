"""Predicting in overlapping windows: where they lie, and the mean of what they say. Nothing here
knows of networks."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from vpd.images import Size, sides

__all__ = ["Overlap", "average_shifted", "shifted_windows", "slide_windows"]


def slide_windows(height: int, width: int, crop: Size, stride: Size) -> list[tuple[int, int]]:
    """Upper left corners (y, x) of the windows that slide over an image, row by row, as
    mmsegmentation places them.

    They are ``stride`` apart, except that the last of a row or column is flush with the image's
    edge. An image smaller than a window has one, of the image's size.

    Args:
        height: Of the image.
        width: Of the image.
        crop: Height and width of a window, or its side.
        stride: Along y and x, or along both; at most the window's size, else pixels would lie
            between windows.

    Raises:
        ValueError: A size or stride below 1, or a stride above the window's size.
    """
    crops, strides = sides(crop), sides(stride)
    if min(height, width, *crops, *strides) < 1 or any(
        s > c for s, c in zip(strides, crops, strict=True)
    ):
        raise ValueError(
            "slide_windows: expected sizes of at least 1 and 1 <= stride <= crop, got an image of "
            f"{height} x {width}, crop {crop}, stride {stride}"
        )
    ys, xs = (
        [min(i * step, length - size) for i in range((length - size + step - 1) // step + 1)]
        if length > size
        else [0]
        for length, size, step in zip((height, width), crops, strides, strict=True)
    )
    return [(y, x) for y in ys for x in xs]


def shifted_windows(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """Upper left corners (y, x) of square windows, as high as the image, that are shifted along it:
    VPD's test-time augmentation of depth.

    They are ``(width - height) // (count - 1)`` apart. Where that does not divide, the original's
    last window ends before the edge, and columns that no window covers become 0 / 0; here the last
    one is flush with the edge. Where it divides, windows are the original's.

    Args:
        height: Of the image, and side of the windows.
        width: At least the height.
        count: How many windows.

    Raises:
        ValueError: An image higher than wide, or too few windows to cover it.
    """
    if height < 1 or width < height or count < 1:
        raise ValueError(
            "shifted_windows: expected 1 <= height <= width and at least 1 window, got "
            f"{height} x {width} and {count}"
        )
    last = width - height
    xs = [i * (last // (count - 1)) for i in range(count - 1)] + [last] if count > 1 else [0]
    if xs[-1] != last or any(b - a > height for a, b in pairwise(xs)):
        raise ValueError(
            f"shifted_windows: {count} windows of {height} columns do not cover {width} columns, "
            "expected more"
        )
    return [(0, x) for x in xs]


class Overlap:
    """The mean of predictions in windows that overlap.

    Holds one running sum, [B, C, height, width] in float32 at least, which becomes the mean in
    place, and how often each pixel was visited: memory does not grow with the number of windows.

    Args:
        height: Of the whole image.
        width: Of the whole image.

    Example:
        >>> overlap = Overlap(6, 9)
        >>> for y, x in slide_windows(6, 9, crop=6, stride=2):
        ...     overlap.add(torch.ones(1, 3, 6, 6), y, x)
        >>> overlap.mean().shape
        torch.Size([1, 3, 6, 9])
    """

    def __init__(self, height: int, width: int) -> None:
        self.height = height
        self.width = width
        self._sum: Tensor | None = None
        self._visits: Tensor | None = None

    def add(self, window: Tensor, y: int, x: int) -> None:
        """Adds a prediction.

        Args:
            window: [B, C, h, w], floating point; all of one B and C, sizes may differ.
            y: Row of its upper left corner.
            x: Column of it.

        Raises:
            ValueError: A shape that does not fit, or a window that leaves the image.
        """
        if window.ndim != 4 or not window.is_floating_point():
            raise ValueError(
                "Overlap: window must be floating point [B, C, h, w], got "
                f"{window.dtype} {list(window.shape)}"
            )
        h, w = window.shape[2:]
        if min(y, x) < 0 or y + h > self.height or x + w > self.width:
            raise ValueError(
                f"Overlap: expected windows inside of {self.height} x {self.width}, got one of "
                f"{h} x {w} at ({y}, {x})"
            )
        if self._sum is None or self._visits is None:
            size = (self.height, self.width)
            wide = torch.promote_types(window.dtype, torch.float32)
            self._sum = window.new_zeros((*window.shape[:2], *size), dtype=wide)
            self._visits = window.new_zeros(size, dtype=wide)
        if self._sum.shape[:2] != window.shape[:2]:
            raise ValueError(
                f"Overlap: expected windows of shape {[*self._sum.shape[:2], 'h', 'w']}, got "
                f"{list(window.shape)}"
            )
        self._sum[..., y : y + h, x : x + w] += window
        self._visits[y : y + h, x : x + w] += 1

    def mean(self) -> Tensor:
        """The mean over the windows that cover each pixel, [B, C, height, width] in float32 at
        least. The sum is given away: adding starts anew.

        Raises:
            ValueError: Pixels that no window covers.
        """
        if self._sum is None or self._visits is None:
            raise ValueError("Overlap: expected at least one window, got none")
        missing = int((self._visits == 0).sum())
        if missing:
            raise ValueError(
                f"Overlap: expected windows that cover all pixels, got {missing} outside of all"
            )
        mean = self._sum.div_(self._visits)
        self._sum = self._visits = None
        return mean


def average_shifted(windows: Tensor, width: int, flipped: Tensor | None = None) -> Tensor:
    """The prediction for an image out of those for its :func:`shifted_windows` (and their mirror
    images): the mean of all that cover a pixel.

    Args:
        windows: [count, C, height, height], of one image.
        width: Of the image.
        flipped: The same of the mirrored windows, as predicted: still mirrored.

    Returns:
        [1, C, height, width], float32 at least.

    Raises:
        ValueError: Windows that are not square, too few for the width, or ``flipped`` of another
            shape.
    """
    if windows.ndim != 4 or windows.shape[2] != windows.shape[3]:
        raise ValueError(
            "average_shifted: windows must be [count, C, height, height], got "
            f"{list(windows.shape)}"
        )
    if flipped is not None and flipped.shape != windows.shape:
        raise ValueError(
            f"average_shifted: flipped must be {list(windows.shape)}, got {list(flipped.shape)}"
        )
    count, _, height, _ = windows.shape
    overlap = Overlap(height, width)
    for index, (y, x) in enumerate(shifted_windows(height, width, count)):
        overlap.add(windows[index : index + 1], y, x)
        if flipped is not None:
            overlap.add(flipped[index : index + 1].flip(-1), y, x)
    return overlap.mean()
