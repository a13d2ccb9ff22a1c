"""What batches that depend on the step alone are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["Resident", "step_generator"]


def step_generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Randomness of one training step. It depends on (seed, step) only, so a resumed run draws
    what an uninterrupted one does."""
    return torch.Generator(device).manual_seed((seed * 1_000_003 + step) % 2**63)


class Resident:
    """Tensors that stay in memory for a whole run. Copies of a module (weight averaging makes one)
    share them."""

    def __init__(self, **tensors: Tensor) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def to(self, device: torch.device) -> None:
        self._tensors = {name: tensor.to(device) for name, tensor in self._tensors.items()}

    def __deepcopy__(self, memo: dict[int, Any]) -> Resident:
        return self
