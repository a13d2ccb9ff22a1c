"""Pictures cut into segments: the objects (things) and areas (stuff) of panoptic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vpd.data.masks import encode_mask

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Instance", "PanopticLabel", "Segment", "SegmentMap", "instances_of"]


@dataclass(frozen=True)
class Segment:
    """One object, or all of one stuff class.

    Attributes:
        id: its value in the id map, above 0.
        category: index of its class.
        crowd: of labels: a region of several objects that nobody told apart.
        score: of predictions: how sure the model is of the class, 0 to 1.
    """

    id: int
    category: int
    crowd: bool = False
    score: float | None = None


class SegmentMap(Protocol):
    """What has segments: labels and results."""

    @property
    def ids(self) -> NDArray[Any]: ...
    @property
    def segments(self) -> Sequence[Segment]: ...


@dataclass(frozen=True, eq=False)
class PanopticLabel:
    """The segment of each pixel.

    Attributes:
        ids: int32 [H, W]; 0 is no segment (void).
        segments: all that are in `ids`, each once.
    """

    ids: NDArray[np.int32]
    segments: tuple[Segment, ...]

    def rows(self) -> NDArray[np.int32]:
        """int32 [H, W]: 0 where there is no segment, k for `segments[k - 1]`.

        Raises:
            ValueError: if an id in the map is no segment's.
        """
        return segment_rows(self.ids, self.segments)

    def areas(self) -> list[int]:
        """How many pixels each segment has."""
        counts = np.bincount(self.rows().ravel(), minlength=len(self.segments) + 1)
        return [int(n) for n in counts[1:]]

    def seen(self) -> PanopticLabel:
        """Without the segments that have no pixel, as a cut picture lacks some."""
        kept = zip(self.segments, self.areas(), strict=True)
        return PanopticLabel(self.ids, tuple(s for s, area in kept if area))

    def semantic(self, ignore_index: int = 255) -> NDArray[Any]:
        """The class of each pixel, `ignore_index` where there is no segment: uint8 [H, W], or int32
        if an id is above 255. Crowd regions have their class."""
        classes = [ignore_index, *(s.category for s in self.segments)]
        kind = np.uint8 if max(classes) <= 255 else np.int32
        return np.array(classes, kind)[self.rows()]

    def targets(self, min_pixels: int = 1) -> tuple[Tensor, Tensor]:
        """What `vpd.losses.mask2former_loss` takes of one image.

        Crowd regions are left out, and so are segments of fewer pixels: after a crop, a label may
        list some that are not in the picture any more.

        Returns:
            Classes int64 [M] and masks bool [M, H, W].
        """
        import torch

        rows, areas = torch.from_numpy(self.rows()), self.areas()
        kept = [
            i
            for i, (segment, area) in enumerate(zip(self.segments, areas, strict=True))
            if area >= min_pixels and not segment.crowd
        ]
        labels = torch.tensor([self.segments[i].category for i in kept], dtype=torch.int64)
        masks = torch.empty(len(kept), *rows.shape, dtype=torch.bool)
        for mask, i in zip(masks, kept, strict=True):
            torch.eq(rows, i + 1, out=mask)
        return labels, masks


@dataclass(frozen=True)
class Instance:
    """One object by itself; objects may overlap.

    Attributes:
        category: index of its class.
        mask: COCO's compressed run lengths, `{"size": [H, W], "counts": "..."}`.
        score: of predictions, 0 to 1.
        crowd: of labels: see `Segment`.
        area: of labels: pixels as the data set counts them, which may differ from the mask's.
    """

    category: int
    mask: dict[str, Any]
    score: float | None = None
    crowd: bool = False
    area: float | None = None

    def decode(self) -> NDArray[np.bool_]:
        """The mask, bool [H, W]."""
        from pycocotools import mask as coco

        return coco.decode(self.mask).astype(bool)


def segment_rows(ids: NDArray[Any], segments: Sequence[Segment]) -> NDArray[np.int32]:
    """See `PanopticLabel.rows`."""
    import torch

    from vpd._load import core

    # Arrays of files and slices of arrays may be read-only, which PyTorch warns about.
    own = ids if ids.flags.writeable and ids.flags.c_contiguous else np.array(ids)
    return core.id_rows(torch.from_numpy(own), [s.id for s in segments]).numpy()


def instances_of(label: PanopticLabel, things: Sequence[bool]) -> tuple[Instance, ...]:
    """The things of a panoptic label one by one.

    Args:
        things: by class, whether it is one.
    """
    rows = label.rows()
    found = []
    for row, segment in enumerate(label.segments, start=1):
        if things[segment.category]:
            mask = rows == row
            area = float(np.count_nonzero(mask))
            found.append(
                Instance(segment.category, encode_mask(mask), crowd=segment.crowd, area=area)
            )
    return tuple(found)
