"""CLIP: a text and an image encoder that share a space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpd.models.clip_image import CLIPImageConfig, CLIPImageEncoder, clip_pixels
from vpd.models.clip_text import CLIPTextConfig, CLIPTextEncoder
from vpd.nn import Network
from vpd.tokens import tokenize

__all__ = ["CLIP", "CLIPConfig"]

_START = 1 / 0.07  # factor on cosines before training (Radford et al. 2021, section 2.5)


@dataclass(frozen=True)
class CLIPConfig:
    """Two towers with the same ``projection_dim``; the defaults are CLIP ViT-L/14's."""

    text: CLIPTextConfig = field(default_factory=lambda: CLIPTextConfig(projection_dim=768))
    image: CLIPImageConfig = field(default_factory=CLIPImageConfig)
    token_length: int = 77

    def __post_init__(self) -> None:
        if not self.text.projection_dim or self.text.projection_dim != self.image.projection_dim:
            raise ValueError(
                "CLIPConfig: text and image need one projection_dim, got "
                f"{self.text.projection_dim} and {self.image.projection_dim}"
            )


class CLIP(Network):
    """CLIP (Radford et al. 2021).

    ``logit_scale`` is the logarithm of the factor on cosines, as in the original; cosines times its
    exponential are the logits of zero-shot classification.
    """

    def __init__(self, config: CLIPConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CLIPConfig()
        self.text = CLIPTextEncoder(config.text)
        self.image = CLIPImageEncoder(config.image)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(_START)))

    def embed_text(self, texts: Sequence[str] | Tensor) -> Tensor:
        """Sentences, or their token ids int64 [B, N], in the shared space: [B, D], unit length."""
        ids = texts
        if not isinstance(ids, Tensor):
            ids = tokenize(list(ids), length=self.config.token_length).ids
        return _unit(self.text(ids.to(self.logit_scale.device)).projected)

    def embed_images(self, images: Tensor) -> Tensor:
        """Pictures in the shared space: [B, D], unit length.

        Args:
            images: float [B, 3, H, W] in [-1, 1], sides as :class:`vpd.CLIPImageEncoder` takes
                them.
        """
        return _unit(self.image(clip_pixels(images)).projected)


def _unit(projected: Tensor | None) -> Tensor:
    assert projected is not None  # the config asks for a projection
    return F.normalize(projected, dim=-1)
