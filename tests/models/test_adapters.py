"""VPD's text adapter against recorded outputs, plain PyTorch and numerical gradients."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close, error, load_golden, strip
from torch.nn import functional as F

import vpd


def test_context_matches_original():
    case = load_golden("vpd_refer")
    adapter = vpd.TextAdapter(64)
    adapter.load_state_dict(
        {**strip(case.weights, "text_adapter."), "gamma": case.weights["gamma"]}
    )
    with torch.no_grad():
        assert_close(adapter(case.inputs["text"]), case.outputs["context"])


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 7, 5), (0, 7, 5)])
def test_equals_plain_formula(shape):
    adapter, states = vpd.TextAdapter(5), torch.randn(shape)
    with torch.no_grad():
        adapter.gamma.normal_()
        first, second = adapter.get_submodule("fc.0"), adapter.get_submodule("fc.2")
        hidden = F.gelu(F.linear(states, first.weight, first.bias))
        want = states + adapter.gamma * F.linear(hidden, second.weight, second.bias)
        torch.testing.assert_close(adapter(states), want)


def test_starts_close_to_the_identity():
    adapter = vpd.TextAdapter(768)
    assert torch.equal(adapter.gamma, torch.full((768,), 1e-4))
    assert sum(p.numel() for p in adapter.parameters()) == 1_181_184 + 768
    states = torch.randn(1, 4, 768)
    assert error(adapter(states), states) < 1e-3
    assert set(adapter.state_dict()) == {
        "gamma", "fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias"
    }  # fmt: skip


def test_gradcheck():
    adapter = vpd.TextAdapter(3).double()
    names = [name for name, _ in adapter.named_parameters()]

    def call(states, *values):
        return torch.func.functional_call(adapter, dict(zip(names, values, strict=True)), (states,))

    values = [torch.randn_like(p).requires_grad_() for p in adapter.parameters()]
    states = torch.randn(2, 2, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(call, (states, *values))


def test_bfloat16():
    adapter, states = vpd.TextAdapter(8), torch.randn(1, 3, 8)
    want = adapter(states)
    got = adapter.bfloat16()(states)
    assert got.dtype == torch.bfloat16
    assert error(got, want) < 0.05


def test_bad_input_is_explained():
    with pytest.raises(ValueError, match=r"\[..., 8\], got float \[1, 3, 7\]"):
        vpd.TextAdapter(8)(torch.zeros(1, 3, 7))
    with pytest.raises(ValueError, match="dim must be positive, got 0"):
        vpd.TextAdapter(0)
