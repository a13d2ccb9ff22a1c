"""SILog against the original's recorded values and a plain twin."""

from __future__ import annotations

import pytest
import torch
from helpers import load_golden

from vpd import losses


def problem(shape=(3, 7, 9), dtype=torch.float32):
    target = 10 * torch.rand(shape, dtype=torch.double)
    target[torch.rand(shape) < 0.3] = 0
    target.view(-1)[:3] = torch.tensor([torch.nan, torch.inf, -1.0])
    prediction = 0.1 + 10 * torch.rand(shape, dtype=torch.double)
    return prediction.to(dtype), target.to(dtype)


def twin(prediction, target, focus=0.5, least=0.0):
    valid = (target > least) & torch.isfinite(target)
    d = target[valid].double().log() - prediction[valid].double().log()
    return (d.square().mean() - focus * d.mean().square()).sqrt()


@pytest.mark.parametrize("focus", [0.5, 0.85])
def test_matches_original(focus):
    case = load_golden("losses_basic")
    prediction = case.inputs["silog.pred"].requires_grad_()
    loss = losses.silog_loss(prediction, case.inputs["silog.target"], variance_focus=focus)
    torch.testing.assert_close(loss, case.outputs[f"silog.lambd{focus}.loss"], rtol=1e-5, atol=0)
    loss.backward()
    want = case.grads[f"silog.lambd{focus}.pred"]
    torch.testing.assert_close(prediction.grad, want, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 7, 9), (2, 1, 5, 4)])
@pytest.mark.parametrize(("focus", "least"), [(0.5, 0.0), (0.0, 4.0), (1.0, 1e-3)])
def test_equals_twin(dtype, shape, focus, least):
    prediction, target = problem(shape, dtype)
    prediction.requires_grad_()
    got = losses.silog_loss(prediction, target, variance_focus=focus, min_depth=least)
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    want = twin(prediction, target, focus, least)
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=0)
    (mine,) = torch.autograd.grad(got, prediction)
    (theirs,) = torch.autograd.grad(want, prediction)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-8)


def test_derivatives():
    prediction, target = problem((2, 3, 4), torch.double)
    prediction.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: losses.silog_loss(x, target), (prediction,))


def test_full_focus_forgives_the_scale():
    prediction, target = problem(dtype=torch.double)
    want = losses.silog_loss(prediction, target, variance_focus=1.0)
    got = losses.silog_loss(3 * prediction, target, variance_focus=1.0)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_to_learn(dtype):
    """No valid pixel, and a prediction that is right: 0 without a slope."""
    prediction, target = problem(dtype=dtype)
    prediction.requires_grad_()
    for truth in (
        torch.zeros_like(target),
        torch.full_like(target, torch.nan),
        prediction.detach(),
    ):
        loss = losses.silog_loss(prediction, truth)
        (gradient,) = torch.autograd.grad(loss, prediction)
        assert loss.item() == 0
        assert not gradient.any()
    assert losses.silog_loss(prediction[:0], target[:0]).item() == 0


def test_broken_predictions_are_not_hidden():
    prediction, target = problem()
    target[0, 1] = 2.0
    for bad in (torch.nan, 0.0, -1.0):
        prediction[0, 1, 1] = bad
        assert not torch.isfinite(losses.silog_loss(prediction, target))
    target[0, 1, 1] = 0.0
    assert torch.isfinite(losses.silog_loss(prediction, target))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parts_give_the_gradient_of_the_whole(dtype):
    """The recipe of SilogSums, for a network with one parameter."""
    inputs, target = problem((4, 6, 5), dtype)
    scale = torch.tensor(1.3, dtype=dtype, requires_grad=True)

    def net(x):
        return (x * scale).exp().clamp(max=50)

    whole = losses.silog_loss(net(inputs), target, variance_focus=0.85)
    (want,) = torch.autograd.grad(whole, scale)
    batches = [(inputs[:1], target[:1]), (inputs[1:], target[1:]), (inputs[:1], 0 * target[:1])]
    with torch.no_grad():
        parts = [losses.silog_sums(net(x), y) for x, y in batches]
    sums = parts[0].plus(*parts[1:])
    torch.testing.assert_close(sums.loss(0.85), whole.double())
    for (x, y), part in zip(batches, parts, strict=True):
        now = losses.silog_sums(net(x), y)
        sums.minus(part).plus(now).loss(0.85).backward()
    torch.testing.assert_close(scale.grad, want, rtol=1e-5, atol=0)
    assert sums.n.dtype == torch.float64
    assert int(sums.n) == int(((target > 0) & torch.isfinite(target)).sum())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: losses.silog_loss(x[0], y[0]), r"\[B, 1, H, W\], got float \[7, 9\]"),
        (lambda x, y: losses.silog_loss(x.long(), y), "prediction must be floating point"),
        (lambda x, y: losses.silog_loss(x, y[:2]), r"target must be floating point \[3, 7, 9\]"),
        (lambda x, y: losses.silog_loss(x, y.long()), "target must be floating point"),
        (lambda x, y: losses.silog_loss(x, y.to("meta")), r"on cpu, got float .* on meta"),
        (lambda x, y: losses.silog_loss(x, y, variance_focus=1.5), r"in \[0, 1\], got 1.5"),
        (lambda x, y: losses.silog_loss(x, y, min_depth=-1.0), "at least 0, got -1"),
        (lambda x, y: losses.silog_sums(x, y[:2]), r"target must be floating point \[3, 7, 9\]"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call(*problem())
