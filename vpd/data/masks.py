"""Masks of COCO annotations: polygons and run lengths, rasterised by the COCO mask API itself."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

MASK_MERGES = ("union", "sum_eq1")
# The C library below trusts its input: where its memory ends, so does the process.
_MOST_PIXELS = 1 << 28
_LONGEST_OUTLINE = 1e7


def check_mask_merge(mask_merge: str) -> None:
    """Raises ValueError unless `mask_merge` is one of MASK_MERGES."""
    if mask_merge not in MASK_MERGES:
        raise ValueError(f"mask_merge must be one of {', '.join(MASK_MERGES)}, got {mask_merge!r}")


def decode_segmentation(
    segmentation: Any, height: int, width: int, mask_merge: str = "union"
) -> NDArray[np.bool_]:
    """The mask of an annotation's `segmentation` field.

    Args:
        segmentation: a list of polygons (flat x, y lists), one run-length dictionary
            `{"size": [height, width], "counts": list | str | bytes}`, or a list of those.
        height, width: size of the picture; 2^28 pixels at most.
        mask_merge: how parts of one object are joined. "union": a pixel of any part. "sum_eq1": a
            pixel of exactly one part, as in VPD's released loader, which so loses overlaps.

    Returns:
        bool [height, width]. Polygons of fewer than three points have no area and are skipped.

    Raises:
        ValueError: if the field is none of these, or does not fit the picture.
    """
    from pycocotools import mask as coco

    check_mask_merge(mask_merge)
    _check_size(height, width)
    parts = [segmentation] if isinstance(segmentation, dict) else segmentation
    if not isinstance(parts, list) or not parts:
        raise ValueError(
            "segmentation must be polygons or run lengths, got "
            + (type(segmentation).__name__ if parts != [] else "an empty list")
        )
    if all(isinstance(part, dict) for part in parts):
        runs = [_checked_runs(part, height, width) for part in parts]
    else:
        polygons = [_checked_polygon(part) for part in parts]
        runs = coco.frPyObjects([p for p in polygons if len(p) >= 6] or [[0.0] * 6], height, width)
    # One part after another: many parts of a large picture do not fit in memory together.
    any_part, repeated = np.zeros((2, height, width), bool)
    for run in runs:
        try:
            part = coco.decode(run).astype(bool)  # [H, W]
        except ValueError as error:
            raise ValueError(f"segmentation has run lengths of another picture: {error}") from error
        repeated |= any_part & part
        any_part |= part
    return any_part if mask_merge == "union" else any_part & ~repeated


def _check_size(height: Any, width: Any) -> None:
    for side in (height, width):
        if not isinstance(side, int) or isinstance(side, bool) or side < 1:
            raise ValueError(
                f"a picture's height and width must be numbers above 0, got {side!r:.80}"
            )
    if height * width > _MOST_PIXELS:
        raise ValueError(
            f"a picture must have at most {_MOST_PIXELS} pixels, got {height} x {width}"
        )


def _checked_runs(part: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """One compressed run-length dictionary, from a compressed or an uncompressed one."""
    from pycocotools import mask as coco

    size, counts = part.get("size"), part.get("counts")
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise ValueError(
            f"segmentation size must be that of the picture {[height, width]}, got {size!r:.80}"
        )
    if isinstance(counts, list):
        whole = all(isinstance(c, int) and not isinstance(c, bool) and c >= 0 for c in counts)
        if not whole or sum(counts) != height * width:
            raise ValueError(f"segmentation counts must be integers that sum to {height * width}")
        return coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    if isinstance(counts, str):
        counts = counts.encode("latin-1", "replace")
    if not isinstance(counts, bytes):
        raise ValueError(f"segmentation counts must be a list or a string, got {counts!r:.80}")
    if sum(_run_lengths(counts)) != height * width:
        raise ValueError(f"segmentation counts must sum to {height * width} pixels, but do not")
    return {"size": [height, width], "counts": counts}


def _run_lengths(counts: bytes) -> list[int]:
    """Decodes COCO's compressed counts: 5 bits a character, later runs relative to two before.

    The C decoder trusts its input; this is what keeps a damaged file from writing past a buffer.
    """
    runs: list[int] = []
    i = 0
    while i < len(counts):
        value, shift, more = 0, 0, True
        while more:
            if i >= len(counts) or not 48 <= counts[i] < 112 or shift > 30:
                return [-1]
            bits = counts[i] - 48
            value |= (bits & 0x1F) << shift
            more = bool(bits & 0x20)
            i, shift = i + 1, shift + 5
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            return [-1]
    return runs


def _checked_polygon(part: Any) -> list[float]:
    if not isinstance(part, list) or len(part) % 2:
        raise ValueError(f"a polygon must be a flat list x, y, x, y, ..., got {part!r:.80}")
    if not all(isinstance(v, (int, float)) and abs(v) < 1e6 for v in part):  # not NaN either
        raise ValueError(f"a polygon must hold finite numbers below 1e6, got {part!r:.80}")
    points = [*zip(part[::2], part[1::2], strict=True)]
    outline = sum(math.dist(a, b) for a, b in pairwise([*points, *points[:1]]))
    if outline > _LONGEST_OUTLINE:
        raise ValueError(f"a polygon's outline must be at most 1e7 pixels long, got {outline:.3g}")
    return part


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Compressed run lengths of a mask [H, W], as JSON can hold them."""
    from pycocotools import mask as coco

    runs = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(v) for v in runs["size"]], "counts": runs["counts"].decode("ascii")}


def mask_box(mask: NDArray[np.bool_]) -> list[float]:
    """The bounding box x, y, width, height of a mask [H, W]; zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return [0.0, 0.0, 0.0, 0.0]
    x, y = int(columns[0]), int(rows[0])
    return [float(x), float(y), float(columns[-1] - x + 1), float(rows[-1] - y + 1)]
