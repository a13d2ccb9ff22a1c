"""The text tower of CLIP, which conditions Stable Diffusion v1."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vpd._load import core
from vpd.nn import CoreModule

__all__ = ["CLIPTextConfig", "CLIPTextEncoder", "CLIPTextOutput"]


@dataclass(frozen=True)
class CLIPTextConfig:
    """Shape of a text encoder; field names are transformers', defaults are CLIP ViT-L/14's as in
    Stable Diffusion v1."""

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: float = 1e-5
    bos_token_id: int = 49406
    eos_token_id: int = 49407
    """Its first occurrence in a row is where the sentence is read out."""
    pad_token_id: int = 49407
    projection_dim: int | None = None
    """Length of CLIP's joint embedding; None or 0: no ``text_projection`` (Stable Diffusion has
    none)."""
    vocab_subset: tuple[int, ...] = ()
    """Token ids that have a row of their own in the embedding table, in rising order; all others
    share one last row. Empty: every id has its row."""


class CLIPTextOutput(NamedTuple):
    """What a text encoder reads in a batch of sentences."""

    hidden: Tensor
    """[B, N, hidden_size], after the final layer norm."""
    penultimate: Tensor
    """[B, N, hidden_size], what the last layer reads, without a norm."""
    pooled: Tensor
    """[B, hidden_size]: ``hidden`` at each row's first end-of-sentence token, or at its last token
    if it has none."""
    projected: Tensor | None
    """[B, projection_dim]: ``pooled`` in CLIP's joint space, not normalised; None without
    ``text_projection``."""


class CLIPTextEncoder(CoreModule[CLIPTextConfig]):
    """The text transformer of CLIP (Radford et al. 2021).

    Parameter names are transformers' (``text_model....``, ``text_projection.weight``), as in Stable
    Diffusion's checkpoint below ``cond_stage_model.transformer.``. The first weights follow
    transformers' initialisation.

    Example:
        >>> config = vpd.CLIPTextConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
        >>> text = vpd.CLIPTextEncoder(config)
        >>> text(vpd.tokenize(["the red cube"]).ids).hidden.shape
        torch.Size([1, 77, 64])
    """

    def __init__(
        self, config: CLIPTextConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config or CLIPTextConfig(), generator=generator)

    @staticmethod
    def _build(config: CLIPTextConfig) -> Any:
        fields = {**asdict(config), "projection_dim": config.projection_dim or 0}
        del fields["bos_token_id"], fields["pad_token_id"]  # the tokenizer's business
        return core.CLIPTextEncoder(**fields)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> CLIPTextOutput:
        """Token ids to states. Attention is causal, so a padded tail never changes what stands
        before it.

        Args:
            ids: int64 [B, N], N from 1 to ``max_position_embeddings``, values in [0,
                ``vocab_size``).
            mask: bool [B, N], False = padding that no position attends to (transformers'
                ``attention_mask``). Stable Diffusion and VPD pass none.

        Raises:
            ValueError: A shape, dtype or id outside the ranges above.
        """
        out = self._core.forward(self.core_tensors(), ids, mask)
        return CLIPTextOutput(out.hidden, out.penultimate, out.pooled, out.projected)
