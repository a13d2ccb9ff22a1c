"""Streaming metrics against recorded values, a NumPy reference, and themselves merged."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from helpers import load_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from vpd.metrics import PickScore, ReferMetrics


def refer_reference(predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    ious, inter, union = [], 0, 0
    for p, t in zip(predictions != 0, targets != 0, strict=True):
        i, u = int((p & t).sum()), int((p | t).sum())
        inter, union = inter + i, union + u
        ious.append(i / u if u else 0.0)
    result = {"oIoU": 100 * inter / union if union else 0.0, "mIoU": 100 * float(np.mean(ious))}
    for x in (0.5, 0.6, 0.7, 0.8, 0.9):
        result[f"P@{x}"] = 100 * float(np.mean([iou >= x for iou in ious]))
    return {**result, "n": len(ious)}


def test_refer_matches_original():
    case = load_golden("metrics")
    metrics = ReferMetrics()
    for i, target in enumerate(case.inputs["refer.target"]):
        prediction = case.inputs[f"refer.pred{i}"]
        metrics.update(prediction, target.expand_as(prediction))
    got, want = metrics.compute(), case.info["values"]["refer"]
    assert got["oIoU"] == pytest.approx(want["overall_IoU"], rel=1e-6)
    assert got["mIoU"] == pytest.approx(want["mean_IoU"], rel=1e-6)
    for x in (0.5, 0.6, 0.7, 0.8, 0.9):
        assert got[f"P@{x}"] == pytest.approx(want[f"precision@{x}"], rel=1e-6)
    assert got["n"] == len(want["intersection_union"])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(0, 9), st.floats(0, 1))
def test_refer_merge_equals_whole(seed, n, cut, density):
    rng = np.random.default_rng(seed)
    predictions, targets = (rng.random((2, n, 3, 4)) < density).astype(np.uint8) * 255
    parts = [ReferMetrics(), ReferMetrics()]
    for part, rows in zip(parts, (slice(None, cut), slice(cut, None)), strict=True):
        part.update(predictions[rows], targets[rows] != 0)
    parts[1].merge(pickle.loads(pickle.dumps(parts[0])))
    assert parts[1].compute() == pytest.approx(refer_reference(predictions, targets), rel=1e-12)


def test_refer_thresholds_are_inclusive():
    target = torch.zeros(1, 1, 10, dtype=torch.bool)
    target[..., :] = True
    for covered in range(5, 11):
        metrics = ReferMetrics()
        prediction = torch.arange(10).view(1, 1, 10) < covered
        metrics.update(prediction, target)
        for x in (0.5, 0.6, 0.7, 0.8, 0.9):
            assert metrics.compute()[f"P@{x}"] == 100 * (covered >= round(10 * x))


def test_refer_empty_cases():
    metrics = ReferMetrics()
    keys = ["oIoU", "mIoU", "P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9", "n"]
    assert metrics.compute() == dict.fromkeys(keys, 0)
    nothing = torch.zeros(2, 3, 3, dtype=torch.bool)
    metrics.update(nothing[:0], nothing[:0])
    assert metrics.compute()["n"] == 0
    metrics.update(nothing, nothing)
    assert metrics.compute() == {**dict.fromkeys(keys, 0), "n": 2}


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (torch.zeros(3, 3).bool(), torch.zeros(3, 3).bool(), r"\[n, H, W\], got bool \[3, 3\]"),
        (torch.zeros(1, 3, 3), torch.zeros(1, 3, 3).bool(), "prediction must be bool or uint8"),
        (torch.zeros(1, 3, 3).bool(), torch.zeros(1, 3, 3).long(), "target must be bool or uint8"),
        (torch.zeros(2, 3, 3).bool(), torch.zeros(1, 3, 3).bool(), r"\[2, 3, 3\], got bool \[1"),
    ],
)
def test_refer_bad_input_is_explained(prediction, target, message):
    metrics = ReferMetrics()
    with pytest.raises(ValueError, match=message):
        metrics.update(prediction, target)
    assert metrics.compute()["n"] == 0


def pick_reference(logits: np.ndarray, instances: np.ndarray, min_pixels: int) -> int | None:
    means = {
        k: logits[instances == k].mean()
        for k in range(1, 256)
        if (instances == k).sum() >= min_pixels
    }
    return max(means, key=means.get) if means else None


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(0, 6))
def test_pick_equals_reference_and_merges(seed, min_pixels, cut):
    rng = np.random.default_rng(seed)
    parts, hits = [PickScore(min_pixels), PickScore(min_pixels)], 0
    for i in range(6):
        logits = rng.normal(size=(8, 9)).astype(np.float32)
        instances = rng.integers(0, 5, (8, 9)).astype(np.uint8)
        target = int(rng.choice(instances[instances > 0]))
        parts[i >= cut].update(logits, instances, target)
        hits += pick_reference(logits, instances, min_pixels) == target
    parts[0].merge(copy.deepcopy(parts[1]))
    assert parts[0].compute() == pytest.approx({"pick": 100 * hits / 6, "n": 6})


def test_pick_ignores_the_background_and_small_objects():
    instances = torch.zeros(10, 10, dtype=torch.uint8)
    instances[:5, :5], instances[6:, :], instances[5, :3] = 1, 2, 255
    logits = torch.full((10, 10), 9.0)  # the background is hottest
    logits[instances == 1], logits[instances == 2], logits[instances == 255] = -1.0, -2.0, 5.0
    score = PickScore()
    score.update(logits, instances, 1)
    assert score.compute() == {"pick": 100, "n": 1}
    score.update(logits, instances, 255)  # 3 pixels: no candidate, hence missed
    assert score.compute() == {"pick": 50, "n": 2}
    fine = PickScore(min_pixels=3)
    fine.update(logits.bfloat16(), instances, 255)
    assert fine.compute() == {"pick": 100, "n": 1}
    assert PickScore().compute() == {"pick": 0, "n": 0}


def test_pick_bad_input_is_explained():
    score, logits = PickScore(min_pixels=1), torch.zeros(4, 4)
    instances = torch.ones(4, 4, dtype=torch.uint8)
    for call, message in (
        (lambda: score.update(logits[None], instances, 1), r"\[H, W\], got float \[1, 4, 4\]"),
        (lambda: score.update(logits, instances[:3], 1), r"uint8 \[4, 4\], got unsigned char \[3"),
        (lambda: score.update(logits, instances.int(), 1), "must be uint8"),
        (lambda: score.update(logits, instances, 0), r"\[1, 255\], got 0"),
        (lambda: score.update(logits, instances, 2), "no pixel of instances is 2"),
        (lambda: score.update(logits * float("nan"), instances, 1), "NaN on object 1"),
        (lambda: score.merge(PickScore()), "min_pixels, got 1 and 15"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert score.compute()["n"] == 0
