"""Panoptic segmentation: every object and every area of a picture, by Mask2Former's head (Cheng et
al. 2022) on a diffusion model's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vpd.data.augment import check_shares
from vpd.models.mask2former import Mask2FormerConfig, Mask2FormerHead, Mask2FormerOutput
from vpd.models.unet import UNetOutput
from vpd.tasks.condition_config import ConditionedConfig
from vpd.tasks.conditioned import ConditionedModel
from vpd.tasks.dense import pad_to_multiple
from vpd.tasks.mask_heads import LEVELS, asked, head_fields, padded_size, whole_picture
from vpd.tasks.panoptic_results import PanopticResult

__all__ = ["PanopticConfig", "PanopticSegmenter"]


@dataclass(frozen=True)
class PanopticConfig(ConditionedConfig):
    """A panoptic segmenter; the defaults are Mask2Former's on COCO, whose classes are not given
    here."""

    things: tuple[bool, ...] = ()
    """By class, whether it has countable objects; the others are stuff."""
    channels: int = 256
    """Width of the head: of pixels, queries and mask features. Feed-forward parts have four times
    as many inside for pixels, eight times for queries."""
    num_queries: int = 100
    """The most segments that a picture can have."""
    heads: int = 8
    encoder_layers: int = 6
    """Of deformable attention over the three coarsest maps."""
    decoder_layers: int = 9
    """Of masked attention from queries to pixels."""
    norm_groups: int = 32
    upsample_finest: bool = False
    """Give the head the finest map twice as large besides: masks then have half the stride, 4 of a
    picture that Stable Diffusion encodes."""
    image_size: int = 1024
    """Side of the square pictures that it is trained on, and shorter side in a test."""
    max_size: int = 2560
    """Longer side in a test, at most."""
    min_score: float = 0.0
    """Masks of a class less likely than this are no segments."""
    min_overlap: float = 0.8
    """A segment keeps at least this share of its mask where other masks win pixels, or is none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.things) != len(self.classes):
            raise ValueError(
                f"PanopticConfig.things: expected one flag for each of {len(self.classes)} "
                f"classes, got {len(self.things)}"
            )
        if not 1 <= self.image_size <= self.max_size:
            raise ValueError(
                "PanopticConfig: expected 1 <= image_size <= max_size, got "
                f"{self.image_size} and {self.max_size}"
            )
        check_shares(min_score=self.min_score, min_overlap=self.min_overlap)


class PanopticSegmenter(ConditionedModel[PanopticConfig]):
    """Autoencoder, U-Net, what the U-Net is told and Mask2Former's head, from a picture to its
    segments.

    ``model(image)`` takes what people have; ``model.logits(image)`` takes tensors.
    """

    def __init__(self, config: PanopticConfig) -> None:
        super().__init__(config)
        maps = self.map_channels
        if len(maps) < LEVELS:
            raise ValueError(
                f"a panoptic head reads {LEVELS} feature maps or more, there are {len(maps)}"
            )
        finest = maps[:1] if config.upsample_finest else ()
        self.head = Mask2FormerHead(
            Mask2FormerConfig(
                **head_fields(config, (*finest, *maps)), num_classes=len(config.classes)
            )
        )

    def masks(self, out: UNetOutput, *, last_only: bool = False) -> Mask2FormerOutput:
        """Classified masks from the U-Net's output.

        Args:
            out: Of :meth:`features`.
            last_only: Gives only what the head's last layer says.
        """
        maps = self.pyramid(out)
        if self.config.upsample_finest:
            twice = F.interpolate(maps[0], scale_factor=2, mode="bilinear", align_corners=False)
            maps = (twice, *maps)
        return self.head(maps, last_only=last_only)

    def logits(
        self, image: Tensor, states: Tensor | None = None, states_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Raw head output.

        Args:
            image: [B, 3, H, W] in [-1, 1]; any size: padded with zeros to what the networks take.
            states, states_mask: As :meth:`features` takes them.

        Returns:
            Of classes [B, Q, K + 1], "no object" last; of masks [B, Q, h, w], a grid over the
            padded picture.
        """
        latents = self.encode_image(pad_to_multiple(image, self.config.multiple))
        out = self.features(latents, states, states_mask, seen=self.look(image))
        found = self.masks(out, last_only=True)
        return found.logits[-1], found.masks[-1]

    def forward(
        self,
        image: Any,
        *,
        words: Any = None,
        states: Tensor | None = None,
        min_score: float | None = None,
        min_overlap: float | None = None,
        top: int = 100,
    ) -> PanopticResult:
        """The segments of a picture, seen as a whole: its shorter side becomes ``image_size``, or
        less where the longer one would exceed ``max_size``.

        Args:
            image: Path, PIL image, uint8 array HxWx3 (or grey, RGBA, 16 bit), float array or
                tensor in [0, 1]; any size.
            words: What is said about it, where ``config.condition`` takes that: see
                :meth:`context`.
            states: Instead of words, tokens [n, C] of them, such as embeddings of tags.
            min_score, min_overlap: Instead of the config's.
            top: Objects that ``instances`` lists at most.

        Returns:
            A :class:`vpd.tasks.panoptic_results.PanopticResult` at the picture's own size.

        Raises:
            ValueError, TypeError, OSError: A picture that cannot be read, a share out of range,
                words where none are taken, or none for ``oracle``.
        """
        config = self.config
        options = asked(config, min_score, min_overlap, top)
        picture, pixels = whole_picture(image, config.image_size, config.max_size)
        used = (pixels.shape[-2], pixels.shape[-1])
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                told = self._states(words, states)
                logits, masks = self.logits(pixels.to(self.device, self.dtype), *told)
        finally:
            self.train(training)
        return PanopticResult.from_masks(
            picture,
            logits[0].float(),
            masks[0].float(),
            config.classes,
            config.things,
            padded=padded_size(used, config.multiple),
            used=used,
            **options._asdict(),
            oracle=config.condition == "oracle",
        )
