"""The compositions that devices without a kernel of their own run, called here on the CPU."""

from __future__ import annotations

import pytest
import torch
from ops_helpers import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from vpd import ops, reference  # noqa: F401  ops registers the operators

DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def composite(name, *args):
    op = getattr(torch.ops.vpd, name).default
    with torch.no_grad():
        return op._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args)


def doubles(*tensors):
    return [t.detach().double().requires_grad_() for t in tensors]


def compare_gradients(actual, outputs, inputs, grads, factor):
    expected = torch.autograd.grad(outputs, inputs, [g.double() for g in grads])
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert_close(a, e, f"gradient {i}", factor)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_group_norm_silu(dtype, silu, format):
    x = torch.randn(2, 12, 5, 7).to(dtype).contiguous(memory_format=format)
    weight, bias, grad = torch.randn(12), torch.randn(12), torch.randn_like(x)
    y, mean, rstd = composite("group_norm_silu_forward", x, weight, bias, 4, 1e-5, silu)
    inputs = doubles(x, weight, bias)
    expected = reference.group_norm_silu(*inputs, 4, 1e-5, silu)
    assert y.is_contiguous(memory_format=format)
    assert_close(y, expected.detach(), "y")
    args = (grad, x, weight, bias, mean, rstd, 4, silu, [True] * 3)
    actual = composite("group_norm_silu_backward", *args)
    compare_gradients(actual, expected, inputs, [grad], 4 if dtype != torch.bfloat16 else 2)


def test_group_norm_silu_empty():
    x, affine = torch.randn(0, 4, 3, 3), torch.ones(4)
    y, mean, rstd = composite("group_norm_silu_forward", x, affine, affine, 2, 1e-5, True)
    args = (y, x, affine, affine, mean, rstd, 2, True, [True] * 3)
    grad_x, grad_weight, _ = composite("group_norm_silu_backward", *args)
    assert y.shape == grad_x.shape == x.shape
    assert torch.equal(grad_weight, torch.zeros(4))


@pytest.mark.parametrize("dtype", DTYPES)
def test_geglu(dtype):
    x, grad = torch.randn(3, 7, 10).to(dtype), torch.randn(3, 7, 5).to(dtype)
    inputs = doubles(x)
    expected = reference.geglu(*inputs)
    assert_close(composite("geglu", x), expected.detach(), "y")
    actual = composite("geglu_backward", grad, x)
    compare_gradients([actual], expected, inputs, [grad], 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("per_head", [False, True])
def test_cross_attention(dtype, masked, per_head):
    q, k, v = (torch.randn(2, n, 12).to(dtype) for n in (9, 5, 5))
    mask = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1]]).bool() if masked else None
    rest = (mask, 3, 0.5, per_head)
    out, maps = composite("cross_attention", q, k, v, *rest)
    inputs = doubles(q, k, v)
    expected = reference.cross_attention(*inputs, *rest)
    assert_close(out, expected[0].detach(), "out", 3)
    assert_close(maps, expected[1].detach(), "map", 3)
    grads = [torch.randn_like(out), torch.randn_like(maps)]
    actual = composite("cross_attention_backward", *grads, q, k, v, *rest, [True] * 3)
    compare_gradients(actual, expected, inputs, grads, 4)


class _LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operator returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for t in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(t, torch.Tensor):
                self.elements = max(self.elements, t.numel())
        return result


def test_cross_attention_holds_one_head_at_a_time():
    q, k, v = (torch.randn(1, n, 8 * 4) for n in (256, 77, 77))
    with _LargestTensor() as largest:
        out, maps = composite("cross_attention", q, k, v, None, 8, 0.5, False)
        grads = (torch.ones_like(out), torch.ones_like(maps))
        args = (*grads, q, k, v, None, 8, 0.5, False, [True] * 3)
        composite("cross_attention_backward", *args)
    assert largest.elements == 256 * 77
