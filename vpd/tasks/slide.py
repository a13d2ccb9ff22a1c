"""Sliding windows over a picture of any size, at constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

import torch
from torch import Tensor

from vpd.images import Size, sides
from vpd.tasks.windows import slide_windows

__all__ = ["slide_bands"]


def slide_bands(
    pixels: Tensor,
    predict: Callable[[Tensor], Tensor],
    crop: Size,
    stride: Size,
    batch: int,
) -> Iterator[Tensor]:
    """Mean of what overlapping windows predict (mmsegmentation's ``slide_inference``), from top to
    bottom: rows are handed out as soon as no further window reaches them, so that those of a row of
    windows are all that is held.

    Args:
        pixels: [1, C, H, W].
        predict: From windows [n, C, h, w] to float [n, K, h, w] on the CPU; h and w are those
            of ``crop``, or the picture's where that is smaller.
        crop: Height and width of a window, or its side.
        stride: Between windows, along y and x or along both; the last ones end with the picture.
        batch: Windows at a time.

    Yields:
        [K, rows, W]; together [K, H, W].
    """
    height, width = pixels.shape[-2:]
    tall, wide = min(sides(crop)[0], height), min(sides(crop)[1], width)
    rows = [
        (top, [left for _, left in places])
        for top, places in groupby(slide_windows(height, width, crop, stride), lambda p: p[0])
    ]
    open_from, total, visits = 0, torch.empty(0), torch.empty(0)
    for index, (top, lefts) in enumerate(rows):
        for start in range(0, len(lefts), batch):
            part = lefts[start : start + batch]
            windows = [pixels[0, :, top : top + tall, left : left + wide] for left in part]
            for left, found in zip(part, predict(torch.stack(windows)), strict=True):
                if not total.numel():
                    total, visits = (
                        found.new_zeros(len(found), tall, width),
                        torch.zeros(tall, width),
                    )
                total[..., left : left + wide] += found
                visits[..., left : left + wide] += 1
        last = index + 1 == len(rows)
        done = (height if last else rows[index + 1][0]) - open_from
        yield total[:, :done] / visits[:done]
        if last:
            return
        open_from += done
        total, visits = _moved_up(total, done), _moved_up(visits, done)


def _moved_up(rows: Tensor, count: int) -> Tensor:
    """Without the first ``count`` of the last but one dimension, and as many zeros behind."""
    kept = rows.narrow(-2, count, rows.shape[-2] - count)
    return torch.cat([kept, torch.zeros_like(rows.narrow(-2, 0, count))], dim=-2)
