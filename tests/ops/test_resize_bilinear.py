"""The gradient of bilinear resizing, against PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vpd.losses import mask_losses

SIZES = [((4, 4), (8, 8)), ((5, 3), (7, 9)), ((9, 6), (4, 2)), ((1, 1), (3, 5)), ((6, 7), (6, 1))]


def of_the_loss(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """The gradient that reaches scores through the resize inside of mask_losses."""
    target = (torch.arange(size[0] * size[1]).view(1, *size) % 3 == 0).long()
    found = mask_losses(scores, target.expand(len(scores), -1, -1), (0.7, 1.3))
    return torch.autograd.grad(found.cross_entropy, scores)[0]


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradient_through_the_loss_equals_pytorchs(source, target, layout) -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 2, *source, generator=draw).to(memory_format=layout).requires_grad_()
    found = of_the_loss(scores, target)
    wide = F.interpolate(scores.double(), target, mode="bilinear", align_corners=True)
    truth = (torch.arange(target[0] * target[1]).view(1, *target) % 3 == 0).long()
    weight = torch.tensor([0.7, 1.3], dtype=torch.float64)
    loss = F.cross_entropy(wide, truth.expand(2, -1, -1), weight, reduction="sum")
    (expected,) = torch.autograd.grad(loss, scores)
    assert torch.allclose(found, expected.float(), rtol=1e-5, atol=1e-6)
