"""The optimizer of a config, against the papers' formulas."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("lightning")
from vpd.train.loop.config import LoopConfig
from vpd.train.loop.optimizer import optimizer_of


def test_the_optimizer_of_a_config():
    """One step against the papers' formulas: both divide the gradient by its own size at first;
    Adam has the weight decay in it, AdamW beside it."""
    start, gradient = torch.tensor([2.0, -3.0]), torch.tensor([0.5, 1e-3])
    for name in ("adamw", "adam"):
        weight = torch.nn.Parameter(start.clone())
        config = LoopConfig(lr=0.1, weight_decay=0.01, warmup=0, optimizer=name)
        optimizer = optimizer_of([{"params": [weight]}], config, lambda step: 1.0)["optimizer"]
        weight.grad = gradient.clone()
        optimizer.step()
        whole = gradient + 0.01 * start if name == "adam" else gradient
        decayed = start if name == "adam" else start * (1 - 0.1 * 0.01)
        torch.testing.assert_close(weight.detach(), decayed - 0.1 * whole / (whole.abs() + 1e-8))
    with pytest.raises(ValueError, match="optimizer must be 'adamw' or 'adam', got 'sgd'"):
        LoopConfig(optimizer="sgd")
