from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ops_helpers import assert_close, check_against, count_graphs

from vpd import _C, ops, reference

LAYOUTS = ("contiguous", "channels_last", "sliced")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SHAPES = [(14,), (1, 154), (7, 2), (3, 5, 14), (2, 77, 320), (1, 4096, 2), (0, 8), (4, 0)]


def make(shape, dtype=torch.float32, layout="contiguous", device="cpu"):
    x = (torch.randn(*shape[:-1], 2 * shape[-1], device=device) * 2).to(dtype)
    if layout == "channels_last":  # the last axis is not the dense one
        return x[..., : shape[-1]].movedim(-1, 0).contiguous().movedim(0, -1)
    return x[..., ::2] if layout == "sliced" else x[..., : shape[-1]].contiguous()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_like_reference(shape, dtype, layout):
    check_against(ops.geglu, reference.geglu, (make(shape, dtype, layout),))


def test_like_torch():
    x = make((8, 77, 1280))
    value, gate = x.chunk(2, -1)
    assert_close(ops.geglu(x), value * F.gelu(gate), "y")


def test_error_over_the_whole_range():
    """GELU and its slope, against double, where float32 numbers are dense and in both tails."""
    gate = torch.cat([torch.linspace(-12, 12, 200_001), torch.logspace(-30, 4, 999)])
    gate = torch.cat([gate, -gate])[:, None]
    x = torch.cat([torch.ones_like(gate), gate], 1).requires_grad_()
    y = ops.geglu(x)
    exact = gate.double().requires_grad_()
    expected = exact * 0.5 * torch.erfc(-exact / 2**0.5)
    # Without fused multiply-add e^x errs by 6e-8 |x| more (csrc/ops/cpu/simd.h).
    limit = 7e-7 if _C.cpu_level() == "baseline" else 5e-7
    assert ((y.double() - expected).abs() / expected.abs().clamp_min(0.05)).max() < limit
    (grad,) = torch.autograd.grad(y.sum(), x)
    (expected_grad,) = torch.autograd.grad(expected.sum(), exact)
    assert (grad[:, 1:].double() - expected_grad).abs().max() < 5e-7


def test_not_a_number_and_infinity():
    nan, inf = float("nan"), float("inf")
    y = ops.geglu(torch.tensor([[1.0, nan], [nan, 1.0], [1.0, inf]]))
    assert y[:2].isnan().all()
    assert y[2] == inf


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradcheck(layout):
    x = make((3, 5, 6), torch.float64, layout).detach().requires_grad_()
    assert torch.autograd.gradcheck(ops.geglu, (x,))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout):
    x = make((3, 5, 6), layout=layout).detach()
    torch.library.opcheck(torch.ops.vpd.geglu_backward, (torch.randn(3, 5, 3), x))
    torch.library.opcheck(torch.ops.vpd.geglu, (x.requires_grad_(),))


def test_one_graph_for_all_sizes():
    calls = [(torch.randn(b, n, 2 * d, requires_grad=True),) for b, n, d in
             ((2, 3, 4), (3, 5, 6), (4, 7, 9))]  # fmt: skip
    assert count_graphs(ops.geglu, calls) == 1


def test_autocast_keeps_the_type_of_x():
    linear = torch.nn.Linear(8, 12)
    with torch.autocast("cpu", torch.bfloat16):
        h = linear(torch.randn(3, 8))
        y = ops.geglu(h)
    assert h.dtype == y.dtype == torch.bfloat16
    assert_close(y.detach(), reference.geglu(h.detach().double()), "y")


def test_saves_only_x():
    saved = []
    x = torch.randn(4, 6, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        ops.geglu(x)
    assert [t.data_ptr() for t in saved] == [x.data_ptr()]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_messages(device):
    def zeros(*shape, dtype=torch.float32):
        return torch.zeros(shape, dtype=dtype, device=device)

    with pytest.raises(ValueError, match=r"geglu: x must be \[\.\.\., 2 D\].* got \[2, 3\]"):
        ops.geglu(zeros(2, 3))
    with pytest.raises(ValueError, match=r"geglu: x must be \[\.\.\., 2 D\].* got \[\]"):
        ops.geglu(zeros())
    with pytest.raises(ValueError, match="geglu: x must be floating point, got Int"):
        ops.geglu(zeros(2, 4, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"grad must be .* expected \[2, 2\], got \[2, 4\]"):
        torch.ops.vpd.geglu_backward(zeros(2, 4), zeros(2, 4))


def test_second_derivative_names_itself():
    x = torch.randn(2, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.geglu(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="geglu_backward is not implemented"):
        grad.sum().backward()


@pytest.mark.cuda
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_cuda(shape, dtype, layout):
    check_against(ops.geglu, reference.geglu, (make(shape, dtype, layout, "cuda"),))


@pytest.mark.cuda
def test_cuda_view_off_alignment():
    x = torch.randn(1 + 6 * 16, device="cuda")[1:].reshape(6, 16)
    check_against(ops.geglu, reference.geglu, (x,))
