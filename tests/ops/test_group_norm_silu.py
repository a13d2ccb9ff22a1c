from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ops_helpers import assert_close, check_against, count_graphs

from vpd import ops, reference

LAYOUTS = ("contiguous", "channels_last", "sliced", "transposed")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def make(shape, dtype=torch.float32, layout="contiguous", device="cpu"):
    b, c, h, w = shape
    if layout == "sliced":  # neither format: every second column of a wider tensor
        return (torch.randn(b, c, h, 2 * w, device=device) * 1.5 + 0.3).to(dtype)[..., ::2]
    if layout == "transposed":
        return (torch.randn(b, c, w, h, device=device) * 1.5 + 0.3).to(dtype).transpose(2, 3)
    x = (torch.randn(shape, device=device) * 1.5 + 0.3).to(dtype)
    last = layout == "channels_last"
    return x.contiguous(memory_format=torch.channels_last) if last else x


def affine(channels, dtype=torch.float32, device="cpu"):
    weight = torch.randn(channels, device=device)
    return weight.to(dtype), torch.randn(channels, device=device).to(dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 6, 7, 5), 3),
        ((2, 8, 1, 1), 1),
        ((3, 4, 1, 77), 4),
        ((1, 7, 16, 16), 1),
        ((2, 64, 8, 8), 32),
        ((5, 33, 9, 3), 11),
        ((0, 4, 3, 3), 2),
        ((2, 4, 0, 3), 2),
    ],
)
@pytest.mark.parametrize("silu", [True, False])
def test_like_reference(shape, groups, dtype, layout, silu):
    x = make(shape, dtype, layout)
    weight, bias = affine(shape[1], dtype)
    if x.numel() == 0:
        y = ops.group_norm_silu(x.requires_grad_(), weight, bias.requires_grad_(), groups)
        y.sum().backward()
        assert y.shape == x.shape
        assert torch.equal(bias.grad, torch.zeros_like(bias))
        return
    check_against(
        lambda *t: ops.group_norm_silu(*t, groups, 1e-5, silu),
        lambda *t: reference.group_norm_silu(*t, groups, 1e-5, silu),
        (x, weight, bias),
    )


def test_one_value_in_a_group():
    x, (weight, bias) = torch.randn(2, 8, 1, 1, requires_grad=True), affine(8)
    y = ops.group_norm_silu(x, weight, bias, 8)
    assert_close(y.detach(), F.silu(bias.double()).reshape(1, 8, 1, 1).expand(2, 8, 1, 1), "y")
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.abs().max() < 1e-3  # 0 but for rounding, of terms up to 1 / sqrt(eps) = 316


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_like_torch(layout):
    x = make((2, 320, 16, 16), layout=layout)
    weight, bias = affine(320)
    expected = F.silu(F.group_norm(x, 32, weight, bias, 1e-6))
    assert_close(ops.group_norm_silu(x, weight, bias, 32, 1e-6), expected, "y")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_one_image(layout, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, (weight, bias) = make((1, 64, 40, 40), layout=layout), affine(64)
        check_against(
            lambda *t: ops.group_norm_silu(*t, 32),
            lambda *t: reference.group_norm_silu(*t, 32),
            (x, weight, bias),
        )
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shift", [100.0, -3000.0])
def test_mean_far_from_zero(layout, shift):
    """Statistics lose nothing to a large mean; the reference starts from x as it is rounded."""
    x, (weight, bias) = make((2, 32, 24, 24), layout=layout) + shift, affine(32)
    y = ops.group_norm_silu(x, weight, bias, 8)
    expected = reference.group_norm_silu(x.double(), weight.double(), bias.double(), 8)
    assert_close(y, expected, "y")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_first_pixel_is_an_outlier(layout):
    x, (weight, bias) = make((1, 16, 32, 32), layout=layout), affine(16)
    x[:, :, 0, 0] += 500
    expected = reference.group_norm_silu(x.double(), weight.double(), bias.double(), 4)
    assert_close(ops.group_norm_silu(x, weight, bias, 4), expected, "y", factor=2)


def test_extreme_values_saturate():
    x = torch.tensor([-1e4, -200.0, -90.0, -10.0, 0.0, 10.0, 90.0, 1e4]).reshape(1, 8, 1, 1)
    # one value a group: z = bias
    y = ops.group_norm_silu(x, torch.ones(8), x.flatten(), 8)
    assert_close(y, F.silu(x.double()), "silu")
    assert ops.group_norm_silu(x * float("nan"), torch.ones(8), torch.ones(8), 8).isnan().all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_format_is_kept(layout):
    x, (weight, bias) = make((2, 8, 4, 6), layout=layout).requires_grad_(), affine(8)
    y = ops.group_norm_silu(x, weight, bias, 4)
    last = layout == "channels_last"
    format = torch.channels_last if last else torch.contiguous_format
    assert y.is_contiguous(memory_format=format)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.is_contiguous(memory_format=format)


def test_only_what_is_wanted():
    x, (weight, bias) = make((2, 8, 4, 4)), affine(8)
    y, mean, rstd = torch.ops.vpd.group_norm_silu_forward(x, weight, bias, 4, 1e-5, True)
    for wanted in ([True, False, False], [False, True, False], [False, False, True]):
        grads = torch.ops.vpd.group_norm_silu_backward(
            y, x, weight, bias, mean, rstd, 4, True, wanted
        )
        assert [g is not None for g in grads] == wanted


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_affine_may_be_wider(dtype):
    x, (weight, bias) = make((2, 8, 5, 5), dtype), affine(8)
    y = ops.group_norm_silu(x, weight.requires_grad_(), bias, 4)
    y.float().sum().backward()
    assert y.dtype == dtype
    assert weight.grad.dtype == torch.float32
    assert_close(
        y.detach(), reference.group_norm_silu(x.double(), weight.double(), bias.double(), 4), "y"
    )


def test_autocast_keeps_the_type_of_x():
    conv, (weight, bias) = torch.nn.Conv2d(3, 8, 3, padding=1), affine(8)
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        h = conv(x)
        y = ops.group_norm_silu(h, weight, bias, 4)
    assert h.dtype == y.dtype == torch.bfloat16
    expected = reference.group_norm_silu(h.double(), weight.double(), bias.double(), 4)
    assert_close(y, expected, "y")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("silu", [True, False])
def test_gradcheck(layout, silu):
    x = make((2, 6, 3, 4), torch.float64, layout)
    weight, bias = affine(6, torch.float64)
    tensors = [t.detach().requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradcheck(lambda *t: ops.group_norm_silu(*t, 3, 1e-5, silu), tensors)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_opcheck(layout):
    x = make((2, 8, 4, 4), layout=layout).requires_grad_()
    weight, bias = (t.requires_grad_() for t in affine(8))
    torch.library.opcheck(torch.ops.vpd.group_norm_silu, (x, weight, bias, 4, 1e-5, True))
    x, weight, bias = x.detach(), weight.detach(), bias.detach()
    torch.library.opcheck(torch.ops.vpd.group_norm_silu_forward, (x, weight, bias, 4, 1e-5, True))
    y, mean, rstd = torch.ops.vpd.group_norm_silu_forward(x, weight, bias, 4, 1e-5, True)
    torch.library.opcheck(
        torch.ops.vpd.group_norm_silu_backward,
        (y, x, weight, bias, mean, rstd, 4, True, [True, True, True]),
    )


def test_one_graph_for_all_sizes():
    weight, bias = (t.requires_grad_() for t in affine(8))
    calls = [
        (torch.randn(b, 8, h, w, requires_grad=True), weight, bias)
        for b, h, w in ((2, 4, 5), (3, 7, 6), (5, 9, 11))
    ]
    assert count_graphs(lambda *t: ops.group_norm_silu(*t, 4), calls) == 1


def test_second_derivative_names_itself():
    x, (weight, bias) = make((1, 4, 2, 2)).requires_grad_(), affine(4)
    y = ops.group_norm_silu(x, weight, bias, 2)
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="group_norm_silu_backward is not implemented"):
        grad.sum().backward()


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 8, 4)}, r"x must be \[B, C, H, W\], got \[2, 8, 4\]"),
        ({"x": torch.zeros(2, 8, 4, 4, dtype=torch.int64)}, "x must be floating point, got Long"),
        ({"groups": 3}, "groups must divide the 8 channels of x, got 3"),
        ({"groups": 0}, "groups must divide the 8 channels of x, got 0"),
        ({"eps": -1.0}, "eps must not be negative, got -1"),
        ({"weight": torch.ones(7)}, r"weight must be \[8\], .* got \[7\]"),
        ({"bias": torch.ones(8, 1)}, r"bias must be \[8\], .* got \[8, 1\]"),
        ({"bias": torch.ones(8, dtype=torch.int64)}, "bias must be floating point, got Long"),
    ],
)
def test_messages(change, message, device):
    call = {
        "x": torch.zeros(2, 8, 4, 4),
        "weight": torch.ones(8),
        "bias": torch.ones(8),
        "groups": 4,
        "eps": 1e-5,
    } | change
    call = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in call.items()}
    with pytest.raises(ValueError, match=message):
        ops.group_norm_silu(**call)


def test_backward_messages():
    x, (weight, bias) = make((2, 8, 4, 4)), affine(8)
    y, mean, rstd = torch.ops.vpd.group_norm_silu_forward(x, weight, bias, 4, 1e-5, True)
    backward = torch.ops.vpd.group_norm_silu_backward
    with pytest.raises(ValueError, match=r"grad must be like x, expected \[2, 8, 4, 4\]"):
        backward(y[:1], x, weight, bias, mean, rstd, 4, True, [True] * 3)
    with pytest.raises(ValueError, match=r"mean must be \[2, 4\], got \[1, 4\]"):
        backward(y, x, weight, bias, mean[:1], rstd, 4, True, [True] * 3)
    with pytest.raises(ValueError, match="weight must be on meta like x, got cpu"):
        ops.group_norm_silu(x.to("meta"), weight, bias, 4)


@pytest.mark.cuda
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 6, 7, 5), 3), ((1, 320, 64, 64), 32), ((2, 8, 1, 1), 1), ((70000, 4, 1, 1), 1)],
)
def test_cuda(shape, groups, dtype, layout):
    x = make(shape, dtype, layout, "cuda")
    weight, bias = affine(shape[1], dtype, "cuda")
    check_against(
        lambda *t: ops.group_norm_silu(*t, groups),
        lambda *t: reference.group_norm_silu(*t, groups),
        (x, weight, bias),
        factor=4.0,
    )


@pytest.mark.cuda
def test_cuda_mean_far_from_zero_and_repeatable():
    x = make((2, 32, 24, 24), layout="channels_last", device="cuda") + 100
    weight, bias = affine(32, device="cuda")
    y = ops.group_norm_silu(x, weight, bias, 8)
    expected = reference.group_norm_silu(x.double(), weight.double(), bias.double(), 8)
    assert_close(y, expected, "y")
    assert torch.equal(y, ops.group_norm_silu(x, weight, bias, 8))
