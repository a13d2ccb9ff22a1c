"""The JSON file of a panoptic data set, checked and made small: COCO's has 1.3 million segments."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpd.data.segments import Segment
from vpd.data.tables import read_tables


@dataclass(frozen=True, eq=False)
class PanopticTable:
    """Pictures and their segments, row by row.

    Attributes:
        path: the JSON file.
        names, things, category_ids: by class: its name, whether it has countable objects, and its
            id in the file.
        image_ids: as the file has them.
        images, maps: file names.
        sizes: int32 [N, 2], height and width.
        starts: int64 [N + 1]: the segments of row i are starts[i] ... starts[i + 1] - 1.
        ids, classes, crowds: int32, int16 and bool [S], of all segments.
    """

    path: Path
    names: tuple[str, ...]
    things: tuple[bool, ...]
    category_ids: tuple[int, ...]
    image_ids: tuple[int | str, ...]
    images: tuple[str, ...]
    maps: tuple[str, ...]
    sizes: NDArray[np.int32]
    starts: NDArray[np.int64]
    ids: NDArray[np.int32]
    classes: NDArray[np.int16]
    crowds: NDArray[np.bool_]

    def size(self, row: int) -> tuple[int, int]:
        """Height and width of a picture."""
        return int(self.sizes[row, 0]), int(self.sizes[row, 1])

    def segments(self, row: int) -> tuple[Segment, ...]:
        """The segments of a picture."""
        return tuple(
            Segment(int(self.ids[i]), int(self.classes[i]), bool(self.crowds[i]))
            for i in range(self.starts[row], self.starts[row + 1])
        )


def read_panoptic(path: Path) -> PanopticTable:
    """Reads a panoptic JSON file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such file, an annotation is of a picture or category that is not
            listed, or an id is not a number above 0 and below 2^24, or is there twice.
    """
    tables = read_tables(path, "COCO panoptic annotations")
    categories = _rows(path, "category", tables["categories"], _category)
    classes = {stored: i for i, (stored, _, _) in enumerate(categories)}
    if len(classes) != len(categories) or not categories:
        raise ValueError(f"{path}: expected categories, each id once, got {len(categories)}")
    images = _rows(path, "image", tables["images"], _image)
    by_id = {image_id: (name, size) for image_id, name, size in images}
    if len(by_id) != len(images):
        raise ValueError(f"{path}: expected every image id once, got one again")
    annotations = _rows(
        path, "annotation", tables["annotations"], lambda row: _annotation(row, by_id, classes)
    )
    image_ids = tuple(image_id for image_id, _, _ in annotations)
    if len(set(image_ids)) != len(image_ids):
        raise ValueError(f"{path}: expected one annotation of each image, got more of one")
    segments = [segment for _, _, own in annotations for segment in own]
    return PanopticTable(
        path=path,
        names=tuple(name for _, name, _ in categories),
        things=tuple(thing for _, _, thing in categories),
        category_ids=tuple(classes),
        image_ids=image_ids,
        images=tuple(by_id[i][0] for i in image_ids),
        maps=tuple(name for _, name, _ in annotations),
        sizes=np.array([by_id[i][1] for i in image_ids], np.int32).reshape(-1, 2),
        starts=np.cumsum([0, *(len(own) for _, _, own in annotations)], dtype=np.int64),
        ids=np.array([s[0] for s in segments], np.int32),
        classes=np.array([s[1] for s in segments], np.int16),
        crowds=np.array([s[2] for s in segments], bool),
    )


def _rows(path: Path, what: str, rows: Iterable[Any], read: Any) -> list[Any]:
    found = []
    for number, row in enumerate(rows):
        try:
            found.append(read(row))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            said = error if isinstance(error, ValueError) else f"it lacks or misuses {error}"
            raise ValueError(f"{path}: {what} number {number}: {said}") from error
    return found


def _category(row: Any) -> tuple[int, str, bool]:
    return int(row["id"]), str(row["name"]), bool(row["isthing"])


def _image(row: Any) -> tuple[int | str, str, tuple[int, int]]:
    if not isinstance(row["id"], (int, str)):
        raise ValueError(f"expected an id that is a number or text, got {row['id']!r:.80}")
    height, width = int(row["height"]), int(row["width"])
    if not (0 < height < 1 << 31 and 0 < width < 1 << 31):
        raise ValueError(f"image {row['id']!r}: expected a size in pixels, got {height} x {width}")
    return row["id"], str(row["file_name"]), (height, width)


def _annotation(
    row: Any, images: Any, classes: dict[int, int]
) -> tuple[int | str, str, list[tuple[int, int, bool]]]:
    image_id = row["image_id"]
    if image_id not in images:
        raise ValueError(f"its image {image_id!r} is not listed")
    segments, seen = [], set()
    for s in row["segments_info"]:
        own, category = int(s["id"]), s["category_id"]
        if category not in classes:
            raise ValueError(
                f"image {image_id!r}: segment {own} has category {category!r}, which is not listed"
            )
        if not 0 < own < 1 << 24 or own in seen:
            raise ValueError(
                f"image {image_id!r}: expected different segment ids from 1 to 2^24 - 1, got {own}"
                + (" again" if own in seen else "")
            )
        seen.add(own)
        segments.append((own, classes[category], bool(s.get("iscrowd", 0))))
    return image_id, str(row["file_name"]), segments
