"""Semantic segmentation: a class for every pixel (VPD; Zhao et al. 2023, section 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpd._load import core
from vpd.images import read_image, scaled, sides
from vpd.models.fpn import FPN, FPNConfig, SemanticFPNHead, SemanticFPNHeadConfig
from vpd.models.unet import UNetOutput
from vpd.models.uper_head import FCNHead, FCNHeadConfig, UperNetHead, UperNetHeadConfig
from vpd.tasks.conditioned import ConditionedModel
from vpd.tasks.conditions import States
from vpd.tasks.dense import pad_to_multiple
from vpd.tasks.dense_results import SemanticResult
from vpd.tasks.semantic_config import SemanticConfig
from vpd.tasks.slide import slide_bands

__all__ = ["SCALES", "SemanticConfig", "SemanticSegmenter"]

SCALES = (1.0, 1.125, 1.25, 1.375, 1.5)
"""Of VPD's multi-scale test; mmsegmentation's are 0.5, 0.75 ... 1.75."""


class SemanticSegmenter(ConditionedModel[SemanticConfig]):
    """Autoencoder, U-Net, what the U-Net is told (:mod:`vpd.tasks.conditions`) and head, from a
    picture to the class of each pixel; or a vision transformer and head (``config.vit``).

    ``model(image)`` takes what people have; ``model.logits(image)`` takes tensors and is what
    trains.
    """

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__(config)
        dims = self.map_channels
        count = len(config.classes)
        self.neck = None
        self.head: SemanticFPNHead | UperNetHead
        if config.head == "fpn":
            self.neck = FPN(FPNConfig(dims, config.channels))
            self.head = SemanticFPNHead(
                SemanticFPNHeadConfig(
                    in_channels=(config.channels,) * len(dims),
                    num_classes=count,
                    channels=config.channels,
                    dropout=config.dropout,
                )
            )
        else:
            self.head = UperNetHead(
                UperNetHeadConfig(dims, count, config.channels, dropout=config.dropout)
            )
        self.aux_head = None
        if config.auxiliary:
            self.aux_head = FCNHead(FCNHeadConfig(dims[2], count, dropout=config.dropout))

    def scores(self, out: UNetOutput, *, generator: torch.Generator | None = None) -> Tensor:
        """Raw class scores [B, K, h, w] on the grid of the finest feature map.

        Args:
            generator: What dropout draws from in training mode.
        """
        maps = self.pyramid(out)
        if self.neck is not None:
            return self.head(self.neck(maps), generator=generator)
        return self.head(maps, generator=generator)

    def aux_scores(self, out: UNetOutput, *, generator: torch.Generator | None = None) -> Tensor:
        """Those of the auxiliary head, on the second coarsest grid."""
        if self.aux_head is None:
            raise ValueError("this model has no auxiliary head: SemanticConfig(auxiliary=True)")
        return self.aux_head(self.pyramid(out), generator=generator)

    def logits(
        self, image: Tensor, states: Tensor | None = None, states_mask: Tensor | None = None
    ) -> Tensor:
        """Raw head output at input size.

        Args:
            image: [B, 3, H, W] in [-1, 1]; any size: padded with zeros to what the networks take.
            states, states_mask: As :meth:`features` takes them.

        Returns:
            [B, num_classes, H, W]
        """
        padded = pad_to_multiple(image, self.config.multiple)
        latents = self.encode_image(padded)
        out = self.features(latents, states, states_mask, seen=self.look(image))
        scores = self.scores(out)
        size = (padded.shape[-2], padded.shape[-1])
        scores = F.interpolate(scores.float(), size, mode="bilinear", align_corners=False)
        return scores[..., : image.shape[-2], : image.shape[-1]]

    def forward(
        self,
        image: Any,
        *,
        words: Any = None,
        states: Tensor | None = None,
        mode: Literal["slide", "whole"] = "slide",
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        batch: int = 4,
    ) -> SemanticResult:
        """The class of each pixel.

        Args:
            image: Path, PIL image, uint8 array HxWx3 (or grey, RGBA, 16 bit), float array or
                tensor in [0, 1]; any size.
            words: What is said about it, where ``config.condition`` takes that: a caption (""
                if None), its tags (none), or, for ``oracle``, names or ids of the classes in its
                label.
            states: Instead of words, tokens [n, C] of them, such as embeddings of tags.
            mode: ``slide``: overlapping windows of the size that the model was trained on, whose
                scores are averaged; ``whole``: in one piece.
            scales: Factors of the test size; probabilities are averaged over them (:data:`SCALES`).
            flip: Average over the mirrored picture too.
            batch: Windows that go through the networks at a time.

        Returns:
            A :class:`vpd.tasks.dense_results.SemanticResult` at the picture's own size.

        Raises:
            ValueError, TypeError, OSError: A picture that cannot be read, a choice out of range,
                words where none are taken, or none for ``oracle``.
        """
        if mode not in ("slide", "whole"):
            raise ValueError(f"mode must be 'slide' or 'whole', got {mode!r}")
        if not scales or any(not 0.1 <= scale <= 10 for scale in scales) or batch < 1:
            raise ValueError(
                f"scales must be one or more factors from 0.1 to 10 and batch at least 1, got "
                f"scales={list(scales)}, batch={batch}"
            )
        picture = read_image(image)
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                told = self._states(words, states)
                classes, chance = self._classes(picture, mode, tuple(scales), flip, batch, told)
        finally:
            self.train(training)
        return SemanticResult(
            picture,
            classes.numpy(),
            chance.numpy(),
            self.config.classes,
            oracle=self.config.condition == "oracle",
        )

    def _classes(
        self,
        picture: np.ndarray,
        mode: str,
        scales: tuple[float, ...],
        flip: bool,
        batch: int,
        told: States,
    ) -> tuple[Tensor, Tensor]:
        """The class of each pixel and its probability, at the picture's size."""
        size = (picture.shape[0], picture.shape[1])
        kind = torch.uint8 if len(self.config.classes) <= 256 else torch.int32
        scores, flipped = [], []
        for scale in scales:
            pixels = self._resized(picture, scale)
            if mode == "slide" and len(scales) == 1 and not flip and pixels.shape[-2:] == size:
                # Nothing to be averaged or resized: scores never exist for more than some rows.
                found = [
                    _classified([band], [False], (band.shape[1], size[1]), kind)
                    for band in self._bands(pixels, batch, told)
                ]
                classes, chance = (torch.cat(parts) for parts in zip(*found, strict=True))
                return classes, chance
            for mirrored in (False, True) if flip else (False,):
                seen = pixels.flip(-1) if mirrored else pixels
                if mode == "slide":
                    scores.append(torch.cat(list(self._bands(seen, batch, told)), dim=1))
                else:
                    scores.append(self._predict(seen, told)[0])
                flipped.append(mirrored)
        return _classified(scores, flipped, size, kind)

    def _resized(self, picture: np.ndarray, scale: float) -> Tensor:
        """The picture as a test of that scale sees it, [1, 3, H, W] in [-1, 1] on the CPU."""
        height, width = picture.shape[:2]
        factor, side = scale, min(sides(self.config.image_size))
        if self.config.resize == "keep_ratio":
            factor *= min(4 * side / max(height, width), side / min(height, width))
        return scaled(picture, factor)

    def _bands(self, pixels: Tensor, batch: int, told: States) -> Iterator[Tensor]:
        """Class scores of a picture [1, 3, H, W] by sliding windows, float32 [K, rows, W] on the
        CPU, from top to bottom."""
        size, stride = self.config.image_size, self.config.stride
        return slide_bands(pixels, lambda seen: self._predict(seen, told), size, stride, batch)

    def _predict(self, pixels: Tensor, told: States) -> Tensor:
        return self.logits(pixels.to(self.device, self.dtype), *told).cpu()


def _classified(
    scores: list[Tensor], flipped: list[bool], size: tuple[int, int], kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The class of each pixel of a picture and its probability, [H, W] each, from class scores [K,
    h, w] of which some are mirrored."""
    classes, chance = core.pixel_classes(scores, flipped, size, True)
    assert chance is not None
    return classes.to(kind), chance
