"""Depth metrics against the original's recorded values and a NumPy reference."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from helpers import load_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from vpd.metrics import DepthMetrics

NAMES = [
    "delta1", "delta2", "delta3", "abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog"
]  # fmt: skip


def reference(prediction, target, least=1e-3, most=10.0) -> dict[str, float] | None:
    """Of one image without a crop, float64."""
    p = np.where(np.isinf(prediction), most, prediction)
    p = np.where(p > 0, p, least)
    valid = (target > least) & (target < most)
    if not valid.any():
        return None
    p, t = p[valid], target[valid]
    ratio, d = np.maximum(p / t, t / p), np.log(p) - np.log(t)
    values = [(ratio < 1.25**k).mean() for k in (1, 2, 3)]
    values += [(abs(p - t) / t).mean(), ((p - t) ** 2 / t).mean()]
    values += [np.sqrt(((p - t) ** 2).mean()), np.sqrt((d**2).mean())]
    values += [abs(np.log10(p) - np.log10(t)).mean(), np.sqrt((d**2).mean() - d.mean() ** 2 / 2)]
    return dict(zip(NAMES, map(float, values), strict=True))


@pytest.mark.parametrize(
    ("crop", "most", "values"),
    [
        ("nyu_eigen", 10.0, "depth_nyu_crop"),
        ("kitti_garg", 80.0, "depth_kitti_garg_crop"),
        ("kitti_eigen", 80.0, "depth_kitti_eigen_crop"),
    ],
)
def test_matches_original(crop, most, values):
    case = load_golden("metrics")
    prefix, times = ("depth", 10) if crop == "nyu_eigen" else ("depth_kitti", 8)
    prediction, target = (
        case.inputs[f"{prefix}.{name}_low"].repeat_interleave(times, 0).repeat_interleave(times, 1)
        for name in ("pred", "gt")
    )
    prediction[prediction == 1e30], prediction[prediction == -1e30] = torch.inf, torch.nan
    metrics = DepthMetrics(max_depth=most, crop=crop)
    metrics.update(prediction[None], target[None])
    got, want = metrics.compute(), case.info["values"][values]
    for name in NAMES:
        assert got[name] == pytest.approx(want[name.replace("delta", "d")], rel=1e-5), name
    assert (got["n"], got["skipped"]) == (1, 0)


def images(rng, n, shape=(70, 5)):
    target = rng.uniform(-1, 12, (n, *shape))
    prediction = target * np.exp(rng.normal(0, 0.3, target.shape)) + rng.normal(0, 0.2)
    odd = rng.random(target.shape)
    prediction[odd < 0.02], prediction[odd > 0.98] = np.inf, np.nan
    prediction[(odd > 0.5) & (odd < 0.51)] = -np.inf
    target[(odd > 0.6) & (odd < 0.62)], target[(odd > 0.7) & (odd < 0.72)] = np.nan, np.inf
    return prediction, target


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(0, 5))
def test_merge_equals_whole(seed, cut, blind):
    prediction, target = images(np.random.default_rng(seed), 5)
    target[blind:] = 0
    parts = [DepthMetrics(crop="none") for _ in range(2)]
    parts[0].update(prediction[:cut], target[:cut])
    for p, t in zip(prediction[cut:], target[cut:], strict=True):
        parts[1].update(p[None], t[None])
    travelled = [pickle.loads(pickle.dumps(part)) for part in parts]
    parts[0].merge(travelled[1])
    travelled[1].merge(travelled[0])
    got = parts[0].compute()
    assert got == pytest.approx(travelled[1].compute(), rel=1e-13)
    each = [r for p, t in zip(prediction, target, strict=True) if (r := reference(p, t))]
    want = {name: np.mean([r[name] for r in each]) if each else 0.0 for name in NAMES}
    assert got == pytest.approx({**want, "n": blind, "skipped": 5 - blind}, rel=1e-11)


def test_crops_are_rows_and_columns():
    """A map that is right inside of the crop and wrong outside."""
    for crop, size, rows, columns in (
        ("nyu_eigen", (480, 640), (45, 471), (41, 601)),
        ("kitti_kb", (375, 1242), (23, 375), (13, 1229)),
        ("kitti_kb", (352, 1216), (0, 352), (0, 1216)),
        ("kitti_garg", (375, 1242), (153, 371), (44, 1197)),
        ("kitti_eigen", (375, 1242), (124, 342), (44, 1197)),
        ("none", (3, 5), (0, 3), (0, 5)),
    ):
        target = torch.full((1, *size), 2.0)
        prediction = torch.full_like(target, 8.0)
        prediction[:, slice(*rows), slice(*columns)] = 2.0
        metrics = DepthMetrics(crop=crop)
        metrics.update(prediction, target)
        assert metrics.compute()["rmse"] == 0, crop
        for y, x in ((rows[0], columns[0]), (rows[1] - 1, columns[1] - 1)):  # all of it counts
            broken = prediction.clone()
            broken[:, y, x] = 8.0
            metrics = DepthMetrics(crop=crop)
            metrics.update(broken, target)
            assert metrics.compute()["rmse"] > 0, crop


def test_range_is_open():
    """In the precision of the depths: the float32 next to 0.001 is above it as float64 alone."""
    target = torch.tensor([1e-3, 10.0, 0.0011, 9.999]).view(1, 2, 2)
    prediction = torch.full((1, 2, 2), 5.0)
    for dtype, inside in ((torch.float32, [2, 3]), (torch.float64, [0, 2, 3])):
        metrics = DepthMetrics(crop="none")
        metrics.update(prediction, target.to(dtype))
        counted = target.flatten()[inside].double().numpy()
        want = reference(np.full(len(inside), 5.0), counted)
        assert metrics.compute() == pytest.approx({**want, "n": 1, "skipped": 0}, rel=1e-11)


def test_ratios_are_strictly_below():
    metrics = DepthMetrics(crop="none")
    metrics.update(torch.tensor([[[1.25, 1.5625, 1.0, 1.0]]]), torch.tensor([[[1.0, 1, 1.25, 1]]]))
    got = metrics.compute()
    assert (got["delta1"], got["delta2"], got["delta3"]) == (0.25, 0.75, 1.0)


def test_right_and_odd_predictions():
    target = torch.full((1, 4, 4), 2.5)
    metrics = DepthMetrics(crop="none")
    metrics.update(target.bfloat16(), target)
    perfect = dict.fromkeys(NAMES, 0.0) | {"delta1": 1, "delta2": 1, "delta3": 1}
    assert metrics.compute() == {**perfect, "n": 1, "skipped": 0}
    for odd, stands_for in ((torch.nan, 1e-3), (0.0, 1e-3), (-3.0, 1e-3), (torch.inf, 10.0)):
        found = []
        for value in (odd, stands_for):
            metrics = DepthMetrics(crop="none")
            metrics.update(torch.full((1, 4, 4), value, dtype=torch.double), target.double())
            found.append(metrics.compute())
        assert found[0] == found[1]
    metrics = DepthMetrics(crop="none")
    metrics.update(torch.full((1, 4, 4), 50.0), target)  # not cut to 10
    assert metrics.compute()["rmse"] == 47.5


def test_empty_cases():
    zeros = dict.fromkeys([*NAMES, "n", "skipped"], 0)
    metrics = DepthMetrics(crop="none")
    assert metrics.compute() == zeros
    metrics.update(torch.ones(0, 3, 3), torch.ones(0, 3, 3))
    assert metrics.compute() == zeros
    metrics.update(torch.ones(2, 3, 3), torch.zeros(2, 3, 3))
    assert metrics.compute() == {**zeros, "skipped": 2}


def test_protocol():
    metrics = DepthMetrics(max_depth=80.0, crop="kitti_garg")
    assert metrics.protocol() == {"crop": "kitti_garg", "min_depth": 1e-3, "max_depth": 80.0}
    for other in (DepthMetrics(max_depth=80.0), DepthMetrics(crop="kitti_garg")):
        with pytest.raises(ValueError, match="both need the same protocol"):
            metrics.merge(other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m.update(x[0], x[0]), r"\[n, H, W\], got float \[480, 640\]"),
        (lambda m, x: m.update(x.int(), x), "prediction must be floating point"),
        (lambda m, x: m.update(x, x.int()), "target must be floating point"),
        (lambda m, x: m.update(x, x[:, 1:]), r"\[1, 480, 640\], got float \[1, 479, 640\]"),
        (lambda m, x: m.update(x[:, 1:], x[:, 1:]), "of 480 x 640, got 479 x 640"),
        (lambda m, x: DepthMetrics(crop="kitti_kb").update(x, x), "1216 at least, got 480 x 640"),
        (lambda m, x: DepthMetrics(crop="eigen"), "'kitti_eigen' or 'none', got 'eigen'"),
        (lambda m, x: DepthMetrics(min_depth=0.0), "0 < min_depth < max_depth, got 0 and 10"),
        (lambda m, x: DepthMetrics(max_depth=float("inf")), "got 0.001 and inf"),
        (lambda m, x: DepthMetrics(2.0, 1.0), "got 2 and 1"),
    ],
)
def test_bad_input_is_explained(call, message):
    metrics = DepthMetrics()
    with pytest.raises(ValueError, match=message):
        call(metrics, torch.ones(1, 480, 640))
    assert metrics.compute()["n"] == metrics.compute()["skipped"] == 0
