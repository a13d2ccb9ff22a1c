"""How a training run is driven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from vpd.memory import FreedMemory
from vpd.train.loop.parts import Shares

__all__ = ["LoopConfig", "Precision", "resolve_precision"]

Precision = Literal["auto", "32", "bf16"]


@dataclass(frozen=True)
class LoopConfig:
    """How a training run is driven."""

    steps: int = 1000
    batch: int = 16
    """Rows of a step: the *global* batch, of all processes and passes together."""
    micro_batch: int | None = None
    """Rows that a process computes at a time. It goes through its share of the batch in as many
    passes as that takes, which costs the memory of one; the gradient is that of the whole batch,
    but batch norms see micro batches. None: the whole share at once."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """``adam``: Kingma and Ba's, with the weight decay in the gradient instead of beside it (the
    F-VPD report's)."""
    lr: float = 5e-4
    weight_decay: float = 0.01
    beta2: float = 0.999
    warmup: int = 100
    """Steps over which the learning rate rises from 0."""
    ema: float | None = None
    """Decay of the averaged weights that are evaluated and kept; None for none."""
    clip: float | None = 1.0
    """Largest gradient norm; None for no clipping."""
    precision: Precision = "auto"
    """``auto``: bf16 autocast on a GPU or on a CPU with AVX-512 bf16, else float32."""
    freed_memory: FreedMemory = "kept"
    """``kept``: fastest for small networks; ``returned``: the least memory, for large ones (on the
    CPU)."""
    log_every: int = 50
    val_every: int = 1000
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        if self.optimizer not in ("adamw", "adam"):
            raise ValueError(f"optimizer must be 'adamw' or 'adam', got {self.optimizer!r}")
        for name in ("steps", "batch", "log_every", "val_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        Shares(self.batch, self.micro_batch)  # refuses what cannot be divided


def resolve_precision(precision: Precision) -> str:
    """Lightning's name of a precision."""
    if precision == "32":
        return "32-true"
    native = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if precision == "bf16" or native else "32-true"
