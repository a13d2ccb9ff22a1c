"""What every training begins with."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

pytest.importorskip("lightning")
from vpd.train.loop.config import LoopConfig
from vpd.train.loop.parts import lasting


@dataclass(frozen=True)
class Config:
    epochs: int | None = None
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=7, batch=2))


def test_epochs_become_steps():
    assert lasting(Config(), 5) == Config()
    assert lasting(Config(epochs=3), 5) == Config(3, LoopConfig(steps=15, batch=2))
