"""Files of COCO's panoptic layout: id maps as colours, and what their segments are."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpd.data.files import atomic_write, read_unchanged, write_png
from vpd.data.masks import mask_box
from vpd.data.segments import PanopticLabel

_MOST = 256**3


def read_ids(path: str | os.PathLike[str]) -> NDArray[np.int32]:
    """Segment ids of an RGB picture: R + 256 G + 65536 B, int32 [H, W].

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no whole picture of three channels of 8 bits.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a map of segments here, found no file")
    stored = read_unchanged(path)
    if stored is None:
        size = path.stat().st_size
        raise ValueError(f"{path}: expected a map of segments, got {size} bytes that are none")
    if stored.ndim != 3 or stored.shape[2] != 3 or stored.dtype != np.uint8:
        channels = 1 if stored.ndim == 2 else stored.shape[2]
        raise ValueError(
            f"{path}: expected segment ids in three channels of 8 bits, got {channels} of "
            f"{stored.dtype}"
        )
    blue, green, red = (stored[..., i].astype(np.int32) for i in range(3))
    return red + 256 * green + 65536 * blue


def id_colors(ids: NDArray[np.integer]) -> NDArray[np.uint8]:
    """The RGB picture, uint8 [H, W, 3], of segment ids [H, W].

    Raises:
        ValueError: if an id is negative, or 2^24 or more.
    """
    if ids.size and not (ids.min() >= 0 and ids.max() < _MOST):
        raise ValueError(f"segment ids must be in [0, {_MOST}), got {ids.min()} ... {ids.max()}")
    return np.stack([(ids >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)], axis=-1)


def write_ids(path: str | os.PathLike[str], ids: NDArray[np.integer]) -> None:
    """Writes segment ids [H, W] as `read_ids` reads them."""
    write_png(path, id_colors(ids))


def segments_info(label: PanopticLabel, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of a label's segments in a panoptic JSON file.

    Args:
        category_ids: the file's id of each class.
    """
    rows = label.rows()
    found = []
    for row, segment in enumerate(label.segments, start=1):
        mask = rows == row
        found.append(
            {
                "id": segment.id,
                "category_id": category_ids[segment.category],
                "area": int(np.count_nonzero(mask)),
                "bbox": mask_box(mask),
                "iscrowd": int(segment.crowd),
            }
            | ({} if segment.score is None else {"score": round(segment.score, 6)})
        )
    return found


def image_row(image_id: int | str, file_name: str, size: tuple[int, ...]) -> dict[str, Any]:
    """The row of a picture of `size` (height, width) in a file of tables."""
    return {"id": image_id, "file_name": file_name, "height": size[0], "width": size[1]}


def category_rows(names: Sequence[str], things: Sequence[bool], first: int) -> list[dict[str, Any]]:
    """The classes' rows, with ids from `first` on."""
    return [
        {"id": i, "name": name, "isthing": int(thing), "supercategory": name}
        for i, (name, thing) in enumerate(zip(names, things, strict=True), start=first)
    ]


def write_tables(path: str | os.PathLike[str], tables: Mapping[str, Any]) -> None:
    """Writes a JSON file, complete or not at all."""
    with atomic_write(path) as file:
        file.write(json.dumps(tables).encode())
