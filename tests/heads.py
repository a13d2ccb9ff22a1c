"""What tests of heads share: feature maps, and the comparison with a twin of PyTorch's layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from helpers import assert_close, error
from torch import Tensor, nn


def feature_maps(
    channels: Sequence[int], sizes: Sequence[tuple[int, int]], rows: int = 2
) -> list[Tensor]:
    """Random maps [rows, C, H, W] in float64."""
    return [
        torch.randn(rows, c, *s, dtype=torch.double) for c, s in zip(channels, sizes, strict=True)
    ]


def twinned(ours: nn.Module, twin: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Both in float64 with the same random weights and statistics."""
    twin = twin.double()
    with torch.no_grad():
        for name, buffer in twin.named_buffers():
            if name.endswith(("mean", "var")):
                buffer.uniform_(0.5, 2)
        for parameter in twin.parameters():
            parameter.normal_(0, 0.5)
        for module in twin.modules():  # positive, so that few channels die in the ReLU behind
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                module.weight.uniform_(0.5, 1.5)
    ours = ours.double()
    ours.load_state_dict(twin.state_dict())
    return ours, twin


def assert_same(ours: nn.Module, twin: nn.Module, features: Sequence[Tensor]) -> None:
    """Outputs, gradients of features and weights, and the statistics that batch norms keep."""
    found = []
    for net in (ours, twin):
        inputs = [map.clone().requires_grad_() for map in features]
        out = net(inputs)
        outs = [out] if isinstance(out, Tensor) else out
        sum(one.sin().sum() for one in outs).backward()
        found.append(
            [*(one.detach() for one in outs), *(map.grad for map in inputs if map.grad is not None)]
        )
    for got, want in zip(*found, strict=True):
        assert_close(got, want, 1e-8)
    wanted = dict(twin.named_parameters())
    for name, parameter in ours.named_parameters():
        # Not in standard deviations: before a batch norm the gradient of a bias is zero.
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-7, atol=1e-9)
    for name, want in twin.named_buffers():
        torch.testing.assert_close(ours.state_dict()[name], want)


def assert_dropout(head: nn.Module, features: Sequence[Tensor]) -> None:
    """That a head with dropout 0.5 draws from its generator, keeps the expectation, and drops
    nothing in evaluation mode."""

    def drawn(seed: int | None = None) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return head(features, generator=generator)

    head.train()
    state = torch.get_rng_state()
    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(drawn(), drawn(5))
    head.eval()
    assert torch.equal(drawn(3), drawn(4))

    same = [map[:1].expand(2000, -1, -1, -1) for map in features]
    whole = type(head)(replace(head.config, dropout=0.0)).double()
    whole.load_state_dict(head.state_dict())
    with torch.no_grad():
        assert error(head.train()(same).mean(0), whole.train()(same)[0]) < 0.25
