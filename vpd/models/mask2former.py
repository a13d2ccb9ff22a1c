"""Mask2Former's head: feature maps to masks, each with a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vpd._load import core
from vpd.nn import CoreModule

__all__ = ["Mask2FormerConfig", "Mask2FormerHead", "Mask2FormerOutput", "PixelFeatures"]


@dataclass(frozen=True)
class Mask2FormerConfig:
    """Shape of a Mask2Former head; fields have the original's names, defaults are its panoptic
    models'."""

    in_channels: tuple[int, ...]
    """Channels of the feature maps, fine to coarse, attention maps included."""
    num_classes: int | None
    """Classes beside "no object"; None: masks without classes."""
    conv_dim: int = 256
    """Channels of the pixel decoder; a multiple of 4, of ``transformer_nheads`` and of
    ``norm_groups``."""
    mask_dim: int = 256
    """Channels of the mask features."""
    hidden_dim: int = 256
    """Channels of the queries; a multiple of 4 and of ``nheads``."""
    num_queries: int = 100
    nheads: int = 8
    """Heads of the queries' attention."""
    dim_feedforward: int = 2048
    """Channels inside the queries' feed-forward parts."""
    dec_layers: int = 9
    """Layers of the queries' decoder; the head has one output more."""
    transformer_nheads: int = 8
    """Heads of the deformable attention in the pixel decoder's encoder."""
    transformer_dim_feedforward: int = 1024
    """Channels inside that encoder's feed-forward parts."""
    transformer_enc_layers: int = 6
    transformer_levels: int = 3
    """How many of the coarsest maps go through that encoder; a feature pyramid joins the finer
    ones."""
    num_feature_levels: int = 3
    """How many of the coarsest maps the decoder's layers read in turn."""
    n_points: int = 4
    """Points of each map that a head of the deformable attention looks at."""
    norm_groups: int = 32
    """Of every group normalisation."""
    pre_norm: bool = False
    """Whether the decoder's layer norms stand before its parts instead of behind them."""
    enforce_input_project: bool = False
    """Project the maps that queries read even where ``conv_dim`` is ``hidden_dim``."""


class PixelFeatures(NamedTuple):
    """What the pixel decoder makes of feature maps."""

    mask_features: Tensor
    """[B, mask_dim, H_0, W_0], at the size of the finest map."""
    levels: list[Tensor]
    """[B, conv_dim, H_i, W_i] for ``num_feature_levels`` maps, coarse to fine."""


class Mask2FormerOutput(NamedTuple):
    """What the queries say before the first layer of the decoder and after each one; after the last
    alone with ``last_only``.

    :func:`vpd.losses.mask2former_loss` takes ``logits`` and ``masks`` as they are.
    """

    logits: list[Tensor]
    """[B, num_queries, num_classes + 1], "no object" last; an empty list without classes."""
    masks: list[Tensor]
    """Logits [B, num_queries, H_0, W_0]."""
    queries: list[Tensor]
    """[B, num_queries, hidden_dim], normed: what classes and masks are made from."""
    mask_features: Tensor
    """[B, mask_dim, H_0, W_0]: what masks are compared with."""


class Mask2FormerHead(CoreModule[Mask2FormerConfig]):
    """The head of Mask2Former (Cheng et al. 2022, "Masked-attention Mask Transformer for Universal
    Image Segmentation").

    The pixel decoder runs deformable attention (Zhu et al. 2021) over the coarsest maps and joins
    the finer ones by a feature pyramid. Queries then read its maps in turn, coarse to fine, each
    only where its mask so far is (everywhere if that is nowhere), and compare themselves with the
    mask features. No gradient flows through where they may look. Parameter names are the original's
    below ``sem_seg_head.`` (``pixel_decoder.*``, ``predictor.*``); transformers' Mask2Former loads
    too.

    Example:
        >>> config = vpd.Mask2FormerConfig(in_channels=(8, 16, 16, 32), num_classes=7)
        >>> head = vpd.Mask2FormerHead(config).eval()
        >>> maps = [torch.randn(1, c, s, s) for c, s in zip((8, 16, 16, 32), (32, 16, 8, 4))]
        >>> out = head(maps)
        >>> len(out.masks), out.logits[-1].shape, out.masks[-1].shape
        (10, torch.Size([1, 100, 8]), torch.Size([1, 100, 32, 32]))
    """

    def __init__(
        self, config: Mask2FormerConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config, generator=generator)

    @staticmethod
    def _build(config: Mask2FormerConfig) -> Any:
        return core.Mask2FormerHead(**asdict(config))

    def pixels(self, features: Sequence[Tensor]) -> PixelFeatures:
        """The pixel decoder alone.

        Args:
            features: As for :meth:`forward`.

        Raises:
            ValueError: As for :meth:`forward`.
        """
        return PixelFeatures(*self._core.pixels(self.core_tensors(), list(features)))

    def decode(self, pixels: PixelFeatures, *, last_only: bool = False) -> Mask2FormerOutput:
        """The queries' decoder alone, on what :meth:`pixels` or another pixel decoder gives.

        Args:
            pixels: ``mask_features`` and ``num_feature_levels`` levels, coarse to fine, of any
                sizes, but none larger than the next finer one or than ``mask_features``.
            last_only: Gives only what the last layer says; needs less memory.

        Raises:
            ValueError: Shapes other than these.
        """
        logits, masks, queries = self._core.decode(
            self.core_tensors(), pixels.mask_features, list(pixels.levels), last_only
        )
        return Mask2FormerOutput(logits, masks, queries, pixels.mask_features)

    def forward(self, features: Sequence[Tensor], *, last_only: bool = False) -> Mask2FormerOutput:
        """Feature maps to classes and masks.

        Args:
            features: Fine to coarse, [B, in_channels[i], H_i, W_i]; any sizes, square or not, but
                none larger than the one before.
            last_only: Gives only what the last layer says; needs less memory.

        Returns:
            Logits of classes and masks, the latter at the size of the finest map.

        Raises:
            ValueError: A number of maps, channels or an order of sizes other than these.
        """
        return self.decode(self.pixels(features), last_only=last_only)
