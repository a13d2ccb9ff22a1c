"""What batches that depend on the step alone are made of."""

from __future__ import annotations

import torch

from vpd.train.loop.batches import step_generator


def test_randomness_depends_on_seed_and_step_only():
    a = torch.rand(3, generator=step_generator(1, 5))
    assert torch.equal(a, torch.rand(3, generator=step_generator(1, 5)))
    assert not torch.equal(a, torch.rand(3, generator=step_generator(1, 6)))
    assert not torch.equal(a, torch.rand(3, generator=step_generator(2, 5)))
