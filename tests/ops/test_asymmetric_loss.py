"""The asymmetric loss against recorded results of its authors' code, the reference in double and
PyTorch's binary cross-entropy."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import load_golden
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_helpers import assert_close, check_against, count_graphs

import vpd
from vpd import ops, reference
from vpd.memory import LiveBytes

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LAYOUTS = ("contiguous", "transposed", "sliced")
SHAPES = [(1, 1), (7, 77), (16, 150), (3, 4096), (2, 20_011), (0, 5), (4, 0)]
# gamma_neg, gamma_pos, clip
SETTINGS = [
    (4.0, 1.0, 0.05),
    (4.0, 0.0, 0.05),
    (4.0, 1.0, 0.0),
    (2.0, 0.0, 0.2),
    (7.0, 3.0, 0.05),
    (0.0, 0.0, 0.0),
    (2.5, 0.5, 0.05),
    (11.0, 1.0, 0.0),
]
RECORDED = {"gp1": (4, 1, 0.05), "gp0": (4, 0, 0.05), "gp1_noclip": (4, 1, 0.0),
            "gp0gn2_clip02": (2, 0, 0.2)}  # fmt: skip


def make(shape, dtype=torch.float32, layout="contiguous", device="cpu"):
    rows, columns = shape
    if layout == "transposed":
        return (torch.randn(columns, rows, device=device) * 3).to(dtype).t()
    x = (torch.randn(rows, 2 * columns, device=device) * 3).to(dtype)
    return x[:, ::2] if layout == "sliced" else x[:, :columns].contiguous()


def tags(shape, dtype=torch.bool, device="cpu"):
    return (torch.rand(shape, device=device) < 0.3).to(dtype)


def with_target(function, target, *rest):
    return lambda logits: function(logits, target, *rest)


def check(logits, target, *rest, factor=1.0):
    pair = (with_target(f.asymmetric_loss, target, *rest) for f in (ops, reference))
    check_against(*pair, (logits,), factor=factor)


@pytest.mark.parametrize("focus_grad", ["none", "full"])
@pytest.mark.parametrize("name", RECORDED)
def test_like_the_authors(name, focus_grad):
    case = load_golden("losses_basic")
    gamma_neg, gamma_pos, clip = RECORDED[name]
    logits = case.inputs["asl.logits"].requires_grad_()
    loss = vpd.losses.asymmetric_loss(
        logits, case.inputs["asl.target"], gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip,
        focus_grad=focus_grad,
    )  # fmt: skip
    mode = {"none": "detached_weight", "full": "full_grad"}[focus_grad]
    torch.testing.assert_close(loss, case.outputs[f"asl.{name}.{mode}.loss"], rtol=1e-5, atol=0)
    (grad,) = torch.autograd.grad(loss, logits)
    want = case.grads[f"asl.{name}.{mode}.logits"]
    # Where p is near clip the record is 5e-6 deviations from the formula in double, ours 7e-7.
    torch.testing.assert_close(grad, want, rtol=1e-5, atol=1e-5 * float(want.std()))


@pytest.mark.parametrize("full_grad", [False, True])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_settings(dtype, setting, full_grad):
    shape = (5, 333)
    for reduce in (True, False):
        check(make(shape, dtype), tags(shape), *setting, 1e-8, full_grad, reduce)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape, layout):
    for reduce in (True, False):
        check(make(shape, layout=layout), tags(shape), 4.0, 1.0, 0.05, 1e-8, True, reduce)


@pytest.mark.parametrize("target_dtype", [torch.bool, torch.uint8, *DTYPES])
@pytest.mark.parametrize("dtype", DTYPES)
def test_types_of_targets(dtype, target_dtype):
    logits, target = make((3, 300), dtype), tags((3, 300))
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    got = ops.asymmetric_loss(logits, target.to(target_dtype))
    assert got.dtype == wanted
    assert torch.equal(got, ops.asymmetric_loss(logits, target))
    check(logits, tags((300, 3), target_dtype).t())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 600)),
    gamma_neg=st.one_of(st.integers(0, 9), st.floats(0.01, 9)),
    gamma_pos=st.one_of(st.integers(0, 9), st.floats(0.01, 9)),
    clip=st.one_of(st.just(0.0), st.floats(0.01, 0.9)),
    eps=st.floats(1e-9, 0.3),
    full_grad=st.booleans(),
)
def test_any_setting_in_double(seed, shape, gamma_neg, gamma_pos, clip, eps, full_grad):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
    target = torch.rand(shape, generator=generator) < 0.3
    results = []
    for module in (ops, reference):
        leaf = logits.clone().requires_grad_()
        values = module.asymmetric_loss(
            leaf, target, gamma_neg, gamma_pos, clip, eps, full_grad, False
        )
        results.append((values.detach(), *torch.autograd.grad(values.sum(), leaf)))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_focus_it_is_binary_cross_entropy(dtype):
    logits, target = make((9, 50), dtype), tags((9, 50), dtype)
    got = vpd.losses.asymmetric_loss(logits, target, gamma_neg=0, gamma_pos=0, clip=0)
    want = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    assert_close(got, want, "loss")


def test_error_over_the_whole_range():
    """Loss and gradient, value by value, against double, where logits are dense and far out."""
    far = torch.logspace(-6, 1.3, 2000)
    line = torch.cat([torch.linspace(-18, 18, 40_001), far, -far])
    logits = line.repeat(2, 1)
    target = torch.tensor([[False], [True]]).expand_as(logits)
    for setting in SETTINGS:
        for full_grad in (False, True):
            rest = (*setting, 1e-9, full_grad, False)
            got, want = logits.clone().requires_grad_(), logits.double().requires_grad_()
            ours = ops.asymmetric_loss(got, target, *rest)
            exact = reference.asymmetric_loss(want, target, *rest)
            assert ((ours - exact).abs() / exact.abs().clamp_min(0.5)).max() < 2e-6
            (grad,) = torch.autograd.grad(ours.sum(), got)
            (exact_grad,) = torch.autograd.grad(exact.sum(), want)
            assert (grad - exact_grad).abs().max() < 4e-6


def test_far_out_logits_stay_finite():
    logits = torch.tensor([[-1e4, -100.0, 100.0, 1e4, -math.inf, math.inf]]).repeat(2, 1)
    target = torch.tensor([[1.0], [0.0]]).expand_as(logits)
    for dtype in (torch.float32, torch.float64):
        leaf = logits.to(dtype).requires_grad_()
        values = ops.asymmetric_loss(leaf, target, clip=0.0, full_grad=True, reduce=False)
        most = -math.log(1e-8)
        want = [[most, most, 0, 0, most, 0], [0, 0, most, most, 0, most]]
        torch.testing.assert_close(values, torch.tensor(want, dtype=dtype), atol=1e-7, rtol=1e-6)
        (grad,) = torch.autograd.grad(values.sum(), leaf)
        assert grad.abs().max() < 1e-6


def test_not_a_number():
    logits = torch.zeros(2, 30)
    logits[1, 17] = math.nan
    leaf = logits.requires_grad_()
    values = ops.asymmetric_loss(leaf, tags((2, 30)), reduce=False)
    (grad,) = torch.autograd.grad(values.sum(), leaf)
    assert torch.equal(values.isnan(), logits.isnan())
    assert torch.equal(grad.isnan(), logits.isnan())
    assert ops.asymmetric_loss(leaf, tags((2, 30))).isnan()


def test_clipped_negatives_neither_count_nor_pull():
    logits = torch.linspace(-9, -3, 300)[None].requires_grad_()  # p < 0.05
    for full_grad in (False, True):
        values = ops.asymmetric_loss(
            logits, torch.zeros(1, 300), gamma_neg=0.0, full_grad=full_grad, reduce=False
        )
        (grad,) = torch.autograd.grad(values.sum(), logits)
        assert not values.any()
        assert not grad.any()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("reduce", [True, False])
def test_gradcheck(setting, reduce):
    logits = make((3, 11), torch.float64).requires_grad_()
    function = with_target(ops.asymmetric_loss, tags((3, 11)), *setting, 1e-8, True, reduce)
    assert torch.autograd.gradcheck(function, (logits,))


def test_the_same_sum_by_any_number_of_threads():
    logits, target, threads = make((5, 20_011)), tags((5, 20_011)), torch.get_num_threads()
    sums = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            sums.append(ops.asymmetric_loss(logits, target))
    finally:
        torch.set_num_threads(threads)
    assert sums[0] == sums[1] == sums[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_makes_nothing_of_the_logits_size_but_the_gradient(dtype):
    logits, target = make((64, 500), dtype).requires_grad_(), tags((64, 500))
    with LiveBytes([logits, target]) as live:
        loss = ops.asymmetric_loss(logits, target, full_grad=True)
        forward = live.peak
        loss.backward()
    assert forward <= 64
    assert live.peak <= logits.nbytes + 64


def test_saves_only_its_arguments():
    saved = []
    logits, target = make((4, 6)).requires_grad_(), tags((4, 6))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        ops.asymmetric_loss(logits, target)
    assert [t.data_ptr() for t in saved] == [logits.data_ptr(), target.data_ptr()]


def test_reductions():
    logits, target = make((6, 20)), tags((6, 20))
    values = vpd.losses.asymmetric_loss(logits, target, reduction="none")
    assert values.shape == (6, 20)
    total = vpd.losses.asymmetric_loss(logits, target)
    assert_close(total, values.double().sum().float(), "sum")
    mean = vpd.losses.asymmetric_loss(logits, target, reduction="mean")
    assert_close(mean, values.sum(1).mean(), "mean over the batch of the sums over classes")
    empty = vpd.losses.asymmetric_loss(torch.zeros(0, 5), torch.zeros(0, 5), reduction="mean")
    assert empty == 0


@pytest.mark.parametrize("layout", ["contiguous", "sliced"])
@pytest.mark.parametrize("reduce", [True, False])
def test_opcheck(reduce, layout):
    logits, target = make((3, 5), layout=layout).detach(), tags((3, 5))
    rest = (4.0, 1.0, 0.05, 1e-8, True)
    for grad in (torch.tensor(0.5), torch.randn(3, 5)):
        torch.library.opcheck(torch.ops.vpd.asymmetric_loss_backward, (grad, logits, target, *rest))
    torch.library.opcheck(
        torch.ops.vpd.asymmetric_loss, (logits.requires_grad_(), target, *rest, reduce)
    )


def test_one_graph_for_all_sizes():
    calls = [(make(shape).requires_grad_(), tags(shape)) for shape in ((2, 3), (3, 5), (4, 9))]
    assert count_graphs(ops.asymmetric_loss, calls) == 1


def test_under_autocast():
    linear = torch.nn.Linear(8, 12)
    target = tags((3, 12))
    with torch.autocast("cpu", torch.bfloat16):
        logits = linear(torch.randn(3, 8))
        loss = vpd.losses.asymmetric_loss(logits, target)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert_close(loss.detach(), reference.asymmetric_loss(logits.detach().double(), target), "loss")


def test_second_derivative_names_itself():
    logits = make((2, 4)).requires_grad_()
    loss = ops.asymmetric_loss(logits, tags((2, 4)))
    (grad,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="asymmetric_loss_backward is not implemented"):
        grad.sum().backward()


@pytest.mark.parametrize("full_grad", [False, True])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_composition_for_other_devices(dtype, setting, full_grad):
    def composed(name, *args):
        op = getattr(torch.ops.vpd, name).default
        with torch.no_grad():
            return op._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args)

    logits, target = make((5, 70), dtype), tags((5, 70))
    rest = (*setting, 1e-8, full_grad)
    exact = logits.double().requires_grad_()
    want = reference.asymmetric_loss(exact, target, *rest)
    assert_close(composed("asymmetric_loss", logits, target, *rest, True), want.detach(), "loss")
    (want_grad,) = torch.autograd.grad(want, exact, torch.tensor(0.75, dtype=torch.float64))
    got = composed("asymmetric_loss_backward", torch.tensor(0.75), logits, target, *rest)
    assert got.dtype == dtype
    assert_close(got, want_grad, "gradient", 2)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_messages(device):
    def zeros(*shape, dtype=torch.float32):
        return torch.zeros(shape, dtype=dtype, device=device)

    def refused(message, *args, **options):
        with pytest.raises(ValueError, match=message):
            ops.asymmetric_loss(*args, **options)

    x = zeros(2, 3)
    refused(r"logits must be floating point \[B, K\], got Float \[2\]", zeros(2), zeros(2))
    refused(r"logits must be .*got Long", zeros(2, 3, dtype=torch.int64), x)
    refused(r"target must be .* \[2, 3\] like logits, got Float \[2, 4\]", x, zeros(2, 4))
    refused(r"target must be Bool, Byte or .*got Long", x, zeros(2, 3, dtype=torch.int64))
    refused(r"must be finite and not negative, got -1 and 1", x, x, gamma_neg=-1.0)
    refused(r"must be finite and not negative, got 4 and inf", x, x, gamma_pos=math.inf)
    refused(r"clip must be in \[0, 1\), got 1", x, x, clip=1.0)
    refused(r"eps must be in \(0, 1\), got 0", x, x, eps=0.0)
    with pytest.raises(ValueError, match=r"expected \[\] or \[2, 3\], got \[2\]"):
        torch.ops.vpd.asymmetric_loss_backward(zeros(2), x, x, 4.0, 1.0, 0.05, 1e-8, False)
    with pytest.raises(ValueError, match="focus_grad must be 'none' or 'full', got 'half'"):
        vpd.losses.asymmetric_loss(x, x, focus_grad="half")
    with pytest.raises(ValueError, match=r"reduction must be .* got 'max'"):
        vpd.losses.asymmetric_loss(x, x, reduction="max")


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_targets_are_refused(dtype, value):
    target = torch.zeros(3, 5000, dtype=dtype)
    target[2, 4321] = value
    with pytest.raises(ValueError, match=f"target must be 0 or 1, got {value:g}"):
        ops.asymmetric_loss(make((3, 5000)), target)


def test_message_of_devices():
    with pytest.raises(ValueError, match="target must be on cpu like logits, got meta"):
        ops.asymmetric_loss(torch.zeros(2, 3), torch.zeros(2, 3, device="meta"))


@pytest.mark.cuda
@pytest.mark.parametrize("full_grad", [False, True])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda(dtype, setting, full_grad):
    for shape in ((1, 1), (5, 333), (64, 4585), (0, 5)):
        for target_dtype in (torch.bool, torch.uint8, torch.float32, dtype):
            logits, target = make(shape, dtype, device="cuda"), tags(shape, target_dtype, "cuda")
            for reduce in (True, False):
                check(logits, target, *setting, 1e-8, full_grad, reduce, factor=4)
