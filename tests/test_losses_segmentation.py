"""Cross-entropy of label maps against the original's recorded values and PyTorch's own functions at
full size."""

from __future__ import annotations

import pytest
import torch
from helpers import load_golden
from torch.nn import functional as F

from vpd import losses
from vpd.memory import LiveBytes

SIZES = [  # of logits and labels
    ((5, 7), (5, 7)),
    ((5, 7), (40, 56)),
    ((6, 4), (33, 18)),
    ((9, 11), (4, 5)),
    ((1, 1), (3, 2)),
    ((7, 3), (7, 12)),
]


def problem(classes=5, small=(5, 7), large=(20, 28), batch=2, dtype=torch.float32):
    logits = (3 * torch.randn(batch, classes, *small, dtype=torch.double)).to(dtype)
    target = torch.randint(0, classes, (batch, *large))
    target[torch.rand(target.shape) < 0.2] = 255
    return logits, target


def twin(logits, target, average="all", weight=None, reduction="mean", ignore=255):
    """Plain PyTorch, in float64."""
    x = logits.double()
    if x.shape[2:] != target.shape[1:]:
        x = F.interpolate(x, target.shape[1:], mode="bilinear", align_corners=False)
    w = None if weight is None else torch.tensor(weight, dtype=torch.double)
    values = F.cross_entropy(x, target.long(), w, ignore_index=ignore, reduction="none")
    if reduction == "mean":
        return values.sum() / (target != ignore).sum() if average == "valid" else values.mean()
    return values.sum() if reduction == "sum" else values


def test_matches_original():
    case = load_golden("loss_seg_ce")
    logits = case.inputs["logits"].requires_grad_()
    target = case.inputs["target"][:, 0]
    loss = losses.segmentation_cross_entropy(logits, target)
    torch.testing.assert_close(loss, case.outputs["loss"], rtol=1e-5, atol=0)
    loss.backward()
    torch.testing.assert_close(logits.grad, case.grads["logits"], rtol=1e-5, atol=1e-8)
    sums = losses.segmentation_sums(logits, target)
    torch.testing.assert_close(sums.accuracy, case.outputs["acc_seg"][0], rtol=1e-6, atol=0)
    torch.testing.assert_close(sums.cross_entropy / target.numel(), loss)


@pytest.mark.parametrize("classes", [1, 2, 16, 19, 150])
@pytest.mark.parametrize(("small", "large"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_twin(classes, small, large, dtype):
    """Values and gradients of unequal weights at every pixel, by row (float32) and by image."""
    logits, target = problem(classes, small, large, dtype=dtype)
    logits.requires_grad_()
    got = losses.segmentation_cross_entropy(logits, target, reduction="none")
    want = twin(logits, target, reduction="none")
    assert got.dtype == dtype
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {}
    torch.testing.assert_close(got.double(), want, **tolerance)
    cotangent = torch.randn_like(want)
    (mine,) = torch.autograd.grad(got, logits, cotangent.to(dtype))
    (theirs,) = torch.autograd.grad(want, logits, cotangent)
    torch.testing.assert_close(mine, theirs, **tolerance)


@pytest.mark.parametrize("reduction", ["mean", "none", "sum"])
@pytest.mark.parametrize("average", ["all", "valid"])
@pytest.mark.parametrize("weight", [None, (0.5, 2.0, 1.3, 0.0, 1.0)])
def test_reductions(reduction, average, weight):
    logits, target = problem()
    options = {"average": average, "weight": weight, "reduction": reduction}
    got = losses.segmentation_cross_entropy(logits, target, **options)
    torch.testing.assert_close(got.double(), twin(logits, target, **options), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_layouts(dtype):
    logits, target = problem(dtype=dtype)
    want = losses.segmentation_cross_entropy(logits.float(), target)
    assert want.dtype == torch.float32
    wide = torch.zeros(2, 9, 5, 14, dtype=dtype)
    wide[:, 2:7, :, ::2] = logits
    for same in (
        logits,
        logits.contiguous(memory_format=torch.channels_last),
        wide[:, 2:7, :, ::2],
    ):
        assert torch.equal(losses.segmentation_cross_entropy(same, target), want)
    assert torch.equal(losses.segmentation_cross_entropy(logits, target.byte()), want)
    transposed = target.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(losses.segmentation_cross_entropy(logits, transposed), want)


def test_parts_add_up():
    """A batch in two parts: sums and, over the pixels of the whole, the gradient of its mean."""
    logits, target = problem(batch=3)
    logits.requires_grad_()
    whole = losses.segmentation_sums(logits, target)
    parts = [losses.segmentation_sums(logits[i], target[i]) for i in (slice(0, 2), slice(2, 3))]
    for total, *each in zip(whole, *parts, strict=True):
        torch.testing.assert_close(sum(each), total)
    assert int(whole.valid) == int((target != 255).sum())
    for average, count in (("all", target.numel()), ("valid", whole.valid)):
        mean = losses.segmentation_cross_entropy(logits, target, average=average)
        (want,) = torch.autograd.grad(mean, logits)
        loss = sum(part.cross_entropy / count for part in parts)
        (got,) = torch.autograd.grad(loss, logits, retain_graph=True)
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_correct_is_the_first_of_the_highest(dtype):
    logits, target = problem(19, dtype=dtype)
    up = F.interpolate(logits.double(), target.shape[1:], mode="bilinear", align_corners=False)
    sums = losses.segmentation_sums(logits, target)
    assert int(sums.correct) == int((up.argmax(1) == target).sum())
    ties = losses.segmentation_sums(torch.zeros_like(logits), target)
    assert int(ties.correct) == int((target == 0).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("average", ["all", "valid"])
def test_nothing_valid(dtype, average):
    logits, target = problem(dtype=dtype)
    logits.requires_grad_()
    loss = losses.segmentation_cross_entropy(logits, torch.full_like(target, 255), average=average)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert not gradient.any()
    assert losses.segmentation_sums(logits, torch.full_like(target, 255)).accuracy == 0
    empty = losses.segmentation_cross_entropy(logits[:0], target[:0], average=average)
    assert empty.item() == 0


def test_ignored_class():
    """A class may be the one that is ignored, and a value outside of uint8 ignores nothing."""
    logits, target = problem()
    target[target == 255] = 3
    for ignore in (3, -100):
        got = losses.segmentation_cross_entropy(logits, target.byte(), ignore_index=ignore)
        torch.testing.assert_close(
            got.double(), twin(logits, target, ignore=ignore), rtol=1e-5, atol=0
        )


@pytest.mark.parametrize("size", [(2, 3), (6, 9)])
def test_extreme_logits(size):
    logits = torch.zeros(1, 3, 2, 3)
    logits[:, 1] = 1e4
    logits.requires_grad_()
    loss = losses.segmentation_cross_entropy(logits, torch.zeros(1, *size, dtype=torch.long))
    assert loss.item() == 1e4
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient.sum((2, 3))[0], torch.tensor([-1.0, 1.0, 0.0]))
    masked = torch.tensor([1.0, -torch.inf, 0.5]).view(1, 3, 1, 1).expand(1, 3, 2, 3)
    loss = losses.segmentation_cross_entropy(masked, torch.zeros(1, *size, dtype=torch.long))
    assert float(loss) == pytest.approx(float(torch.tensor([1.0, 0.5]).logsumexp(0) - 1))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_broken_logits_are_not_hidden(bad, dtype):
    logits, target = problem(dtype=dtype)
    target = target.clamp(max=4)
    logits[1, 2, 0, 0] = bad
    logits.requires_grad_()
    values = losses.segmentation_cross_entropy(logits, target, reduction="none")
    assert torch.isfinite(values[0]).all()
    assert not torch.isfinite(values[1, 0, 0])
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert torch.isfinite(gradient[0]).all()
    assert torch.isnan(gradient[1, :, 0, 0]).all()


@pytest.mark.parametrize(("dtype", "images"), [(torch.float32, 1), (torch.float64, 4.5)])
def test_memory_does_not_grow_with_the_batch(dtype, images):
    """At most so many images' full-size logits exist, forward and backward of a batch of 8."""
    classes, side, batch = 150, 32, 8
    logits, target = problem(classes, (4, 4), (side, side), batch, dtype)
    logits.requires_grad_()
    with LiveBytes([logits, target]) as live:
        loss = losses.segmentation_cross_entropy(logits, target)
        loss.backward()
    assert live.peak < images * classes * side * side * logits.element_size()


def test_threads_change_nothing():
    logits, target = problem(19, (8, 8), (64, 64))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            x = logits.clone().requires_grad_()
            values = losses.segmentation_cross_entropy(x, target, reduction="none")
            values.backward(torch.ones_like(values))
            found.append((values, x.grad))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_derivatives():
    logits, target = problem(3, (2, 3), (4, 7), dtype=torch.double)
    logits.requires_grad_()

    def loss(x):
        return losses.segmentation_cross_entropy(x, target, weight=(1.0, 0.3, 2.0))

    assert torch.autograd.gradcheck(loss, (logits,))
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(loss(logits), logits, create_graph=True)


def test_without_values():
    """Shapes alone, as for a tensor on the meta device."""
    logits, target = (t.to("meta") for t in problem())
    got = losses.segmentation_cross_entropy(logits, target, reduction="none")
    assert got.is_meta
    assert got.shape == target.shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y, f: f(x[0], y), r"\[B, K, h, w\], got float \[5, 5, 7\]"),
        (lambda x, y, f: f(x[:, :0], y), r"\[B, K, h, w\], got float \[2, 0, 5, 7\]"),
        (lambda x, y, f: f(x.long(), y), "must be floating point"),
        (lambda x, y, f: f(x, y[:1]), r"\[2, H, W\], got long int \[1, 20, 28\]"),
        (lambda x, y, f: f(x, y[:, None]), r"\[2, H, W\], got long int \[2, 1, 20, 28\]"),
        (lambda x, y, f: f(x, y.int()), "must be int64 or uint8"),
        (lambda x, y, f: f(x, y.float()), "must be int64 or uint8"),
        (lambda x, y, f: f(x, y.to("meta")), "must be on cpu as logits, got meta"),
        (lambda x, y, f: f(x, y, ignore_index=0), r"in \[0, 5\) or 0 \(ignored\), got 255"),
        (lambda x, y, f: f(x, y - 1000, ignore_index=0), r"\[0, 5\) or 0 \(ignored\), got -"),
        (lambda x, y, f: f(x, y, weight=(1.0,) * 4), "5 class weights, got 4"),
    ],
)
@pytest.mark.parametrize("name", ["segmentation_cross_entropy", "segmentation_sums"])
def test_bad_input_is_explained(name, call, message):
    with pytest.raises(ValueError, match=message):
        call(*problem(), getattr(losses, name))


def test_bad_words_are_explained():
    with pytest.raises(ValueError, match="average must be 'all' or 'valid', got 'some'"):
        losses.segmentation_cross_entropy(*problem(), average="some")
    with pytest.raises(ValueError, match="got 'avg'"):
        losses.segmentation_cross_entropy(*problem(), reduction="avg")
