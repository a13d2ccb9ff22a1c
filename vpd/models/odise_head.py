"""ODISE's head: masks with embeddings, compared with those of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vpd._load import core
from vpd.models.mask2former import Mask2FormerConfig, PixelFeatures
from vpd.nn import CoreModule

__all__ = [
    "OdiseHead",
    "OdiseHeadConfig",
    "OdiseOutput",
    "OdiseTextConfig",
    "OdiseTextHead",
    "mask_pooling",
]


def mask_pooling(x: Tensor, masks: Tensor, *, soft: bool = False) -> Tensor:
    """The mean of features inside each mask: ``sum(w x) / (sum(w) + 1e-8)``; an empty mask has 0.

    Args:
        x: [B, C, H, W].
        masks: Logits [B, Q, H, W], which no gradient reaches.
        soft: w is the sigmoid of the logits, instead of 1 where they are positive.

    Returns:
        [B, Q, C], float32 at least.

    Raises:
        ValueError: Shapes or dtypes other than these.
    """
    return core.mask_pooling(x, masks, soft)


@dataclass(frozen=True)
class OdiseHeadConfig(Mask2FormerConfig):
    """Shape of an ODISE head: that of its Mask2Former, and one field more."""

    num_classes: int | None = None
    """None, for masks that learn the names of labels: whether something is an object is not asked.
    1, for masks that learn from captions: a mask is an object or none."""
    projection_dim: int = 256
    """Channels of the masks' embeddings."""


class OdiseOutput(NamedTuple):
    """What the queries say before the first layer of the decoder and after each one; after the last
    alone with ``last_only``."""

    logits: list[Tensor]
    """[B, num_queries, 2]: object, no object; always 1 and 0 if ``num_classes`` is None."""
    masks: list[Tensor]
    """Logits [B, num_queries, H_0, W_0]."""
    queries: list[Tensor]
    """[B, num_queries, hidden_dim], normed: what all others are made from."""
    embeddings: list[Tensor]
    """z [B, num_queries, projection_dim], of any length: cosines count."""
    scale: Tensor
    """[], float32 at least: what multiplies cosines; 1 / temperature, at most 100."""
    mask_features: Tensor
    """[B, mask_dim, H_0, W_0]: what masks are compared with."""


class OdiseHead(CoreModule[OdiseHeadConfig]):
    """The head of ODISE (Xu et al. 2023, "Open-Vocabulary Panoptic Segmentation with Text-to-Image
    Diffusion Models", section 3.3).

    It is the head of Mask2Former (:class:`vpd.Mask2FormerHead`); beside, each mask has an embedding
    z: the mean of the mask features inside it (:func:`mask_pooling`), through a layer norm and a
    linear layer, plus its query, through a layer norm and an MLP of three layers. Parameter names
    are the original's below ``sem_seg_head.`` (``pixel_decoder.*``, ``predictor.*``,
    ``predictor.post_mask_embed.*``).

    What it is trained with, together with an :class:`OdiseTextHead`:

    * names of labels: ``vpd.losses.mask2former_loss`` of the text head's scores and ``masks``;
    * captions: the same of ``logits`` and ``masks``, where every label is 0, and
      ``vpd.losses.mask_grounding_loss`` of ``embeddings`` and the captions' words.

    Example:
        >>> config = vpd.OdiseHeadConfig(in_channels=(8, 16, 16, 32))
        >>> head, text = vpd.OdiseHead(config).eval(), vpd.OdiseTextHead()
        >>> maps = [torch.randn(1, c, s, s) for c, s in zip((8, 16, 16, 32), (32, 16, 8, 4))]
        >>> out = head(maps)
        >>> names = torch.randn(3, 768)  # of "cat", "kitten" and "sky"
        >>> scores = text(out.embeddings, names, [0, 0, 1], out.scale)
        >>> len(scores), scores[-1].shape  # cat, sky, none of them
        (10, torch.Size([1, 100, 3]))
    """

    def __init__(
        self, config: OdiseHeadConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config, generator=generator)

    @staticmethod
    def _build(config: OdiseHeadConfig) -> Any:
        fields = asdict(config)
        projection_dim = fields.pop("projection_dim")
        return core.OdiseHead(core.Mask2FormerHead(**fields), projection_dim)

    def pixels(self, features: Sequence[Tensor]) -> PixelFeatures:
        """As :meth:`vpd.Mask2FormerHead.pixels`."""
        return PixelFeatures(*self._core.pixels(self.core_tensors(), list(features)))

    def decode(self, pixels: PixelFeatures, *, last_only: bool = False) -> OdiseOutput:
        """The queries' decoder alone; arguments as of :meth:`vpd.Mask2FormerHead.decode`."""
        logits, masks, queries, embeddings, scale = self._core.decode_with_embeddings(
            self.core_tensors(), pixels.mask_features, list(pixels.levels), last_only
        )
        return OdiseOutput(logits, masks, queries, embeddings, scale, pixels.mask_features)

    def forward(self, features: Sequence[Tensor], *, last_only: bool = False) -> OdiseOutput:
        """Feature maps to masks and their embeddings; arguments and errors as of
        :meth:`vpd.Mask2FormerHead.forward`."""
        return self.decode(self.pixels(features), last_only=last_only)


@dataclass(frozen=True)
class OdiseTextConfig:
    """Shape of the words' side of ODISE."""

    text_dim: int = 768
    """Channels of the text encoder's embeddings."""
    projection_dim: int | None = 256
    """Channels of the masks' embeddings, to which a linear layer brings words; None: they have
    ``text_dim`` of them, and there is no such layer."""
    null: bool = True
    """Whether an embedding of "none of these" is learnt: True with labels, False with captions."""


class OdiseTextHead(CoreModule[OdiseTextConfig]):
    """The words' side of ODISE: their embeddings brought to those of masks, and scores of
    categories (Xu et al. 2023, equation 5).

    Parameter names are the original's below ``category_head.`` with labels, ``word_head.`` with
    captions: ``text_proj.*``, ``null_embed``.

    Args:
        empty: [text_dim] or [1, text_dim], the text encoder's embedding of "", where "none of
            these" starts; None: at small random values.
    """

    def __init__(
        self,
        config: OdiseTextConfig | None = None,
        *,
        empty: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(config or OdiseTextConfig(), generator=generator)
        if empty is not None:
            self._start_null(empty)

    def _start_null(self, empty: Tensor) -> None:
        dim = self.config.text_dim
        if not self.config.null or empty.shape not in ((dim,), (1, dim)):
            wanted = f"[{dim}] or [1, {dim}]" if self.config.null else "none without null"
            raise ValueError(f"odise_text_head: empty must be {wanted}, got {list(empty.shape)}")
        with torch.no_grad():
            self.get_parameter("null_embed").copy_(empty)

    @staticmethod
    def _build(config: OdiseTextConfig) -> Any:
        return core.OdiseTextHead(**asdict(config))

    def project(self, texts: Tensor) -> Tensor:
        """Embeddings of texts, [..., text_dim], beside those of masks: [..., projection_dim].

        Raises:
            ValueError: Other channels or an integer dtype.
        """
        return self._core.project(self.core_tensors(), texts)

    def forward(
        self,
        embeddings: Sequence[Tensor],
        texts: Tensor,
        categories: Sequence[int],
        scale: Tensor,
    ) -> list[Tensor]:
        """Scores of categories: ``scale`` times the cosine between a mask's embedding and the
        nearest name of each category.

        Args:
            embeddings: Of masks, for each output of the head [B, Q, projection_dim].
            texts: [S, text_dim], embeddings of all names of all categories; at least one.
            categories: S ids: whose name each is, in any order. Each of 0 ... K - 1 has one.
            scale: [], see :class:`OdiseOutput`.

        Returns:
            For each output [B, Q, K], or with ``null`` [B, Q, K + 1], "none of these" last; float32
            at least.

        Raises:
            ValueError: Shapes and dtypes other than these, or a category without a name.
        """
        return self._core.logits(
            self.core_tensors(), list(embeddings), texts, list(categories), scale
        )
