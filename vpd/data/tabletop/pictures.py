"""Tabletop's scenes as samples of semantic and panoptic segmentation and of depth, without a disk.

They have the interface of `vpd.data.SemanticDataset`, `PanopticDataset` and `DepthDataset`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from vpd.data.segments import Instance, PanopticLabel, Segment, instances_of
from vpd.data.tabletop.render import semantic_labels
from vpd.data.tabletop.spec import CLASSES, SHAPES
from vpd.data.tabletop.splits import TabletopSplit

SCENES = ("tabletop",)  # the one scene type of all pictures
THINGS = tuple(name in SHAPES for name in CLASSES)  # by class; floor and wall are stuff
_STUFF = len(CLASSES) - len(SHAPES)


@dataclass(frozen=True, eq=False)
class _Rendered:
    """One scene of a split."""

    source: TabletopSplit
    index: int

    @property
    def id(self) -> str:
        """The scene's seed."""
        return str(self.source.seeds[self.index])

    def read_image(self) -> NDArray[np.uint8]:
        """uint8 [128, 128, 3], RGB."""
        return np.array(self.source.images[self.index])


class SemanticScene(_Rendered):
    """One scene and the class of each of its pixels."""

    def read_label(self) -> NDArray[np.uint8]:
        """uint8 [128, 128]: index into CLASSES."""
        spec = self.source.scene(self.index).spec
        return semantic_labels(spec, np.array(self.source.instances[self.index]))

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Picture and label."""
        return self.read_image(), self.read_label()


class PanopticScene(_Rendered):
    """One scene and its segments."""

    def read_label(self) -> PanopticLabel:
        """Floor and wall have ids 1 and 2, object k of the scene has k + 2; those of which nothing
        is to be seen are not listed."""
        classes = SemanticScene(self.source, self.index).read_label()
        instances = np.array(self.source.instances[self.index])
        ids = np.where(instances > 0, instances + _STUFF, classes + 1).astype(np.int32)
        shapes = [o.shape for o in self.source.scene(self.index).objects]
        stuff = [Segment(i + 1, i) for i in range(_STUFF)]
        objects = [
            Segment(_STUFF + k, CLASSES.index(shape)) for k, shape in enumerate(shapes, start=1)
        ]
        return PanopticLabel(ids, (*stuff, *objects)).seen()

    def read(self) -> tuple[NDArray[np.uint8], PanopticLabel]:
        """Picture and segments."""
        return self.read_image(), self.read_label()

    def read_instances(self) -> tuple[Instance, ...]:
        """The objects one by one."""
        return instances_of(self.read_label(), THINGS)


class DepthScene(_Rendered):
    """One scene and its depth."""

    @property
    def scene(self) -> int:
        """The scene type, of which there is one."""
        return 0

    def read_depth(self) -> NDArray[np.float32]:
        """float32 [128, 128] in metres, to the millimetre as files have it."""
        assert self.source.depths_mm is not None
        return self.source.depths_mm[self.index].astype(np.float32) * np.float32(0.001)

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Picture and depth."""
        return self.read_image(), self.read_depth()


@dataclass(frozen=True, eq=False)
class SemanticScenes(Sequence[SemanticScene]):
    """A rendered split with the classes of its pixels; see `semantic`."""

    source: TabletopSplit
    rows: range
    name = "tabletop"
    variant = "rendered"
    names = CLASSES
    ignore_index = 255

    @property
    def split(self) -> str:
        return self.source.name

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> SemanticScene: ...
    @overload
    def __getitem__(self, index: slice) -> "SemanticScenes": ...
    def __getitem__(self, index: int | slice) -> "SemanticScene | SemanticScenes":
        if isinstance(index, slice):
            return SemanticScenes(self.source, self.rows[index])
        return SemanticScene(self.source, self.rows[index])


@dataclass(frozen=True, eq=False)
class PanopticScenes(Sequence[PanopticScene]):
    """A rendered split with segments; see `panoptic`."""

    source: TabletopSplit
    rows: range
    name = "tabletop"
    variant = "rendered"
    names = CLASSES
    things = THINGS

    @property
    def split(self) -> str:
        return self.source.name

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> PanopticScene: ...
    @overload
    def __getitem__(self, index: slice) -> "PanopticScenes": ...
    def __getitem__(self, index: int | slice) -> "PanopticScene | PanopticScenes":
        if isinstance(index, slice):
            return PanopticScenes(self.source, self.rows[index])
        return PanopticScene(self.source, self.rows[index])


@dataclass(frozen=True, eq=False)
class DepthScenes(Sequence[DepthScene]):
    """A rendered split with depth; see `depth`."""

    source: TabletopSplit
    rows: range
    name = "tabletop"
    variant = "rendered"
    scenes = SCENES

    @property
    def split(self) -> str:
        return self.source.name

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> DepthScene: ...
    @overload
    def __getitem__(self, index: slice) -> "DepthScenes": ...
    def __getitem__(self, index: int | slice) -> "DepthScene | DepthScenes":
        if isinstance(index, slice):
            return DepthScenes(self.source, self.rows[index])
        return DepthScene(self.source, self.rows[index])


def semantic(source: TabletopSplit) -> SemanticScenes:
    """The scenes of a split with their semantic labels: floor, wall and six shapes.

    Raises:
        ValueError: for `pretrain`, which has no labels.
    """
    _check_labelled(source)
    return SemanticScenes(source, range(len(source)))


def panoptic(source: TabletopSplit) -> PanopticScenes:
    """The scenes of a split with their segments: shapes are things, floor and wall are stuff.

    Raises:
        ValueError: for `pretrain`, which has no labels.
    """
    _check_labelled(source)
    return PanopticScenes(source, range(len(source)))


def depth(source: TabletopSplit) -> DepthScenes:
    """The scenes of a split with their depth.

    Raises:
        ValueError: for `pretrain`, which has no labels, and for a split loaded without depth.
    """
    _check_labelled(source)
    if source.depths_mm is None:
        raise ValueError(
            f"split {source.name!r} must be loaded with depth: load_split(..., depth=True)"
        )
    return DepthScenes(source, range(len(source)))


def _check_labelled(source: TabletopSplit) -> None:
    if source.name == "pretrain":
        raise ValueError("the split 'pretrain' has captions only, no labels")
