"""Objects of a COCO instances file, as mask AP compares predictions with."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vpd.data.masks import decode_segmentation, encode_mask
from vpd.data.segments import Instance
from vpd.data.tables import read_tables


@dataclass(frozen=True, eq=False)
class InstanceFile:
    """A file of tables, read when the first picture is asked for.

    Attributes:
        classes: index of the class of each category id of the file.
    """

    path: Path
    classes: Mapping[int, int]

    @cached_property
    def _by_image(self) -> dict[Any, list[dict[str, Any]]]:
        found: dict[Any, list[dict[str, Any]]] = {}
        for number, row in enumerate(read_tables(self.path, "COCO instances")["annotations"]):
            try:
                if row["category_id"] not in self.classes:
                    raise ValueError(
                        f"{self.path}: annotation {row.get('id', number)} has category "
                        f"{row['category_id']!r}, which is not listed"
                    )
                found.setdefault(row["image_id"], []).append(row)
            except (KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path}: annotation number {number} is not COCO's: {error!r}"
                ) from error
        return found

    def of(self, image_id: int | str, size: tuple[int, int]) -> tuple[Instance, ...]:
        """The objects of a picture of `size` (height, width).

        Raises:
            FileNotFoundError: if the file is missing.
            ValueError: if it is damaged, or a mask is of another size.
        """
        found = []
        for row in self._by_image.get(image_id, ()):
            try:
                mask = decode_segmentation(row.get("segmentation"), *size)
                area = float(row.get("area", mask.sum()))
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"{self.path}: annotation {row.get('id')}: {error}") from error
            found.append(
                Instance(
                    self.classes[row["category_id"]],
                    encode_mask(mask),
                    crowd=bool(row.get("iscrowd", 0)),
                    area=area,
                )
            )
        return tuple(found)
