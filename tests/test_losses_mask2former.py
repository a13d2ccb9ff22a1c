"""The criterion of Mask2Former against the original's recorded values, and against a plain twin."""

from __future__ import annotations

import pytest
import torch
from helpers import load_golden
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from vpd import losses


def problem(classes=4, queries=9, objects=(3, 0, 5), outputs=2, dtype=torch.float32):
    batch = len(objects)
    logits = [torch.randn(batch, queries, classes + 1).to(dtype) for _ in range(outputs)]
    masks = [3 * torch.randn(batch, queries, 6, 9).to(dtype) for _ in range(outputs)]
    labels = [torch.randint(classes, (n,)) for n in objects]
    targets = [torch.rand(n, 24, 30) < 0.4 for n in objects]
    return logits, masks, labels, targets


def draw(objects, queries, points=16, oversample=3.0, uncertain=0.75, generator=None):
    """In the order of the original, which draws the places of the matching image by image."""
    matched = sum(min(n, queries) for n in objects)

    def rand(*size):
        return torch.rand(size, generator=generator)

    matching = torch.cat([rand(1, points, 2) for _ in objects])
    candidates = rand(matched, int(oversample * points), 2)
    return losses.PointDraws(
        matching, candidates, rand(matched, points - int(uncertain * points), 2)
    )


def look(maps: Tensor, points: Tensor) -> Tensor:
    """[N, h, w] at [N, P, 2] -> [N, P]"""
    grid = (2 * points.to(maps.dtype) - 1)[:, None]
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, 0]


def twin(logits, masks, labels, targets, draws, points=16, uncertain=0.75, no_object=0.1):
    """One output, in float64, object by object. Losses and matches."""
    logits, masks = logits.double(), masks.double()
    batch, queries, classes = logits.shape
    said, classes = torch.full((batch, queries), classes - 1), classes - 1
    cross_entropy, dice, matches, n = [], [], [], 0
    for b in range(batch):
        cost = torch.zeros(queries, len(labels[b]), dtype=torch.double)
        for j, (label, target) in enumerate(zip(labels[b], targets[b], strict=True)):
            y = look(target.double()[None], draws.matching[b][None])[0]
            for q in range(queries):
                x = look(masks[b, q][None], draws.matching[b][None])[0]
                p = x.sigmoid()
                cost[q, j] = (
                    5 * F.binary_cross_entropy_with_logits(x, y)
                    - 2 * logits[b, q].softmax(0)[label]
                    + 5 * (1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
                )
        rows, columns = linear_sum_assignment(cost.detach().numpy())
        matches.append((rows.tolist(), columns.tolist()))
        for q, j in zip(rows, columns, strict=True):
            said[b, q] = labels[b][j]
            near = look(masks[b, q][None], draws.candidates[n][None])[0].abs().argsort()
            at = torch.cat([draws.candidates[n][near[: int(uncertain * points)]], draws.rest[n]])
            x, y = (
                look(masks[b, q][None], at[None])[0],
                look(targets[b][j].double()[None], at[None])[0],
            )
            p = x.sigmoid()
            cross_entropy.append(F.binary_cross_entropy_with_logits(x, y))
            dice.append(1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
            n += 1
    weight = torch.tensor([1.0] * classes + [no_object], dtype=torch.double)
    label = F.cross_entropy(logits.flatten(0, 1), said.flatten(), weight)
    count = max(sum(len(own) for own in labels), 1)
    zero = masks.sum() * 0
    return label, (zero + sum(cross_entropy)) / count, (zero + sum(dice)) / count, matches


def test_matches_original():
    case = load_golden("mask2former_loss")
    inputs = case.inputs
    logits = inputs["pred_logits"].requires_grad_()
    masks = inputs["pred_masks"].requires_grad_()
    labels = [inputs[f"target{b}.labels"] for b in (0, 1)]
    targets = [inputs[f"target{b}.masks"] for b in (0, 1)]
    draws = losses.PointDraws(
        torch.cat([inputs["matcher_points0"], inputs["matcher_points1"]]),
        inputs["rand_oversampled_points"],
        inputs["rand_extra_points"],
    )
    found = losses.mask2former_loss([logits], [masks], labels, targets, points=64, draws=[draws])
    for b in (0, 1):
        cost = losses.mask2former_cost(
            logits[b], masks[b], labels[b], targets[b], draws.matching[b]
        )
        assert not cost.requires_grad
        torch.testing.assert_close(cost, case.outputs[f"match{b}.cost"], rtol=1e-5, atol=0)
        query, target = found.matches[0][b]
        assert torch.equal(query, case.outputs[f"match{b}.query"])
        assert torch.equal(target, case.outputs[f"match{b}.target"])
    terms = {"ce": found.cross_entropy, "mask": found.mask, "dice": found.dice}
    for name, term in terms.items():
        torch.testing.assert_close(term[0], case.outputs[f"loss_{name}"], rtol=1e-5, atol=0)
        of, key = (logits, "pred_logits") if name == "ce" else (masks, "pred_masks")
        (grad,) = torch.autograd.grad(term.sum(), of, retain_graph=True)
        want = case.grads[f"loss_{name}.{key}"]
        torch.testing.assert_close(grad, want, rtol=1e-5, atol=float(1e-6 * want.abs().max()))
    total = 2 * found.cross_entropy.sum() + 5 * (found.mask + found.dice).sum()
    torch.testing.assert_close(found.total, total)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32])
@pytest.mark.parametrize(("objects", "queries"), [((3, 0, 5), 9), ((6, 1), 4), ((0, 0), 3)])
def test_equals_twin(objects, queries, kind):
    logits, masks, labels, targets = problem(queries=queries, objects=objects)
    for t in (*logits, *masks):
        t.requires_grad_()
    draws = [draw(objects, queries) for _ in logits]
    typed = [t.to(kind) for t in targets]
    found = losses.mask2former_loss(logits, masks, labels, typed, points=16, draws=draws)
    total = torch.zeros((), dtype=torch.double)
    for i, own in enumerate(draws):
        label, mask, dice, matches = twin(logits[i], masks[i], labels, targets, own)
        got = [(rows.tolist(), columns.tolist()) for rows, columns in found.matches[i]]
        assert got == matches
        for term, want in ((found.cross_entropy, label), (found.mask, mask), (found.dice, dice)):
            torch.testing.assert_close(term[i].double(), want.double(), rtol=2e-6, atol=0)
        total = total + 2 * label + 5 * mask + 5 * dice
    leaves = [*logits, *masks]
    got = torch.autograd.grad(found.total, leaves)
    want = torch.autograd.grad(total, leaves)
    for a, e in zip(got, want, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-7)


def test_dtypes():
    logits, masks, labels, targets = problem(outputs=1, dtype=torch.float64)
    draws = [draw((3, 0, 5), 9)]
    exact = losses.mask2former_loss(logits, masks, labels, targets, points=16, draws=draws)
    label, mask, dice, _ = twin(logits[0], masks[0], labels, targets, draws[0])
    assert exact.total.dtype == torch.float64
    for term, want in ((exact.cross_entropy, label), (exact.mask, mask), (exact.dice, dice)):
        torch.testing.assert_close(term[0], want, rtol=1e-6, atol=0)  # targets are read in float32
    half = [t.bfloat16().requires_grad_() for t in (*logits, *masks)]
    found = losses.mask2former_loss(half[:1], half[1:], labels, targets, points=16, draws=draws)
    assert found.total.dtype == torch.float32
    assert all(g.dtype == torch.bfloat16 for g in torch.autograd.grad(found.total, half))


def test_a_generator_draws_as_the_original_does():
    logits, masks, labels, targets = problem()
    generator = torch.Generator().manual_seed(5)
    own = losses.mask2former_loss(logits, masks, labels, targets, points=16, generator=generator)
    generator.manual_seed(5)
    draws = [draw((3, 0, 5), 9, generator=generator) for _ in logits]
    given = losses.mask2former_loss(logits, masks, labels, targets, points=16, draws=draws)
    assert torch.equal(own.total, given.total)
    assert not torch.equal(
        losses.mask2former_loss(logits, masks, labels, targets, points=16).total, own.total
    )


def test_divisor_and_weights():
    logits, masks, labels, targets = problem(outputs=1)
    draws = [draw((3, 0, 5), 9)]

    def loss(**options):
        return losses.mask2former_loss(
            logits, masks, labels, targets, points=16, draws=draws, **options
        )

    plain, divided = loss(), loss(num_masks=2.0)
    torch.testing.assert_close(divided.mask, 4 * plain.mask)
    torch.testing.assert_close(divided.dice, 4 * plain.dice)
    assert torch.equal(divided.cross_entropy, plain.cross_entropy)
    only = loss(weights=(0.0, 1.0, 0.0))
    torch.testing.assert_close(only.total, only.mask.sum())
    assert not torch.equal(loss(no_object=1.0).cross_entropy, plain.cross_entropy)


def test_right_masks_cost_nothing():
    """Queries that say what is there, in another order, are found and have no loss."""
    labels = [torch.tensor([2, 0, 1])]
    stripes = torch.zeros(3, 8, 8, dtype=torch.bool)
    stripes[0, :2], stripes[1, 3:5], stripes[2, 6:] = True, True, True
    order = torch.tensor([4, 1, 3])
    masks = torch.full((1, 5, 8, 8), -50.0)
    masks[0, order] = stripes.float() * 100 - 50
    logits = torch.zeros(1, 5, 4)
    logits[0, :, 3] = 50
    logits[0, order] = 50 * F.one_hot(labels[0], 4).float()
    centres = (torch.cartesian_prod(torch.arange(8), torch.arange(8)) + 0.5) / 8  # of pixels
    draws = losses.PointDraws(
        centres[None], centres.repeat(3, 3, 1), centres[:16].expand(3, -1, -1)
    )
    found = losses.mask2former_loss([logits], [masks], labels, [stripes], points=64, draws=[draws])
    query, target = found.matches[0][0]
    assert torch.equal(order[target], query)
    assert all(float(term) < 1e-6 for term in found[1:4])


def test_300_objects():
    logits, masks, labels, targets = problem(queries=20, objects=(300,), outputs=1)
    found = losses.mask2former_loss(logits, masks, labels, targets, points=32)
    assert found.matches[0][0][0].tolist() == list(range(20))
    assert len(found.matches[0][0][1].unique()) == 20
    assert torch.isfinite(found.total)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[0].pop(), "as many logits as masks, one for each output .* got 1 and 2"),
        (lambda p: p[2].pop(), "labels and masks of 3 images, got 2 and 3"),
        (lambda p: p[0].__setitem__(1, p[0][1][:, :5]), r"\[3, 9, 5\], got float \[3, 5, 5\]"),
        (lambda p: p[0].__setitem__(1, p[0][1][..., :3]), r"\[3, 9, 5\], got float \[3, 9, 3\]"),
        (lambda p: p[1].__setitem__(0, p[1][0][0]), r"masks must .* \[3, 9, h, w\], got float \[9"),
        (lambda p: p[2].__setitem__(0, p[2][0].int()), r"labels .* int64 \[M\], got int \[3\]"),
        (lambda p: p[2].__setitem__(0, p[2][0] + 4), r"labels must be in \[0, 4\), got"),
        (lambda p: p[3].__setitem__(0, p[3][0][:2]), r"with 3 labels must .* got bool \[2, 24, 30"),
        (lambda p: p[3].__setitem__(0, p[3][0].byte() * 255), "masks must be 0 or 1, got 255"),
        (lambda p: p[3].__setitem__(0, p[3][0][:, :9]), r"one size.* got \[9, 30\] and \[24, 30"),
        (lambda p: p[0][0].fill_(torch.nan), r"costs must be finite, got -?nan at \[0, 0\]"),
    ],
)
def test_bad_input_is_explained(change, message):
    given = problem()
    change(given)
    with pytest.raises(ValueError, match=f"mask2former_loss: .*{message}"):
        losses.mask2former_loss(*given, points=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 0}, "points must be positive, got 0"),
        ({"uncertain": 1.5}, r"in \[0, 1\] and an oversampling of 1 or more, got 1.5 and 3"),
        ({"oversample": 0.5}, "got 0.75 and 0.5"),
        ({"num_masks": 0.0}, "divide by must be positive, got 0"),
        ({"no_object": -1.0}, "must not be negative, got -1"),
        ({"draws": [draw((3, 0, 5), 9)]}, "draws for 2 outputs, got 1"),
        ({"draws": [draw((3, 0, 4), 9)] * 2}, r"output 0 must be .* \[8, 48, 2\] on cpu, got"),
    ],
)
def test_bad_options_are_explained(options, message):
    with pytest.raises(ValueError, match=f"mask2former_loss: .*{message}"):
        losses.mask2former_loss(*problem(), **{"points": 16, **options})
