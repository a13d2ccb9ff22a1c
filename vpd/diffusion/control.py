"""Attention that some rows of a U-Net's batch take from others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vpd._load import core

__all__ = ["AttentionControl"]


@dataclass(frozen=True, eq=False)
class AttentionControl:
    """What one call of :class:`vpd.UNet` does to its attention (Prompt-to-Prompt, Hertz et al.
    2022), in all layers.

    Self-attention: row b uses the queries and keys of row ``self_source[b]`` and its own values,
    so its logits are that row's.

    Cross-attention: with probabilities A_b [pixels, tokens] of row b, it becomes
    ``A_b diag(kept_b) + sum of A_sources[e] transfer_e over e with rows[e] == b``, head by head;
    maps among the outputs are those. ``kept`` 1 without ``rows`` leaves a row as it is, 0 replaces
    its attention, other numbers weigh its tokens.

    No matrix of pixels by pixels is held. Rows that share what precedes the text no longer do
    where a ``self_source`` is given. Gradients reach the network's inputs and weights; the control
    is taken as constant.

    Attributes:
        self_source: int64 [B]: a row's own number leaves it alone.
        self_positions: Only where the map has at most so many pixels (256: 16 x 16).
        kept: [B, N], float. Given together with the next three, or not at all.
        rows, sources: int64 [E]: who receives, and from whom; both numbers of rows of the batch.
        transfer: [E, N, N], float: from tokens of the source to tokens of the receiver.

    Raises:
        ValueError: Some of the four fields of cross-attention without the others. The U-Net checks
            their shapes.
    """

    self_source: Tensor | None = None
    self_positions: int | None = None
    kept: Tensor | None = None
    rows: Tensor | None = None
    sources: Tensor | None = None
    transfer: Tensor | None = None

    def __post_init__(self) -> None:
        cross = {name: getattr(self, name) for name in ("kept", "rows", "sources", "transfer")}
        missing = [name for name, value in cross.items() if value is None]
        if 0 < len(missing) < len(cross):
            raise ValueError(
                f"AttentionControl: kept, rows, sources and transfer go together, "
                f"got no {', '.join(missing)}"
            )

    def _core(self) -> Any:
        fields: dict[str, Any] = {
            name: value.detach() if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }
        return core.AttentionControl(**fields)
