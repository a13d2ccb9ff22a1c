"""Metrics of edited pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from vpd.models.clip import CLIP

__all__ = ["EditRegionMetrics", "EditScores", "EditSimilarity", "edit_scores"]


class EditScores(NamedTuple):
    """Cosines of n edits in CLIP's space, float32 [n] in [-1, 1]."""

    sim_0: Tensor
    """Picture and caption before."""
    sim_1: Tensor
    """Picture and caption after."""
    sim_direction: Tensor
    """The way from picture to picture and that from caption to caption (Gal et al. 2022)."""
    sim_image: Tensor
    """Picture before and after."""


@torch.no_grad()
def edit_scores(
    clip: CLIP,
    before: Tensor,
    after: Tensor,
    captions: Sequence[str],
    edited_captions: Sequence[str],
) -> EditScores:
    """How well edits follow their captions and how near they stay to their pictures, as
    InstructPix2Pix measures it with CLIP ViT-L/14 (Brooks et al. 2023, sections 3.1.2 and 4.1).

    Pictures are squashed to the encoder's square bicubically, without antialiasing as there. Where
    two pictures or two captions are the same, there is no direction and its cosine is 0.

    Args:
        clip: ``vpd-mini``'s, or :func:`vpd.tags.clip.read_clip`.
        before, after: float [n, 3, H, W] in [-1, 1], RGB.
        captions, edited_captions: n texts.

    Raises:
        ValueError: Shapes or numbers that do not fit.
    """
    count = len(before)
    if before.shape != after.shape or before.dim() != 4 or before.size(1) != 3:
        raise ValueError(
            "edit_scores: expected pictures [n, 3, H, W] of one size, got "
            f"{list(before.shape)} and {list(after.shape)}"
        )
    if isinstance(captions, str) or {len(captions), len(edited_captions)} != {count}:
        raise ValueError(
            f"edit_scores: expected {count} captions and edited captions, got {len(captions)} and "
            f"{len(edited_captions)}"
        )
    side = clip.config.image.image_size
    weight = clip.logit_scale
    pictures = torch.cat([before, after]).to(weight.device, torch.float32)
    squashed = F.interpolate(pictures, (side, side), mode="bicubic", align_corners=False)
    images = clip.embed_images(squashed.to(weight.dtype)).float().cpu()
    texts = clip.embed_text([*captions, *edited_captions]).float().cpu()
    image_0, image_1, text_0, text_1 = images[:count], images[count:], texts[:count], texts[count:]
    return EditScores(
        sim_0=F.cosine_similarity(image_0, text_0),
        sim_1=F.cosine_similarity(image_1, text_1),
        sim_direction=F.cosine_similarity(image_1 - image_0, text_1 - text_0),
        sim_image=F.cosine_similarity(image_0, image_1),
    )


class EditSimilarity:
    """Means of :class:`EditScores`: the two axes of InstructPix2Pix's trade-off, ``sim_image`` and
    ``sim_direction``, and how well the captions fit. Cosines, no percentages.

    Args:
        clip: Name of the CLIP that gave the scores; those of different ones do not compare.

    Example:
        >>> metrics = vpd.metrics.EditSimilarity("vpd-mini")
        >>> metrics.update(EditScores(*torch.tensor([[0.2], [0.3], [0.1], [0.9]])))
        >>> round(metrics.compute()["sim_image"], 3)
        0.9
    """

    def __init__(self, clip: str = "ViT-L/14") -> None:
        self.clip = clip
        self.n = 0
        self._sums = dict.fromkeys(EditScores._fields, 0.0)

    def update(self, scores: EditScores) -> None:
        """Adds n edits.

        Raises:
            ValueError: Not four vectors of n finite numbers; nothing is added then.
        """
        shapes = {tuple(value.shape) for value in scores}
        if len(shapes) != 1 or scores[0].dim() != 1:
            raise ValueError(f"EditSimilarity: expected four scores [n], got {sorted(shapes)}")
        if not all(bool(value.isfinite().all()) for value in scores):
            raise ValueError("EditSimilarity: expected finite scores, got NaN or infinity")
        for name, value in scores._asdict().items():
            self._sums[name] += float(value.double().sum())
        self.n += len(scores[0])

    def merge(self, other: EditSimilarity) -> None:
        """Adds what another accumulator counted.

        Raises:
            ValueError: Its scores are of another CLIP.
        """
        _check_merge(self, other)
        self.n += other.n
        for name in self._sums:
            self._sums[name] += other._sums[name]

    def compute(self) -> dict[str, float]:
        """``sim_0``, ``sim_1``, ``sim_direction``, ``sim_image``, and ``n``, the number of edits
        they are of. All are 0 for an empty set."""
        means: dict[str, float] = {k: v / max(self.n, 1) for k, v in self._sums.items()}
        return {**means, "n": self.n}

    def protocol(self) -> dict[str, Any]:
        """What the results must be labelled with."""
        return {"clip": self.clip}


class EditRegionMetrics:
    """Error of edits whose true result is known, inside and outside of the edited object.

    An edit's error is the mean absolute difference from the true edited picture over a region's
    pixels and colours, as a share of the range of values; errors are averaged over edits. Each has
    something to be measured by:

    * inside, the error of returning the input unchanged: ``edited_region_error_ratio`` is 0 for a
      perfect edit, 1 for none;
    * outside, the error of the autoencoder that latents go through:
      ``unedited_region_error_ratio`` is 1 for an editor that changes nothing else.

    Example:
        >>> metrics = vpd.metrics.EditRegionMetrics()
        >>> before, after = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> metrics.update(after * 0.75, before, after, mask, after * 0.5)
        >>> metrics.compute()["edited_region_error_ratio"]
        0.25
    """

    _SUMS = ("edited_region", "unchanged_input", "unedited_region", "reconstruction")

    def __init__(self) -> None:
        self.n = 0
        self.skipped = 0
        self._sums = dict.fromkeys(self._SUMS, 0.0)

    def update(
        self,
        prediction: Tensor,
        before: Tensor,
        after: Tensor,
        mask: Tensor,
        reconstruction: Tensor,
    ) -> None:
        """Adds n edits.

        Args:
            prediction: What the editor made of ``before``; float [n, 3, H, W] in [0, 1].
            before: The input.
            after: The true edited picture.
            mask: bool [n, H, W]: the edited object, where it was and where it is. An edit without a
                pixel inside or outside is skipped.
            reconstruction: The autoencoder's copy of ``after``.

        Raises:
            ValueError: Shapes or types that do not fit, values that are not finite; nothing is
                added then.
        """
        pictures = (prediction, before, after, reconstruction)
        shape = after.shape
        if after.dim() != 4 or any(p.shape != shape or not p.is_floating_point() for p in pictures):
            found = ", ".join(f"{p.dtype} {list(p.shape)}" for p in pictures)
            raise ValueError(
                f"EditRegionMetrics: pictures must be float [n, C, H, W] of one shape, got {found}"
            )
        if mask.dtype != torch.bool or mask.shape != (shape[0], *shape[2:]):
            raise ValueError(
                f"EditRegionMetrics: mask must be bool {[shape[0], *shape[2:]]}, "
                f"got {mask.dtype} {list(mask.shape)}"
            )
        if not all(bool(p.isfinite().all()) for p in pictures):
            raise ValueError("EditRegionMetrics: expected finite pictures, got NaN or infinity")
        inside = mask.double().cpu()
        outside = 1 - inside
        counted = (inside.sum((1, 2)) > 0) & (outside.sum((1, 2)) > 0)
        for name, picture, region in (
            ("edited_region", prediction, inside),
            ("unchanged_input", before, inside),
            ("unedited_region", prediction, outside),
            ("reconstruction", reconstruction, outside),
        ):
            error = (picture.double() - after.double()).abs().mean(1).cpu()  # [n, H, W]
            mean = (error * region).sum((1, 2)) / region.sum((1, 2)).clamp(min=1)
            self._sums[name] += float(mean[counted].sum())
        self.n += int(counted.sum())
        self.skipped += int((~counted).sum())

    def merge(self, other: EditRegionMetrics) -> None:
        """Adds what another accumulator counted."""
        self.n += other.n
        self.skipped += other.skipped
        for name in self._sums:
            self._sums[name] += other._sums[name]

    def compute(self) -> dict[str, float]:
        """The two ratios; the errors that they are of, ``<region>_error``, between 0 and 1; ``n``,
        the number of edits; ``skipped``. All are 0 for an empty set; a ratio to no error at all is
        infinite, or 0 of 0."""
        means = {name: self._sums[name] / max(self.n, 1) for name in self._SUMS}
        result = {f"{name}_error": value for name, value in means.items()}
        result["edited_region_error_ratio"] = _ratio(
            means["edited_region"], means["unchanged_input"]
        )
        result["unedited_region_error_ratio"] = _ratio(
            means["unedited_region"], means["reconstruction"]
        )
        return {**result, "n": self.n, "skipped": self.skipped}

    def protocol(self) -> dict[str, Any]:
        """What the results must be labelled with."""
        return {"error": "mean absolute difference, values 0-1"}


def _ratio(error: float, unit: float) -> float:
    if unit:
        return error / unit
    return math.inf if error else 0.0


def _check_merge(one: EditSimilarity, other: EditSimilarity) -> None:
    if one.protocol() != other.protocol():
        raise ValueError(
            "EditSimilarity.merge: both need the same protocol, got "
            f"{one.protocol()} and {other.protocol()}"
        )
