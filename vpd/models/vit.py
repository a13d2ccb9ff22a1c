"""A plain vision transformer as a frozen backbone: what a diffusion prior is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vpd._load import core
from vpd.nn import CoreModule

__all__ = ["ViTBackbone", "ViTConfig"]

# Mean and standard deviation of ImageNet's pictures, per colour, values in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_BACKBONE = ("blocks", "strides", "image_scale")  # fields that the network does not have


@dataclass(frozen=True)
class ViTConfig:
    """Shape of a vision transformer, and what is made of it. The defaults are DINOv2's ViT-B/14
    (Oquab et al. 2023)."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 518
    """Side in pixels of the square picture whose position embeddings are stored; a multiple of
    ``patch_size``."""
    patch_size: int = 14
    num_register_tokens: int = 0
    """Tokens beside the class token that see no place (Darcet et al. 2024)."""
    layer_scale: bool = True
    """DINOv2: what a block adds has a factor per channel."""
    layer_norm_eps: float = 1e-6
    blocks: tuple[int, ...] = ()
    """Which block each map comes from, in order of ``strides``; () for evenly spaced ones, the last
    among them. (11, 11, 11, 11) makes all of the last."""
    strides: tuple[int, ...] = (8, 16, 32, 64)
    """Pixels between the places of each map, fine to coarse; those of Stable Diffusion's U-Net."""
    image_scale: float = 1.0
    """Factor of the picture's sides before patches are cut: 2 makes four times the tokens."""

    def __post_init__(self) -> None:
        steps = zip(self.strides, self.strides[1:], strict=False)
        if not self.strides or self.strides[0] < 1 or any(b <= a or b % a for a, b in steps):
            raise ValueError(
                "ViTConfig.strides must ascend, each a multiple of the one before, got "
                f"{self.strides}"
            )
        known = range(self.num_hidden_layers)
        if self.blocks and (
            len(self.blocks) != len(self.strides) or any(i not in known for i in self.blocks)
        ):
            raise ValueError(
                f"ViTConfig.blocks must be {len(self.strides)} numbers in 0.."
                f"{self.num_hidden_layers - 1}, one for each stride, got {self.blocks}"
            )
        if not 0.1 <= self.image_scale <= 10:
            raise ValueError(f"ViTConfig.image_scale must be in [0.1, 10], got {self.image_scale}")

    @property
    def map_blocks(self) -> tuple[int, ...]:
        """Which block each map comes from."""
        count = len(self.strides)
        even = tuple((i + 1) * self.num_hidden_layers // count - 1 for i in range(count))
        return self.blocks or tuple(max(i, 0) for i in even)

    @classmethod
    def dinov2_small(cls, **changes: Any) -> ViTConfig:
        """DINOv2 ViT-S/14: 22,056,192 parameters."""
        return cls(384, 1536, 12, 6, **changes)

    @classmethod
    def dinov2_base(cls, **changes: Any) -> ViTConfig:
        """DINOv2 ViT-B/14: 86,579,712 parameters."""
        return cls(**changes)

    @classmethod
    def dinov2_large(cls, **changes: Any) -> ViTConfig:
        """DINOv2 ViT-L/14: 304,367,616 parameters."""
        return cls(1024, 4096, 24, 16, **changes)


class ViTBackbone(CoreModule[ViTConfig]):
    """Four maps of a frozen vision transformer, at the strides of a U-Net's features.

    A transformer has one resolution. Its maps, each through the final norm, are resized: a pyramid
    without weights of its own. Nothing here asks for gradients.

    Parameter names are those of DINOv2's authors, which are timm's too (``cls_token``,
    ``blocks.0.attn.qkv.weight``, ...); :func:`vpd.models.vit_weights.load_vit` reads their files.

    Attributes:
        feature_channels: Channels of each map.
        multiple: What height and width of a picture must be multiples of.

    Example:
        >>> config = ViTConfig(hidden_size=64, num_hidden_layers=4, num_attention_heads=4)
        >>> maps = ViTBackbone(config)(torch.zeros(1, 3, 128, 192))
        >>> [tuple(map_.shape) for map_ in maps]
        [(1, 64, 16, 24), (1, 64, 8, 12), (1, 64, 4, 6), (1, 64, 2, 3)]
    """

    def __init__(
        self, config: ViTConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config or ViTConfig(), generator=generator)
        self.requires_grad_(False)
        self.feature_channels = (self.config.hidden_size,) * len(self.config.strides)
        self.multiple = self.config.strides[-1]

    @staticmethod
    def _build(config: ViTConfig) -> Any:
        fields = {k: v for k, v in asdict(config).items() if k not in _BACKBONE}
        return core.ViT(**fields)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The maps of some pictures.

        Args:
            image: float [B, 3, H, W], RGB in [-1, 1]; H and W multiples of ``multiple``. It is
                resized (bilinear) to the nearest size that patches tile.

        Returns:
            For each stride [B, C, H / stride, W / stride], float32, fine to coarse.

        Raises:
            ValueError: Another shape, dtype or size.
        """
        height, width = self._checked(image)
        maps = self.block_maps(self.patchable(image))
        return tuple(
            F.interpolate(
                maps[block].float(), (height // stride, width // stride), mode="bilinear",
                align_corners=False, antialias=True,
            )
            for block, stride in zip(self.config.map_blocks, self.config.strides, strict=True)
        )  # fmt: skip

    def patchable(self, image: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] as the transformer takes them: normalised by ImageNet's
        mean and deviation, at the nearest size that patches tile."""
        config = self.config
        sides = [round(side * config.image_scale / config.patch_size) for side in image.shape[-2:]]
        size = [max(1, side) * config.patch_size for side in sides]
        if size != list(image.shape[-2:]):
            image = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
        mean = image.new_tensor(_MEAN).view(3, 1, 1)
        std = image.new_tensor(_STD).view(3, 1, 1)
        return (image / 2 + 0.5 - mean) / std

    def block_maps(self, pixels: Tensor) -> Mapping[int, Tensor]:
        """Block -> its map [B, C, H / patch, W / patch] of what :meth:`patchable` gives, for those
        that the maps come from. Position embeddings are resized (bicubic) to another grid."""
        wanted = sorted(set(self.config.map_blocks))
        found = self._core.forward(self.core_tensors(), pixels, wanted)
        return dict(zip(wanted, found, strict=True))

    def _checked(self, image: Tensor) -> tuple[int, int]:
        if image.dim() != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise ValueError(
                f"vit: image must be float [B, 3, H, W], got {image.dtype} {list(image.shape)}"
            )
        height, width = image.shape[-2:]
        if not height or not width or height % self.multiple or width % self.multiple:
            raise ValueError(
                f"vit: height and width must be multiples of {self.multiple}, got {height}x{width}"
            )
        return height, width
