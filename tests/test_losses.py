"""Losses against the originals' recorded values, plain PyTorch twins and numerical gradients."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import load_golden
from torch.nn import functional as F

from vpd import losses


def binary(b=2, h=5, w=7, dtype=torch.float32):
    return torch.randn(b, 2, h, w, dtype=dtype), torch.randint(0, 2, (b, h, w))


def test_cross_entropy_matches_original():
    case = load_golden("losses_basic")
    logits = case.inputs["lavt_ce.logits"].requires_grad_()
    loss = losses.weighted_cross_entropy(logits, case.inputs["lavt_ce.target"])
    torch.testing.assert_close(loss, case.outputs["lavt_ce.loss"], rtol=1e-5, atol=0)
    loss.backward()
    torch.testing.assert_close(logits.grad, case.grads["lavt_ce.logits"], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "none", "sum"])
def test_cross_entropy_formula(reduction):
    logits = torch.randn(2, 3, 4, 5, dtype=torch.double)
    target = torch.randint(0, 3, (2, 4, 5))
    weight = torch.tensor([0.5, 2.0, 1.3], dtype=torch.double)
    w = weight[target]
    values = -w * logits.log_softmax(1).gather(1, target[:, None])[:, 0]
    want = {"mean": values.sum() / w.sum(), "sum": values.sum(), "none": values}[reduction]
    got = losses.weighted_cross_entropy(logits, target, weight.tolist(), reduction)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("reduction", ["mean", "none", "sum"])
def test_dice_formula(reduction):
    logits, target = binary(3)
    target[1] = 0  # nothing to find
    want = []
    for row, y in zip(logits, target, strict=True):
        p = row.softmax(0)[1]
        want.append(1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
    values = torch.stack(want)
    want = {"mean": values.mean(), "sum": values.sum(), "none": values}[reduction]
    torch.testing.assert_close(losses.dice_loss(logits, target, reduction), want)


@pytest.mark.parametrize("size", [(5, 7), (16, 16), (33, 18)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_mask_losses_are_the_two_losses(size, dtype):
    """Values and gradients, the fused pass (float32) as the composed one."""
    scores = (3 * torch.randn(3, 2, 5, 7)).to(dtype).requires_grad_()
    target = torch.randint(0, 2, (3, *size))
    target[1] = 0
    weight = (0.7, 1.6)
    up = F.interpolate(scores.double(), size, mode="bilinear", align_corners=True)
    want = (
        losses.weighted_cross_entropy(up, target, weight, "sum"),
        losses.dice_loss(up, target, "sum"),
    )
    got = losses.mask_losses(scores, target, weight)
    assert got.dice.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for one, (a, b) in enumerate(zip(got, want, strict=True)):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
        (mine,) = torch.autograd.grad(a, scores, retain_graph=True)
        (theirs,) = torch.autograd.grad(b, scores, retain_graph=True)
        torch.testing.assert_close(mine, theirs, rtol=2e-4, atol=1e-6, msg=str(one))


def test_mask_losses_of_extreme_scores():
    scores = torch.tensor([[-200.0], [200.0]]).expand(1, 2, 1).reshape(1, 2, 1, 1).requires_grad_()
    wrong = losses.mask_losses(scores, torch.zeros(1, 4, 4, dtype=torch.long), (1.0, 1.0))
    assert float(wrong.cross_entropy) == pytest.approx(16 * 400)
    (gradient,) = torch.autograd.grad(wrong.cross_entropy, scores)
    assert gradient.flatten().tolist() == pytest.approx([-16, 16])


def test_dice_extremes():
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[:, :4] = 1
    right = F.one_hot(target, 2).permute(0, 3, 1, 2) * 100.0
    assert float(losses.dice_loss(right, target)) == pytest.approx(0, abs=1e-6)
    assert float(losses.dice_loss(-right, target)) == pytest.approx(1 - 1 / 65)


def test_contrastive_loss_is_transformers_clip_loss():
    clip = pytest.importorskip("transformers.models.clip.modeling_clip")
    image, text = (torch.randn(7, 5, dtype=torch.double, requires_grad=True) for _ in range(2))
    scale = torch.tensor(3.0, dtype=torch.double, requires_grad=True)
    leaves = (image, text, scale)
    cosines = F.normalize(text, dim=-1) @ F.normalize(image, dim=-1).t()
    want = clip.image_text_contrastive_loss(cosines * scale)
    got = losses.contrastive_loss(*leaves)
    torch.testing.assert_close(got, want)
    grads = [torch.autograd.grad(loss, leaves) for loss in (got, want)]
    torch.testing.assert_close(*grads)


def test_contrastive_loss_extremes():
    rows = torch.eye(6)
    assert float(losses.contrastive_loss(rows, 3 * rows, torch.tensor(100.0))) < 1e-6
    blind = losses.contrastive_loss(torch.ones(6, 4), torch.randn(6, 4), torch.tensor(1.0))
    assert float(blind) >= math.log(6)
    with pytest.raises(ValueError, match=r"text must be floating point \[6, 6\]"):
        losses.contrastive_loss(rows, rows[:5], torch.tensor(1.0))


@pytest.mark.parametrize("cap", [1.0, 3.0, 100.0])
def test_epsilon_loss_formula(cap):
    prediction, noise = torch.randn(4, 3, 2, 5), torch.randn(4, 3, 2, 5)
    alpha_bar = torch.tensor([0.999, 0.5, 0.2, 0.001], dtype=torch.double)
    weight = torch.tensor([min(1 / a, cap) for a in alpha_bar.tolist()])
    want = weight * ((prediction - noise) ** 2).mean((1, 2, 3))
    got = losses.epsilon_loss(prediction, noise, alpha_bar, cap, "none")
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(losses.epsilon_loss(prediction, noise, alpha_bar, cap), want.mean())
    if cap == 1:
        torch.testing.assert_close(want.mean(), F.mse_loss(prediction, noise))


def test_epsilon_weight_is_the_error_of_v():
    """With x_t and alpha_bar given, an error of epsilon is one of v times sqrt(alpha_bar)."""
    x0, noise, wrong = torch.randn(3, 1, 6, 4, dtype=torch.double).unbind(0)
    bar = torch.tensor([0.3], dtype=torch.double)
    x = bar.sqrt() * x0 + (1 - bar).sqrt() * noise

    def velocity(epsilon):
        clean = (x - (1 - bar).sqrt() * epsilon) / bar.sqrt()
        return bar.sqrt() * epsilon - (1 - bar).sqrt() * clean

    want = F.mse_loss(velocity(wrong), velocity(noise))
    torch.testing.assert_close(losses.epsilon_loss(wrong, noise, bar), want)


def test_reconstruction_formula():
    decoded, image = torch.randn(2, 3, 6, 5), torch.randn(2, 3, 6, 5)
    mean, logvar = torch.randn(2, 4, 3, 2), torch.randn(2, 4, 3, 2)
    loss = losses.reconstruction_loss(decoded, image, mean, logvar, 0.5)
    edges = F.l1_loss(decoded[..., 1:] - decoded[..., :-1], image[..., 1:] - image[..., :-1])
    edges += F.l1_loss(
        decoded[..., 1:, :] - decoded[..., :-1, :], image[..., 1:, :] - image[..., :-1, :]
    )
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mean, (0.5 * logvar).exp()), normal(0.0, 1.0))
    torch.testing.assert_close(loss.pixels, F.l1_loss(decoded, image))
    torch.testing.assert_close(loss.edges, edges)
    torch.testing.assert_close(loss.kl, kl.mean())
    torch.testing.assert_close(loss.total, loss.pixels + loss.edges + 0.5 * loss.kl)


def test_gradients():
    logits, target = binary(2, 2, 3, torch.double)
    logits.requires_grad_()
    x, mean, logvar, y = (torch.randn(2, 1, 2, 2, dtype=torch.double) for _ in range(4))
    inputs = [v.requires_grad_() for v in (x, mean, logvar)]
    bar = torch.tensor([0.5, 0.1], dtype=torch.double)
    check = torch.autograd.gradcheck
    assert check(lambda v: losses.weighted_cross_entropy(v, target), (logits,))
    assert check(lambda v: losses.dice_loss(v, target), (logits,))
    assert check(lambda v: losses.epsilon_loss(v, y, bar), (x,))
    assert check(lambda a, m, v: losses.reconstruction_loss(a, y, m, v, 0.1).total, inputs)


def test_half_precision_is_widened():
    logits, target = binary()
    logits = logits.bfloat16()
    for loss in (losses.weighted_cross_entropy, losses.dice_loss):
        got = loss(logits, target)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, loss(logits.float(), target))
    prediction = torch.randn(2, 8).bfloat16()
    assert losses.epsilon_loss(prediction, torch.randn(2, 8), torch.ones(2)).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: losses.weighted_cross_entropy(x[0], y), r"\[B, K, H, W\], got float \[2, 5"),
        (lambda x, y: losses.weighted_cross_entropy(x, y[:, :4]), r"int64 \[2, 5, 7\], got long"),
        (lambda x, y: losses.weighted_cross_entropy(x, y.int()), "must be int64"),
        (lambda x, y: losses.weighted_cross_entropy(x, y + 1), r"in \[0, 2\), got 2"),
        (lambda x, y: losses.weighted_cross_entropy(x, y - 1), r"in \[0, 2\), got -1"),
        (lambda x, y: losses.weighted_cross_entropy(x, y, (1, 1, 1)), "2 class weights, got 3"),
        (lambda x, y: losses.weighted_cross_entropy(x, y, reduction="avg"), "got 'avg'"),
        (lambda x, y: losses.dice_loss(x.repeat(1, 2, 1, 1), y), r"\[B, 2, H, W\]"),
        (lambda x, y: losses.mask_losses(x.repeat(1, 2, 1, 1), y), r"\[B, 2, h, w\]"),
        (lambda x, y: losses.mask_losses(x, y + 1), r"in \[0, 2\), got 2"),
        (lambda x, y: losses.mask_losses(x, y, (1.0,)), "2 class weights, got 1"),
        (lambda x, y: losses.dice_loss(x, y + 1), r"in \[0, 2\), got 2"),
        (lambda x, y: losses.epsilon_loss(x, x[:1], x[:, 0, 0, 0]), "noise must be"),
        (lambda x, y: losses.epsilon_loss(x, x, x[:1, 0, 0, 0]), r"alpha_bar must be .* \[2\]"),
        (lambda x, y: losses.epsilon_loss(x, x, x[:, 0, 0, 0], 0.5), "cap must be at least 1"),
        (lambda x, y: losses.reconstruction_loss(x, x[:1], x, x, 1), "image must be"),
        (lambda x, y: losses.reconstruction_loss(x, x, x, x[:1], 1), "of one shape"),
        (lambda x, y: losses.reconstruction_loss(x[..., :1], x[..., :1], x, x, 1), "H, W > 1"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call(*binary())
