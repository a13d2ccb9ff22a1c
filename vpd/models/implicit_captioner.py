"""ODISE's implicit captioner, which turns a picture into the denoiser's context."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vpd._load import core
from vpd.nn import CoreModule

__all__ = ["ImplicitCaption", "ImplicitCaptioner", "ImplicitCaptionerConfig"]


@dataclass(frozen=True)
class ImplicitCaptionerConfig:
    """Shape of an implicit captioner; defaults are ODISE's, on Stable Diffusion v1 and CLIP
    ViT-L/14."""

    dim: int = 768
    """Channels of the context."""
    image_dim: int = 768
    """Channels of the picture's embedding."""
    tokens: int = 77
    """Of the context."""
    time_dim: int | None = 1280
    """Channels of the U-Net's time embedding, which the picture then changes too; None: it does
    not."""
    kind: Literal["gated", "mlp"] = "gated"
    """``gated``, ODISE's code: the states of the empty sentence plus tanh(alpha) * (W v + P), where
    alpha starts at 0. ``mlp``, its equation 3: MLP(v) + P; without the places P all tokens would
    be one."""
    time_steps: int = 1
    """Timesteps of the U-Net that each have a bias of their own."""

    def __post_init__(self) -> None:
        if self.kind not in ("gated", "mlp"):
            raise ValueError(
                f"ImplicitCaptionerConfig.kind must be 'gated' or 'mlp', got {self.kind!r}"
            )


class ImplicitCaption(NamedTuple):
    """What stands for a caption."""

    context: Tensor
    """[B, tokens, dim]."""
    time_bias: Tensor | None
    """[B, time_dim], added to the U-Net's time embedding; [B, time_steps, time_dim] of several
    timesteps; None without ``time_dim``."""


class ImplicitCaptioner(CoreModule[ImplicitCaptionerConfig]):
    """The implicit captioner of ODISE (Xu et al. 2023, equation 3): a picture's CLIP embedding in
    place of a caption.

    Parameter names are its checkpoint's below ``backbone.feature_extractor.`` (``alpha_cond``,
    ``clip_project.linear.*``, ``clip_project.positional_embedding``, ``alpha_cond_time_embed``,
    ``time_embed_project.*``); those of ``kind="mlp"`` are ``mlp.fc1.*``, ``mlp.fc2.*`` and
    ``mlp.positional_embedding``.

    Example:
        >>> captioner = vpd.ImplicitCaptioner()
        >>> out = captioner(torch.randn(2, 768), torch.randn(77, 768))
        >>> out.context.shape, out.time_bias.shape
        (torch.Size([2, 77, 768]), torch.Size([2, 1280]))
    """

    def __init__(
        self,
        config: ImplicitCaptionerConfig | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(config or ImplicitCaptionerConfig(), generator=generator)

    @staticmethod
    def _build(config: ImplicitCaptionerConfig) -> Any:
        fields = asdict(config)
        return core.ImplicitCaptioner(gated=fields.pop("kind") == "gated", **fields)

    def forward(self, image: Tensor, empty: Tensor | None = None) -> ImplicitCaption:
        """An embedding to context and time bias. Inputs are converted to the weights' dtype.

        Args:
            image: [B, image_dim], CLIP's projected embedding, not normalised.
            empty: [tokens, dim] or [1 or B, tokens, dim], the text encoder's states of the empty
                sentence; given just if ``kind`` is ``gated``.

        Raises:
            ValueError: Other shapes or dtypes; ``empty`` lacking or not asked for.
        """
        return ImplicitCaption(*self._core.forward(self.core_tensors(), image, empty))
