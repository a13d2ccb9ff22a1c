"""What panoptic segmentation returns: segments, classes and objects of a picture, made from the
classified masks of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vpd._load import core
from vpd.data.segments import Instance, PanopticLabel, Segment

__all__ = ["PanopticResult"]


@dataclass(frozen=True)
class PanopticResult:
    """The segments of a picture: every object (thing) and all of every other class (stuff)."""

    image: np.ndarray
    """The image as it came, uint8 [H, W, 3]."""
    ids: np.ndarray
    """int32 [H, W]: the segment of each pixel, 0 where there is none."""
    segments: tuple[Segment, ...]
    """All that are in ``ids``; each has a score."""
    classes: np.ndarray
    """uint8 [H, W] (int32 beyond 256 classes): the likeliest class of each pixel, by all masks
    together (semantic segmentation)."""
    names: tuple[str, ...]
    """Of the classes."""
    things: tuple[bool, ...]
    """By class, whether it has countable objects."""
    instances: tuple[Instance, ...] = ()
    """Objects one by one, the surest first; they may overlap, and most are wrong guesses of low
    score, as mask AP wants them."""
    oracle: bool = False
    """Whether the model was told the classes of the picture's label."""

    @classmethod
    def from_masks(
        cls,
        image: np.ndarray,
        logits: Tensor,
        masks: Tensor,
        names: Sequence[str],
        things: Sequence[bool],
        *,
        padded: tuple[int, int] | None = None,
        used: tuple[int, int] | None = None,
        min_score: float = 0.0,
        min_overlap: float = 0.8,
        top: int = 100,
        oracle: bool = False,
    ) -> PanopticResult:
        """Reads a network's output of one picture in three ways (Mask2Former; Cheng et al. 2022).

        With p the softmax of ``logits`` and s the sigmoid of ``masks`` at the picture's pixels:

        * segments: every pixel goes to the mask with the highest p s, of those whose likeliest
          class is one and has p > ``min_score``, and belongs to it where s >= 0.5. A mask that is
          left with less than ``min_overlap`` of its s >= 0.5 is dropped; masks of one stuff class
          are one segment;
        * classes: the highest sum of p s over masks;
        * instances: the ``top`` pairs of mask and class with the highest p, things only; scores are
          p times the mean of s where s > 0.5. Those without a pixel are left out.

        Masks become as large as the picture by bilinear interpolation, pixel after pixel: at no
        time one exists at that size.

        Args:
            image: uint8 [H, W, 3].
            logits: [Q, K + 1], "no object" last.
            masks: Logits [Q, h, w].
            names, things: Of the K classes.
            padded: Height and width of what the network saw, padding included; the picture's own by
                default.
            used: The part of that, at its top left, that the picture filled; all of it by default.
            oracle: Whether the network was told the classes of the picture's label.

        Raises:
            ValueError: Shapes that do not fit, or logits that are not finite.
        """
        if len(names) != len(things):
            raise ValueError(f"expected a name of each of {len(things)} classes, got {len(names)}")
        size = (image.shape[0], image.shape[1])
        padded = size if padded is None else padded
        view = (padded, padded if used is None else used, size)
        logits, masks = logits.detach().cpu(), masks.detach().cpu()
        flags = [bool(thing) for thing in things]
        ids, segments = core.panoptic_inference(logits, masks, *view, flags, min_score, min_overlap)
        classes = core.semantic_inference(logits, masks, *view)
        instances, runs = core.instance_inference(logits, masks, *view, flags, top)
        return cls(
            image,
            ids.numpy(),
            tuple(Segment(own, category, score=score) for own, category, score in segments),
            classes.numpy().astype(np.uint8 if len(names) <= 256 else np.int32),
            tuple(names),
            tuple(flags),
            _instances(instances, runs, size),
            oracle,
        )

    @cached_property
    def label(self) -> PanopticLabel:
        """The segments alone."""
        return PanopticLabel(self.ids, self.segments)

    def mask(self, segment: int) -> np.ndarray:
        """bool [H, W]: where a segment is.

        Raises:
            KeyError: No segment of that id.
        """
        known = [own.id for own in self.segments]
        if segment not in known:
            raise KeyError(f"no segment {segment}; the segments are {known}")
        return self.ids == segment

    def __repr__(self) -> str:
        height, width = self.ids.shape
        counts: dict[str, int] = {}
        for segment in self.segments:
            name = self.names[segment.category]
            counts[name] = counts.get(name, 0) + 1
        told = ", ".join(f"{n} {name}" if n > 1 else name for name, n in list(counts.items())[:6])
        oracle = ", told its label's classes" if self.oracle else ""
        return (
            f"PanopticResult({width} x {height} px{oracle}, {len(self.segments)} segments: {told})"
        )

    def _repr_png_(self) -> bytes:
        return self.show()._repr_png_()

    def show(self) -> Any:
        """Image, segments over it, and their names, as a figure."""
        from vpd.viz.panoptic import panoptic_figure

        return panoptic_figure(self)

    def save(self, path: str | Path) -> Path:
        """Writes the segments over the image (``.png``), their ids and classes in COCO's format
        (``.json``, with ``.ids.png`` beside it), everything as arrays (``.npz``) or the figure
        (``.figure.png``). The file appears only when complete."""
        from vpd.viz.panoptic import save_panoptic

        return save_panoptic(self, Path(path))


def _instances(
    found: list[tuple[int, int, float]], runs: list[list[int]], size: tuple[int, int]
) -> tuple[Instance, ...]:
    """Instances (class, place in runs, score), of masks by their run lengths."""
    from pycocotools import mask as coco

    packed = []
    for own in runs:
        one = coco.frPyObjects({"size": list(size), "counts": own}, *size)
        packed.append({"size": list(size), "counts": one["counts"].decode("ascii")})
    areas = [sum(own[1::2]) for own in runs]
    return tuple(
        Instance(category, packed[place], score=score, area=float(areas[place]))
        for category, place, score in found
        if areas[place]
    )
