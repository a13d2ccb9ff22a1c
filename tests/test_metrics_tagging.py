"""Tagging metrics against torchmetrics and a slow reference that counts by hand."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vpd.metrics import TagMetrics

KEYS = ("mAP", "CP", "CR", "CF1", "OP", "OR", "OF1")


def average_precision(scores, target) -> float:
    """Precision at each score that occurs, times the recall gained there."""
    total, before = 0.0, 0
    for level in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= level
        right = int((taken & target).sum())
        total += (right - before) / target.sum() * right / taken.sum()
        before = right
    return float(total)


def harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


def reference(scores, target, threshold=0.5, k=2) -> dict[str, float]:
    said = scores > threshold
    present = [c for c in range(target.shape[1]) if target[:, c].any()]
    aps, cps, crs = [], [], []
    for c in present:
        right = int((said[:, c] & target[:, c]).sum())
        aps.append(average_precision(scores[:, c], target[:, c]))
        cps.append(right / max(said[:, c].sum(), 1))
        crs.append(right / target[:, c].sum())
    recalls = []
    for row, true in zip(scores, target, strict=True):
        best = sorted(range(len(row)), key=lambda c: (-row[c], c))[:k]
        if true.any():
            recalls.append(true[best].sum() / true.sum())
    right = int((said & target).sum())
    op, or_ = right / max(said.sum(), 1), right / max(target.sum(), 1)

    def mean(values):
        return float(np.mean(values)) if values else 0.0

    found = {
        "mAP": mean(aps), "CP": mean(cps), "CR": mean(crs), "CF1": harmonic(mean(cps), mean(crs)),
        "OP": op, "OR": or_, "OF1": harmonic(op, or_), f"recall@{k}": mean(recalls),
        **{f"AP/{c}": ap for c, ap in zip(present, aps, strict=True)},
    }  # fmt: skip
    return {name: 100 * value for name, value in found.items()} | {"n": len(scores)}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 6), st.sampled_from([3, 1000]))
def test_any_set_in_parts_is_the_reference(seed, count, classes, levels):
    """Few levels make many equal scores."""
    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, levels + 1, (count, classes)) / levels).astype(np.float32)
    target = rng.random((count, classes)) < 0.4
    cut = int(rng.integers(0, count + 1))
    parts = [TagMetrics(classes, recall_at=(2,)) for _ in range(2)]
    parts[0].update(scores[:cut], target[:cut])
    for row in range(cut, count):
        parts[1].update(scores[row : row + 1], target[row : row + 1].astype(np.uint8))
    travelled = [pickle.loads(pickle.dumps(part)) for part in parts]
    parts[0].merge(travelled[1])
    travelled[1].merge(travelled[0])
    got = parts[0].compute(per_class=True)
    assert got == pytest.approx(reference(scores, target), abs=1e-9)
    assert got == pytest.approx(travelled[1].compute(per_class=True), rel=1e-12)


def test_torchmetrics_agrees():
    functional = pytest.importorskip("torchmetrics.functional.classification")
    scores, target = torch.rand(300, 40), torch.rand(300, 40) < 0.1
    scores = (scores + target * 0.3).clamp(max=1)
    metrics = TagMetrics(40, recall_at=())
    metrics.update(scores, target)
    got, whole = metrics.compute(per_class=True), target.long()
    aps = functional.multilabel_average_precision(scores, whole, 40, average=None)
    assert [got[f"AP/{c}"] for c in range(40)] == pytest.approx((100 * aps).tolist(), rel=1e-5)
    assert got["mAP"] == pytest.approx(100 * float(aps.mean()), rel=1e-5)
    for ours, average in (("C", "macro"), ("O", "micro")):
        p = functional.multilabel_precision(scores, whole, 40, average=average)
        r = functional.multilabel_recall(scores, whole, 40, average=average)
        assert got[f"{ours}P"] == pytest.approx(100 * float(p), rel=1e-5)
        assert got[f"{ours}R"] == pytest.approx(100 * float(r), rel=1e-5)
        assert got[f"{ours}F1"] == pytest.approx(100 * harmonic(float(p), float(r)), rel=1e-5)
    f1 = functional.multilabel_f1_score(scores, whole, 40, average="micro")
    assert got["OF1"] == pytest.approx(100 * float(f1), rel=1e-5)


def test_curves_are_those_of_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.classification")
    scores = (torch.rand(200, 3) * 20).round() / 20
    target = torch.rand(200, 3) < 0.3
    metrics = TagMetrics(3, names=("a", "b", "c"))
    metrics.update(scores, target)
    for which, column in (("b", (scores[:, 1], target[:, 1])), (None, (scores, target))):
        curve = metrics.curve(which)
        p, r, t = functional.binary_precision_recall_curve(
            column[0].flatten(), column[1].flatten().long()
        )
        # Theirs starts with the lowest score and ends with a point of no prediction.
        np.testing.assert_allclose(curve.precision, p[:-1].flip(0).numpy(), rtol=1e-6)
        np.testing.assert_allclose(curve.recall, r[:-1].flip(0).numpy(), rtol=1e-6)
        np.testing.assert_allclose(curve.thresholds, t.flip(0).numpy())
    assert metrics.curve(1).average_precision == pytest.approx(
        metrics.compute(per_class=True)["AP/b"]
    )


def test_shuffled_tags_are_worth_their_frequency():
    """Scores that say all there is to say; other pictures' tags are right as often as they are
    frequent."""
    target = torch.rand(4000, 3) < torch.tensor([0.5, 0.2, 0.05])
    metrics = TagMetrics(3)
    metrics.update(target.float(), target)
    assert metrics.compute()["mAP"] == 100
    floor = metrics.shuffled().compute(per_class=True)
    for c, share in enumerate(target.double().mean(0).tolist()):
        assert floor[f"AP/{c}"] == pytest.approx(100 * share, abs=4)
    assert metrics.shuffled(1).compute() != metrics.shuffled(2).compute()
    assert metrics.compute()["mAP"] == 100  # itself unchanged
    alone = TagMetrics(2)
    alone.update(torch.eye(2), torch.eye(2))
    assert alone.shuffled().compute()["OP"] == 0  # every picture has another one's


def test_edges():
    empty = TagMetrics(3, recall_at=(1, 5)).compute(per_class=True)
    assert empty == dict.fromkeys((*KEYS, "recall@1", "recall@5", "n"), 0)
    nothing = TagMetrics(2)
    nothing.update(torch.tensor([[0.9, 0.1]]), torch.zeros(1, 2))
    assert nothing.compute() == {**dict.fromkeys((*KEYS, "recall@5"), 0), "n": 1}
    assert len(nothing.curve().precision) == 0
    assert nothing.curve().average_precision == 0
    some = TagMetrics(2)
    some.update(torch.empty(0, 2), torch.empty(0, 2))
    some.update(torch.tensor([[float("inf"), -float("inf")]]), torch.tensor([[1, 0]]))
    assert some.compute()["mAP"] == 100
    some.merge(some)
    assert some.compute()["n"] == 2


def test_the_threshold_itself_is_not_exceeded():
    metrics = TagMetrics(2, threshold=0.25)
    metrics.update(torch.tensor([[0.25, 0.375]]), torch.tensor([[1, 1]]))
    assert metrics.compute()["OR"] == 50


def test_what_was_added_is_kept_when_tensors_and_copies_change():
    scores, target = torch.tensor([[0.9, 0.1]]), torch.tensor([[True, False]])
    metrics = TagMetrics(2)
    metrics.update(scores, target)
    other = copy.deepcopy(metrics)
    scores.zero_()
    target.zero_()
    other.update(torch.tensor([[0.1, 0.9]]), torch.tensor([[1, 0]]))
    assert metrics.compute()["OF1"] == 100
    assert (metrics.compute()["n"], other.compute()["n"]) == (1, 2)


@pytest.mark.parametrize(
    ("scores", "target", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), r"target must be \[2, 3\], got .*\[2, 4\]"),
        (torch.zeros(2, 4), torch.zeros(2, 4), r"scores must be floating point \[n, 3\]"),
        (torch.zeros(3), torch.zeros(3), "scores must be floating point"),
        (torch.zeros(2, 3).long(), torch.zeros(2, 3), "scores must be floating point"),
        (torch.full((1, 3), float("nan")), torch.zeros(1, 3), "got NaN"),
        (torch.zeros(1, 3), torch.full((1, 3), 0.5), "target must be 0 or 1, got 0.5"),
        (torch.zeros(1, 3), torch.full((1, 3), float("nan")), "target must be 0 or 1"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(scores, target, message):
    metrics = TagMetrics(3)
    with pytest.raises(ValueError, match=message):
        metrics.update(scores, target)
    assert metrics.compute()["n"] == 0


def test_bad_choices_are_refused():
    with pytest.raises(ValueError, match="at least 1 class"):
        TagMetrics(0)
    with pytest.raises(ValueError, match="recall_at must be at least 1"):
        TagMetrics(2, recall_at=(0,))
    with pytest.raises(ValueError, match="expected 2 different names"):
        TagMetrics(2, names=("a", "a"))
    with pytest.raises(ValueError, match="same protocol"):
        TagMetrics(2).merge(TagMetrics(2, threshold=0.4))
    with pytest.raises(ValueError, match="no tag 'x'"):
        TagMetrics(2, names=("a", "b")).curve("x")
    with pytest.raises(ValueError, match="below 2"):
        TagMetrics(2).curve(2)
