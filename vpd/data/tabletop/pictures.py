"""Tabletop's scenes as samples of semantic and panoptic segmentation and of depth, without a disk.

They have the interface of `vpd.data.SemanticDataset`, `PanopticDataset` and `DepthDataset`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from vpd.data.segments import Instance, PanopticLabel, Segment, instances_of
from vpd.data.tabletop.render import semantic_labels
from vpd.data.tabletop.spec import CLASSES, COLORS, SHAPES
from vpd.data.tabletop.splits import TabletopSplit

SCENES = ("tabletop",)  # the one scene type of all pictures
THINGS = tuple(name in SHAPES for name in CLASSES)  # by class; floor and wall are stuff
_STUFF = len(CLASSES) - len(SHAPES)
Trait = Literal["shape", "color"]
NAMES: dict[str, tuple[str, ...]] = {"shape": CLASSES, "color": (*CLASSES[:_STUFF], *COLORS)}


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


@dataclass(frozen=True, eq=False)
class PanopticScene(_Rendered):
    """One scene and its segments; objects are named by their shapes, or by their colours."""

    by: Trait = "shape"

    def read_label(self) -> PanopticLabel:
        """Floor and wall have ids 1 and 2, object k of the scene has k + 2; those of which nothing
        is to be seen are not listed."""
        scene = self.source.scene(self.index)
        instances = np.array(self.source.instances[self.index])
        classes = semantic_labels(scene.spec, instances)
        ids = np.where(instances > 0, instances + _STUFF, classes + 1).astype(np.int32)
        named = [NAMES[self.by].index(getattr(o, self.by)) for o in scene.objects]
        stuff = [Segment(i + 1, i) for i in range(_STUFF)]
        objects = [Segment(_STUFF + k, category) for k, category in enumerate(named, start=1)]
        return PanopticLabel(ids, (*stuff, *objects)).seen()

    def read_segments(self) -> tuple[Segment, ...]:
        """Those of `read_label`."""
        return self.read_label().segments

    def read(self) -> tuple[NDArray[np.uint8], PanopticLabel]:
        """Picture and segments."""
        return self.read_image(), self.read_label()

    def read_instances(self) -> tuple[Instance, ...]:
        """The objects one by one."""
        return instances_of(self.read_label(), _things(self.by))


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


S = TypeVar("S", bound=_Rendered)


@dataclass(frozen=True, eq=False)
class _Scenes(Sequence[S]):
    """A rendered split, by index; a slice is a smaller one."""

    source: TabletopSplit
    rows: range
    name = "tabletop"
    variant = "rendered"

    def _scene(self, index: int) -> S:
        raise NotImplementedError

    @property
    def split(self) -> str:
        return self.source.name

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> S: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> S | Self:
        if isinstance(index, slice):
            return replace(self, rows=self.rows[index])
        return self._scene(self.rows[index])


class SemanticScenes(_Scenes[SemanticScene]):
    """A rendered split with the classes of its pixels; see `semantic`."""

    names = CLASSES
    ignore_index = 255

    def _scene(self, index: int) -> SemanticScene:
        return SemanticScene(self.source, index)


@dataclass(frozen=True, eq=False)
class PanopticScenes(_Scenes[PanopticScene]):
    """A rendered split with segments; see `panoptic`."""

    by: Trait = "shape"

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES[self.by]

    @property
    def things(self) -> tuple[bool, ...]:
        return _things(self.by)

    def _scene(self, index: int) -> PanopticScene:
        return PanopticScene(self.source, index, self.by)


class DepthScenes(_Scenes[DepthScene]):
    """A rendered split with depth; see `depth`."""

    scenes = SCENES

    def _scene(self, index: int) -> DepthScene:
        return DepthScene(self.source, index)


def semantic(source: TabletopSplit) -> SemanticScenes:
    """The scenes of a split with their semantic labels: floor, wall and six shapes.

    Raises:
        ValueError: for `pretrain`, which has no labels.
    """
    _check_labelled(source)
    return SemanticScenes(source, range(len(source)))


def panoptic(source: TabletopSplit, by: Trait = "shape") -> PanopticScenes:
    """The scenes of a split with their segments: objects are things, floor and wall are stuff.

    Args:
        by: what an object's class is: its shape, as in all other labels, or its colour.

    Raises:
        ValueError: for `pretrain`, which has no labels.
    """
    _check_labelled(source)
    if by not in NAMES:
        raise ValueError(f"by must be one of {', '.join(NAMES)}, got {by!r}")
    return PanopticScenes(source, range(len(source)), by)


def _things(by: str) -> tuple[bool, ...]:
    return tuple(i >= _STUFF for i in range(len(NAMES[by])))


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
