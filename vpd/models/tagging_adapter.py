"""The tagging adapter, which turns tags and a picture into the denoiser's context."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vpd._load import core
from vpd.nn import CoreModule

__all__ = ["HeadNorm", "TaggingAdapter", "TaggingAdapterConfig", "TaggingOutput"]

HeadNorm = Literal["h_unit", "h_centered", "raw", "cosine"]


@dataclass(frozen=True)
class TaggingAdapterConfig:
    """Shape of a tagging adapter; defaults are the paper's, on CLIP ViT-L/14."""

    dim: int = 768
    """Channels of the queries and of the context."""
    text_dim: int | None = 768
    """Channels of the tags' tokens; None: the adapter reads no text."""
    image_dim: int | None = 1024
    """Channels of the image's tokens; None: the adapter reads no image."""
    queries: int = 32
    blocks: int = 2
    heads: int = 8
    """Of every attention; a divisor of ``dim``."""
    hidden: int = 3072
    """Channels inside the blocks' MLPs."""
    single_cross: bool = False
    """One cross-attention to text and image side by side instead of one after the other; takes
    both, and ``text_dim`` equal to ``dim``."""
    head_norm: HeadNorm = "h_unit"
    """Scores of classes from the mean query m and class embeddings h: ``h_unit`` <m, h / |h|>;
    ``h_centered`` the same with h less the mean of all classes, for embeddings that hardly differ;
    ``raw`` <m, h>, which saturates with CLIP's embeddings of norm 28; ``cosine`` the cosine times a
    learnt scale that starts at 1 / 0.07."""


class TaggingOutput(NamedTuple):
    """What a tagging adapter makes of a batch."""

    context: Tensor
    """[B, queries, dim]: the condition of the U-Net."""
    logits: Tensor | None
    """[B, K]: scores of the classes, before the sigmoid; None if no classes were given."""
    text_attention: Tensor | None = None
    """[B, queries, n]: where queries looked among the tags, averaged over heads and blocks: each
    query's shares sum to 1, or are all 0 for an image without tags. None if not asked for, or
    without ``text_dim``."""
    image_attention: Tensor | None = None
    """[B, queries, N]: the same among the image's tokens. With ``single_cross`` shares of tags and
    of image tokens sum to 1 together."""


class TaggingAdapter(CoreModule[TaggingAdapterConfig]):
    """Learnt queries that read tags and image (the tagging adapter of "Harnessing text-to-image
    diffusion for dense prediction", 2024, equations 6 and 7).

    In each block the queries attend to themselves, to the tags, to the image, and pass an MLP
    (exact GELU), all pre-normed and residual; a layer norm and a two-layer MLP make the context.
    Averaged over the queries, it scores classes by their fixed embeddings, for
    :func:`vpd.losses.asymmetric_loss`. The paper names the parts; their order, norms and widths,
    and all parameter names, are this project's, as neither code nor weights were released.

    Example:
        >>> adapter = vpd.TaggingAdapter(vpd.TaggingAdapterConfig(queries=4, hidden=64))
        >>> tags, patches = torch.randn(2, 5, 768), torch.randn(2, 257, 1024)
        >>> out = adapter(tags, patches, classes=torch.randn(150, 768))
        >>> out.context.shape, out.logits.shape
        (torch.Size([2, 4, 768]), torch.Size([2, 150]))
    """

    def __init__(
        self,
        config: TaggingAdapterConfig | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(config or TaggingAdapterConfig(), generator=generator)

    @staticmethod
    def _build(config: TaggingAdapterConfig) -> Any:
        return core.TaggingAdapter(**asdict(config))

    def forward(
        self,
        text: Tensor | None = None,
        image: Tensor | None = None,
        *,
        text_mask: Tensor | None = None,
        classes: Tensor | None = None,
        attention: bool = False,
    ) -> TaggingOutput:
        """Tokens to context and scores. Inputs are converted to the weights' dtype.

        Args:
            text: [B, n, text_dim], one token for each tag; given just if the config has
                ``text_dim``.
            image: [B, N, image_dim], e.g. ``CLIPImageOutput.hidden``; given just if the config has
                ``image_dim``.
            text_mask: bool [B, n], True = a tag, False = padding; None: all are tags. What an
                image without tags (n = 0, or no True) gets from text is nothing.
            classes: [K, dim], embeddings of the classes to score. They are constants: no gradient
                reaches them.
            attention: Return where queries looked, too.

        Raises:
            ValueError: Tokens that the config does not ask for, or lacking ones, or shapes and
                dtypes other than these.
        """
        out = self._core.forward(self.core_tensors(), text, text_mask, image, classes, attention)
        return TaggingOutput(*out)
