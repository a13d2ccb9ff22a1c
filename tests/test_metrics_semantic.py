"""Semantic metrics against the original's recorded values, torchmetrics and a NumPy reference."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from helpers import load_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from vpd.metrics import SemanticMetrics


def reference(pairs, classes, variant, ignore=255) -> dict[str, float]:
    """The definitions, from sets of pixels."""
    predicted = np.concatenate([p[t != ignore].ravel() for p, t in pairs]).astype(np.int64)
    labelled = np.concatenate([t[t != ignore].ravel() for _, t in pairs]).astype(np.int64)
    result: dict[str, float] = {}
    ious, dices, accuracies, weighted = [], [], [], 0.0
    for c in range(classes):
        p, t = predicted == c, labelled == c
        both, either = int((p & t).sum()), int((p | t).sum())
        if t.any():
            accuracies.append(both / t.sum())
            weighted += t.mean() * both / either
        if either:
            result[f"IoU/{c}"] = 100 * both / either
        if t.any() or (variant == "mmseg" and either):
            ious.append(both / either)
            dices.append(2 * both / (p.sum() + t.sum()))

    def mean(values):
        return 100 * float(np.mean(values)) if len(values) else 0.0

    return {
        "mIoU": mean(ious), "mAcc": mean(accuracies), "aAcc": mean(predicted == labelled),
        "mDice": mean(dices), "fwIoU": 100 * weighted,
        "n": sum(1 if t.ndim == 2 else len(t) for _, t in pairs),
        **result,
    }  # fmt: skip


def test_matches_original():
    case = load_golden("metrics")
    prediction, target = case.inputs["sem.pred"], case.inputs["sem.gt"]
    want = case.info["values"]["semantic"]
    metrics = SemanticMetrics(6)
    for p, t in zip(prediction, target, strict=True):
        metrics.update(p, t)
    got = metrics.compute(per_class=True)
    assert got["aAcc"] == pytest.approx(100 * want["aAcc"], rel=1e-6)
    assert got["mIoU"] == pytest.approx(100 * want["mIoU_nanmean"], rel=1e-6)
    assert got["mAcc"] == pytest.approx(100 * want["mAcc_nanmean"], rel=1e-6)
    dice = [value for value in want["Dice"] if value is not None]
    assert got["mDice"] == pytest.approx(100 * np.mean(dice), rel=1e-6)
    for c, iou in enumerate(want["IoU"]):
        assert got.get(f"IoU/{c}") == (None if iou is None else pytest.approx(100 * iou, rel=1e-6))
    whole = SemanticMetrics(6)
    whole.update(prediction, target)
    assert whole.compute(per_class=True) == got


def test_matches_original_where_a_class_is_never_labelled():
    case = load_golden("metrics")
    target = case.inputs["sem.gt"].int()
    target = torch.where((target == 0) | (target == 255), 255, target - 1)
    want = case.info["values"]["semantic_reduce_zero_label"]
    for variant in ("mmseg", "d2"):
        metrics = SemanticMetrics(6, variant=variant)
        metrics.update(case.inputs["sem.pred"], target)
        got = metrics.compute(per_class=True)
        for c, iou in enumerate(want["IoU"]):
            expected = None if iou is None else pytest.approx(100 * iou, rel=1e-6)
            assert got.get(f"IoU/{c}") == expected
        assert got["aAcc"] == pytest.approx(100 * want["aAcc"][0], rel=1e-6)
        accuracies = [value for value in want["Acc"] if value is not None]
        assert got["mAcc"] == pytest.approx(100 * np.mean(accuracies), rel=1e-6)
        counted = [
            iou
            for iou, accuracy in zip(want["IoU"], want["Acc"], strict=True)
            if iou is not None and (variant == "mmseg" or accuracy is not None)
        ]
        assert got["mIoU"] == pytest.approx(100 * np.mean(counted), rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(0, 5),
    st.sampled_from(["mmseg", "d2"]),
)
def test_merge_equals_whole(seed, classes, cut, variant):
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(5):
        shape = rng.integers(1, 7, 2)
        target = rng.integers(0, classes, shape).astype(np.uint8)
        target[rng.random(shape) < 0.3] = 255
        pairs.append((rng.integers(0, classes, shape).astype(np.int32), target))
    parts = [SemanticMetrics(classes, variant=variant) for _ in range(2)]
    for index, pair in enumerate(pairs):
        parts[index >= cut].update(*pair)
    travelled = [pickle.loads(pickle.dumps(part)) for part in parts]
    parts[0].merge(travelled[1])
    travelled[1].merge(travelled[0])
    got = parts[0].compute(per_class=True)
    assert got == travelled[1].compute(per_class=True)  # to the last bit, in any order
    assert got == pytest.approx(reference(pairs, classes, variant), rel=1e-12)


def test_confusion_is_that_of_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.classification")
    prediction = torch.randint(0, 150, (2, 300, 257))
    target = torch.where(torch.rand(2, 300, 257) < 0.6, prediction, torch.randint(0, 150, (1,)))
    target[:, :7] = 255
    metrics = SemanticMetrics(150)
    metrics.update(prediction.short(), target.byte())
    want = functional.multiclass_confusion_matrix(prediction, target, 150, ignore_index=255)
    assert torch.equal(metrics.confusion()[:, :150], want)
    assert not metrics.confusion()[:, 150].any()
    want = functional.multiclass_jaccard_index(
        prediction, target, 150, average="micro", ignore_index=255
    )
    tp, pixels = int(metrics.confusion().diagonal().sum()), int((target != 255).sum())
    assert tp / (2 * pixels - tp) == pytest.approx(float(want))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "int64"])
def test_dtypes_and_layouts(dtype):
    prediction, target = np.random.default_rng(0).integers(0, 4, (2, 3, 8, 6))
    metrics = SemanticMetrics(4, ignore_index=3)
    metrics.update(prediction.astype(dtype), target.astype(dtype))
    metrics.update(
        torch.from_numpy(prediction.transpose(0, 2, 1).copy()).transpose(1, 2),
        np.repeat(target, 2, axis=2)[:, :, ::2],
    )
    assert metrics.compute()["n"] == 6
    want = reference([(prediction, target)] * 2, 3, "mmseg", ignore=3)
    got = metrics.compute()
    assert got["aAcc"] == pytest.approx(want["aAcc"])
    assert got["mAcc"] == pytest.approx(want["mAcc"])


def test_predicted_ignore_index_is_a_miss():
    metrics = SemanticMetrics(2)
    metrics.update(torch.tensor([[0, 255, 1, 255]]), torch.tensor([[0, 0, 1, 255]]))
    got = metrics.compute(per_class=True)
    assert (got["IoU/0"], got["IoU/1"], got["aAcc"]) == pytest.approx((50, 100, 200 / 3))
    assert metrics.confusion().tolist() == [[1, 0, 1], [0, 1, 0]]


def test_empty_cases():
    keys = ["mIoU", "mAcc", "aAcc", "mDice", "fwIoU", "n"]
    metrics = SemanticMetrics(3)
    assert metrics.compute(per_class=True) == dict.fromkeys(keys, 0)
    nothing = torch.zeros(0, 4, 4, dtype=torch.uint8)
    metrics.update(nothing, nothing)
    assert metrics.compute()["n"] == 0
    ignored = torch.full((2, 4, 4), 255, dtype=torch.uint8)
    metrics.update(torch.zeros_like(ignored), ignored)
    assert metrics.compute(per_class=True) == {**dict.fromkeys(keys, 0), "n": 2}


def test_copies_are_their_own():
    metrics = SemanticMetrics(2, names=("floor", "wall"))
    ones = torch.ones(1, 2, 2, dtype=torch.uint8)
    metrics.update(ones, ones)
    twin = copy.deepcopy(metrics)
    metrics.update(ones, 0 * ones)
    assert twin.compute(per_class=True)["IoU/wall"] == 100
    metrics.confusion().zero_()
    assert metrics.compute(per_class=True)["IoU/wall"] == 50


def test_protocol():
    metrics = SemanticMetrics(7, ignore_index=0, variant="d2")
    assert metrics.protocol() == {"variant": "d2", "num_classes": 7, "ignore_index": 0}
    for other in (SemanticMetrics(7, 0), SemanticMetrics(6, 0, "d2"), SemanticMetrics(7, 1, "d2")):
        with pytest.raises(ValueError, match="both need the same protocol"):
            metrics.merge(other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m.update(x[0, 0], x[0, 0]), r"integer \[H, W\] or \[n, H, W\], got long"),
        (lambda m, x: m.update(x.float(), x), "prediction must be integer"),
        (lambda m, x: m.update(x.bool(), x), "prediction must be integer"),
        (lambda m, x: m.update(x, x.float()), "target must be integer"),
        (lambda m, x: m.update(x, x[0]), r"target must be integer \[2, 3, 4\], got long int \[3"),
        (lambda m, x: m.update(x, x + 5), r"target classes must be in \[0, 5\) or 255 .* got 5"),
        (lambda m, x: m.update(x, x - 1), r"target classes must be in .*, got -1"),
        (lambda m, x: m.update(x + 5, x), r"prediction classes must be in .*, got 5"),
        (lambda m, x: SemanticMetrics(0), "at least 1 class, got 0"),
        (lambda m, x: SemanticMetrics(2, variant="coco"), "'mmseg' or 'd2', got 'coco'"),
        (lambda m, x: SemanticMetrics(2, names=["a"]), "2 different names, got 1"),
        (lambda m, x: SemanticMetrics(2, names=["a", "a"]), "got 2, 1 of them different"),
    ],
)
def test_bad_input_is_explained(call, message):
    metrics, labels = SemanticMetrics(5), torch.zeros(2, 3, 4, dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        call(metrics, labels)
    assert metrics.compute()["n"] == 0
    assert not metrics.confusion().any()
