"""Pictures with the segment of each of their pixels, as `vpd.data.panoptic` finds them on disk."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from vpd.data.files import read_rgb
from vpd.data.instances import InstanceFile
from vpd.data.pairs import Pairs
from vpd.data.panoptic_files import read_ids
from vpd.data.panoptic_tables import PanopticTable
from vpd.data.segments import Instance, PanopticLabel, Segment, instances_of


class SegmentedPicture(Protocol):
    """What panoptic segmentation reads, from disk or rendered."""

    @property
    def id(self) -> str: ...
    def read_image(self) -> NDArray[np.uint8]: ...
    def read_label(self) -> PanopticLabel: ...
    def read_segments(self) -> tuple[Segment, ...]: ...
    def read(self) -> tuple[NDArray[np.uint8], PanopticLabel]: ...
    def read_instances(self) -> tuple[Instance, ...]: ...


@dataclass(frozen=True, eq=False)
class PanopticSample:
    """One picture on disk and its segments; nothing is read before it is asked for."""

    id: str
    image_path: Path
    ids_path: Path
    table: PanopticTable
    row: int
    instance_file: InstanceFile | None

    def read_image(self) -> NDArray[np.uint8]:
        """The picture: uint8 [H, W, 3], RGB.

        Raises:
            OSError: if the file cannot be opened.
            ValueError: if it is no picture.
        """
        return read_rgb(self.image_path)

    def read_label(self) -> PanopticLabel:
        """The segment of each pixel.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no map of segments, of another size than its table says, has an id
                that the table lacks, or lacks one that the table has.
        """
        ids, size = read_ids(self.ids_path), self.table.size(self.row)
        where = f"{self.ids_path}, by {self.table.path}"
        if ids.shape != size:
            raise ValueError(
                f"{where}: expected {size[0]} x {size[1]} pixels, got {ids.shape[0]} x "
                f"{ids.shape[1]}"
            )
        label = PanopticLabel(ids, self.table.segments(self.row))
        try:
            areas = label.areas()
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        for segment, area in zip(label.segments, areas, strict=True):
            if not area:
                raise ValueError(
                    f"{where}: expected pixels of every segment listed, got none of {segment.id}"
                )
        return label

    def read_segments(self) -> tuple[Segment, ...]:
        """Those of `read_label`, as the table lists them; the map is not opened."""
        return self.table.segments(self.row)

    def read(self) -> tuple[NDArray[np.uint8], PanopticLabel]:
        """Picture and segments, checked to be of one size; raises as both and for that."""
        image, label = self.read_image(), self.read_label()
        if image.shape[:2] != label.ids.shape:
            raise ValueError(
                f"{self.ids_path}: expected segments of {image.shape[0]} x {image.shape[1]} pixels "
                f"like their picture {self.image_path}, got {label.ids.shape[0]} x "
                f"{label.ids.shape[1]}"
            )
        return image, label

    def read_instances(self) -> tuple[Instance, ...]:
        """The objects one by one, for mask AP: of the instances file beside the panoptic one, else
        the things among the segments.

        Raises:
            OSError, ValueError: as `read_label`, or for the instances file.
        """
        if self.instance_file is None:
            return instances_of(self.read_label(), self.table.things)
        return self.instance_file.of(self.table.image_ids[self.row], self.table.size(self.row))


@dataclass(frozen=True, eq=False)
class PanopticDataset(Sequence[PanopticSample]):
    """The pictures of a split, by index; a slice is a smaller data set.

    Attributes:
        name, split: which data set.
        variant: how many things and stuffs it has, and whether it lists instances.
        names: class names; the id is the position.
        things: by class, whether it has countable objects; the others are stuff.
        pairs: the files.
        table: the segments of all pictures.
        rows: the table's row of each of `pairs.rows`.
        instance_file: objects for mask AP; without it the things among the segments are those.
        published: how many pictures the split of the official release has, None if unknown.
    """

    name: str
    split: str
    variant: str
    pairs: Pairs
    table: PanopticTable
    rows: tuple[int, ...]
    instance_file: InstanceFile | None = None
    published: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self.table.names

    @property
    def things(self) -> tuple[bool, ...]:
        return self.table.things

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> PanopticSample: ...
    @overload
    def __getitem__(self, index: slice) -> "PanopticDataset": ...
    def __getitem__(self, index: int | slice) -> "PanopticSample | PanopticDataset":
        if isinstance(index, slice):
            pairs = dataclasses.replace(self.pairs, rows=self.pairs.rows[index])
            return dataclasses.replace(self, pairs=pairs, rows=self.rows[index])
        key, image, ids = self.pairs.rows[index]
        return PanopticSample(
            key,
            self.pairs.image_root / image,
            self.pairs.target_root / ids,
            self.table,
            self.rows[index],
            self.instance_file,
        )

    def whole(self) -> "PanopticDataset":
        """Itself; raises FileNotFoundError if a file is missing or there are no pictures."""
        missing = self.pairs.missing
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise FileNotFoundError(
                f"{self.table.path}: expected the pictures and maps of segments that it lists, "
                f"found no {missing[0]}{more}"
            )
        self.pairs.whole("map of segments")
        return self
