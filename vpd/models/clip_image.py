"""The image tower of CLIP, which turns a picture into tokens and a place in CLIP's joint space."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vpd._load import core
from vpd.nn import CoreModule

__all__ = ["CLIPImageConfig", "CLIPImageEncoder", "CLIPImageOutput", "clip_pixels"]

# Mean and standard deviation of CLIP's training images, per colour, values in [0, 1] (Radford et
# al. 2021, the published preprocessing).
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class CLIPImageConfig:
    """Shape of an image encoder; field names are transformers', defaults are CLIP ViT-L/14's."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 224
    """Side in pixels of the square image whose position embeddings are stored; a multiple of
    ``patch_size``."""
    patch_size: int = 14
    num_channels: int = 3
    projection_dim: int | None = 768
    """Length of CLIP's joint embedding; None or 0: no ``visual_projection``."""
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: float = 1e-5

    @classmethod
    def vit_b32(cls) -> CLIPImageConfig:
        """ViT-B/32: 87,849,216 parameters, 50 tokens at 224 pixels."""
        return cls(768, 3072, 12, 12, patch_size=32, projection_dim=512)

    @classmethod
    def vit_b16(cls) -> CLIPImageConfig:
        """ViT-B/16: 86,192,640 parameters, 197 tokens at 224 pixels."""
        return cls(768, 3072, 12, 12, patch_size=16, projection_dim=512)

    @classmethod
    def vit_l14(cls) -> CLIPImageConfig:
        """ViT-L/14: 303,966,208 parameters, 257 tokens at 224 pixels."""
        return cls()

    @classmethod
    def vit_l14_336(cls) -> CLIPImageConfig:
        """ViT-L/14@336px: 304,293,888 parameters, 577 tokens at 336 pixels."""
        return cls(image_size=336)


class CLIPImageOutput(NamedTuple):
    """What an image encoder sees in a batch of pictures.

    N = 1 + (H / patch_size) * (W / patch_size) tokens: the class token, then the patches row by
    row.
    """

    hidden: Tensor
    """[B, N, hidden_size]: every token after the last layer and the final layer norm."""
    last: Tensor
    """[B, N, hidden_size]: the same before that norm; transformers' ``last_hidden_state``."""
    penultimate: Tensor
    """[B, N, hidden_size]: what the last layer reads, without a norm; transformers'
    ``hidden_states[-2]``."""
    pooled: Tensor
    """[B, hidden_size]: the class token of ``hidden``; transformers' ``pooler_output``."""
    projected: Tensor | None
    """[B, projection_dim]: ``pooled`` in CLIP's joint space, not normalised; transformers'
    ``image_embeds``. None without ``visual_projection``."""


class CLIPImageEncoder(CoreModule[CLIPImageConfig]):
    """The vision transformer of CLIP (Radford et al. 2021).

    Parameter names are transformers' (``vision_model....``, ``visual_projection.weight``);
    :func:`vpd.load_weights` also reads OpenAI's (``visual....``). The first weights follow
    transformers' initialisation.

    Example:
        >>> config = vpd.CLIPImageConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
        >>> encoder = vpd.CLIPImageEncoder(config)
        >>> encoder(torch.zeros(1, 3, 224, 224)).hidden.shape
        torch.Size([1, 257, 64])
    """

    def __init__(
        self, config: CLIPImageConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config or CLIPImageConfig(), generator=generator)

    @staticmethod
    def _build(config: CLIPImageConfig) -> Any:
        fields = {**asdict(config), "projection_dim": config.projection_dim or 0}
        return core.CLIPImageEncoder(**fields)

    def forward(self, pixels: Tensor) -> CLIPImageOutput:
        """Pixels to tokens.

        At another size than ``image_size`` the position embeddings of the patches are resized
        bicubically to the new grid (transformers' ``interpolate_pos_encoding=True``).

        Args:
            pixels: float [B, num_channels, H, W], normalised as CLIP's (:func:`clip_pixels`); H and
                W any multiples of ``patch_size``. Converted to the weights' dtype.

        Raises:
            ValueError: Another shape or dtype, or a height or width that patches do not tile.
        """
        out = self._core.forward(self.core_tensors(), pixels)
        return CLIPImageOutput(out.hidden, out.last, out.penultimate, out.pooled, out.projected)


def clip_pixels(images: Tensor, value_range: Literal["signed", "unit"] = "signed") -> Tensor:
    """RGB images as CLIP's image encoder takes them: mean and deviation of its training set.

    Size and memory format stay; resize before. Differentiable.

    Args:
        images: float [B, 3, H, W], RGB.
        value_range: "signed": values in [-1, 1], what vpd's other networks see; "unit": in [0, 1].

    Returns:
        [B, 3, H, W] of the same dtype, about zero mean and unit deviation over natural images.

    Raises:
        ValueError: Another shape, an integer dtype, or another range.
    """
    if images.dim() != 4 or images.size(1) != 3 or not images.is_floating_point():
        raise ValueError(
            f"clip_pixels: images must be float [B, 3, H, W], got {images.dtype} "
            f"{list(images.shape)}"
        )
    if value_range not in ("signed", "unit"):
        raise ValueError(f"clip_pixels: value_range must be signed or unit, got {value_range!r}")
    mean = images.new_tensor(_MEAN).view(3, 1, 1)
    std = images.new_tensor(_STD).view(3, 1, 1)
    unit = images / 2 + 0.5 if value_range == "signed" else images
    return (unit - mean) / std
