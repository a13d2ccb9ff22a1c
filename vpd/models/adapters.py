"""Adapters between a text or image encoder and the denoiser's cross-attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vpd._load import core
from vpd.nn import CoreModule

__all__ = ["TextAdapter", "TextAdapterConfig"]


@dataclass(frozen=True)
class TextAdapterConfig:
    """Size of a text adapter."""

    dim: int
    """Channels of the text states."""


class TextAdapter(CoreModule[TextAdapterConfig]):
    """VPD's text adapter (Zhao et al. 2023, equation 4): ``states + gamma * MLP(states)``.

    The MLP is Linear, exact GELU, Linear (keys ``fc.0.*``, ``fc.2.*``); ``gamma`` [dim] starts at
    1e-4, so that training starts from the text encoder's own states. VPD's checkpoints hold
    ``gamma`` beside the adapter, not inside it.

    Args:
        dim: Channels of the text states, 768 for Stable Diffusion v1.
        generator: Source of the initial weights.
    """

    def __init__(self, dim: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__(TextAdapterConfig(dim), generator=generator)

    @staticmethod
    def _build(config: TextAdapterConfig) -> Any:
        return core.TextAdapter(config.dim)

    def forward(self, states: Tensor) -> Tensor:
        """Text states [..., dim] to conditioning of the same shape.

        Raises:
            ValueError: States that do not end in ``dim`` channels.
        """
        return self._core.forward(self.core_tensors(), states)
