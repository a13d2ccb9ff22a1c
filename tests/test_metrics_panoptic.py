"""Panoptic quality against the original's recorded values and a slow NumPy reference."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from helpers import load_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from vpd.data import PanopticLabel, Segment
from vpd.metrics import PanopticMetrics


def label(ids, segments) -> PanopticLabel:
    """Segments as (id, class) or (id, class, crowd)."""
    return PanopticLabel(np.asarray(ids, np.int32), tuple(Segment(*own) for own in segments))


def reference(pairs, classes):
    """TP, FP, FN and the sum of IoU of each class, mask by mask."""
    counts = np.zeros((classes, 4))
    for prediction, target in pairs:
        void = target.ids == 0
        matched = set()
        for t in target.segments:
            if t.crowd:
                continue
            mask, found = target.ids == t.id, False
            for p in prediction.segments:
                other = prediction.ids == p.id
                iou = (mask & other).sum() / ((mask | other) & ~(other & void)).sum()
                if p.category == t.category and iou > 0.5:
                    counts[t.category] += (1, 0, 0, iou)
                    matched.add(p.id)
                    found = True
            if not found:
                counts[t.category, 2] += 1
        for p in prediction.segments:
            own = prediction.ids == p.id
            excused = void.copy()
            for t in target.segments:
                if t.crowd and t.category == p.category:
                    excused |= target.ids == t.id
            if p.id not in matched and (own & excused).sum() <= own.sum() / 2:
                counts[p.category, 1] += 1
    return counts


def expected(counts, things):
    result = {}
    for end, chosen in (("", None), ("_things", True), ("_stuff", False)):
        rows = [
            np.array([iou / (tp + (fp + fn) / 2), iou / max(tp, 1), tp / (tp + (fp + fn) / 2)])
            for (tp, fp, fn, iou), thing in zip(counts, things, strict=True)
            if tp + fp + fn and chosen in (None, thing)
        ]  # fmt: skip
        means = 100 * np.mean(rows, axis=0) if rows else (0, 0, 0)
        result |= dict(zip((f"PQ{end}", f"SQ{end}", f"RQ{end}"), map(float, means), strict=True))
        result[f"classes{end}"] = len(rows)
    return result


def random_pair(rng, classes):
    shape = rng.integers(1, 9, 2)
    maps = []
    target = None
    for crowds in (True, False):
        ids = rng.integers(0, 5, shape) * rng.integers(1, 60)
        if target is not None and rng.random() < 0.7:
            ids = np.where(rng.random(shape) < 0.7, target.ids, ids)
        found = [
            (int(i), int(rng.integers(classes)), bool(crowds and rng.random() < 0.3))
            for i in np.unique(ids)
            if i
        ]
        if target is not None:  # mostly of the class that is right
            known = {s.id: s.category for s in target.segments}
            found = [
                (i, known.get(i, c) if rng.random() < 0.8 else c, crowd) for i, c, crowd in found
            ]
        maps.append(label(ids, found))
        target = maps[0]
    return maps[1], maps[0]


def test_matches_original():
    case = load_golden("metrics")
    want = case.info["values"]["panoptic"]
    classes = {row["id"]: i for i, row in enumerate(want["categories"])}
    metrics = PanopticMetrics([bool(row["isthing"]) for row in want["categories"]])

    def of(ids, rows):
        segments = [(s["id"], classes[s["category_id"]], bool(s.get("iscrowd"))) for s in rows]
        return label(ids.numpy(), segments)

    for i, (gt, pred) in enumerate(zip(want["gt"], want["pred"], strict=True)):
        metrics.update(
            of(case.inputs["pan.pred"][i], pred["segments_info"]),
            of(case.inputs["pan.gt"][i], gt["segments_info"]),
        )
    got = metrics.compute(per_class=True)
    for end, name in (("", "All"), ("_things", "Things"), ("_stuff", "Stuff")):
        for key in ("pq", "sq", "rq"):
            assert got[f"{key.upper()}{end}"] == pytest.approx(100 * want[name][key], rel=1e-6)
        assert got[f"classes{end}"] == want[name]["n"]
    for stored, index in classes.items():
        for key, value in want["per_class"][str(stored)].items():
            assert got[f"{key.upper()}/{index}"] == pytest.approx(100 * value, rel=1e-6)
        assert metrics.counts()[index] == pytest.approx(want["per_class_counts"][str(stored)])
    assert got["n"] == 4


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 6))
def test_merged_parts_equal_the_reference(seed, classes, cut):
    rng = np.random.default_rng(seed)
    things = tuple(bool(v) for v in rng.integers(0, 2, classes))
    pairs = [random_pair(rng, classes) for _ in range(6)]
    parts = [PanopticMetrics(things) for _ in range(2)]
    for i, pair in enumerate(pairs):
        parts[i >= cut].update(*pair)
    parts[0].merge(pickle.loads(pickle.dumps(parts[1])))
    counts = reference(pairs, classes)
    for row, (tp, fp, fn, iou) in zip(parts[0].counts(), counts, strict=True):
        assert (row["tp"], row["fp"], row["fn"]) == (tp, fp, fn)
        assert row["iou"] == pytest.approx(iou, rel=1e-12)
    want = expected(counts, things)
    got = parts[0].compute()
    assert got == pytest.approx({**want, "n": 6}, rel=1e-9)


def test_three_hundred_segments():
    rng = np.random.default_rng(1)
    ids = np.repeat(np.repeat(rng.permutation(300).reshape(15, 20) + 1, 9, 0), 7, 1)
    segments = [(int(i), int(i) % 80) for i in range(1, 301)]
    target = label(ids, segments)
    shifted = np.roll(ids, 2, axis=1)
    metrics = PanopticMetrics([True] * 80)
    metrics.update(label(shifted * 1000, [(i * 1000, c) for i, c in segments]), target)
    # Rows of 20 cells of 7 columns go round, so all but 2 columns of each are where they were.
    assert sum(row["tp"] for row in metrics.counts()) == 300
    assert metrics.compute()["PQ"] == pytest.approx(100 * 5 / 9)


def test_nothing_to_find_and_nothing_found():
    keys = [k + e for e in ("", "_things", "_stuff") for k in ("PQ", "SQ", "RQ", "classes")]
    metrics = PanopticMetrics([True, False])
    assert metrics.compute(per_class=True) == dict.fromkeys([*keys, "n"], 0)
    empty = label(np.zeros((3, 4)), [])
    metrics.update(empty, empty)
    assert metrics.compute(per_class=True) == {**dict.fromkeys(keys, 0), "n": 1}
    one = label(np.ones((3, 4)), [(1, 0)])
    metrics.update(empty, one)  # a miss
    assert metrics.counts()[0] == {"tp": 0, "fp": 0, "fn": 1, "iou": 0}
    metrics.update(one, empty)  # all on void: no false alarm
    assert metrics.counts()[0]["fp"] == 0
    metrics.update(one, one)
    got = metrics.compute(per_class=True)
    assert (got["PQ/0"], got["SQ/0"], got["RQ/0"]) == pytest.approx((200 / 3, 100, 200 / 3))
    assert "PQ/1" not in got
    assert (got["classes"], got["classes_stuff"], got["PQ_stuff"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("row", "counts"),
    [  # prediction 9 of class 0 covers the first four pixels
        ([1, 1, 0, 0, 0, 0, 0, 0], (1, 0, 0)),  # void leaves the union
        ([1, 0, 1, 1, 1, 1, 1, 1], (0, 1, 1)),  # 3 of 10 - 1
        ([2, 2, 0, 0, 0, 0, 0, 0], (0, 0, 0)),  # crowd of its class and void
        ([3, 3, 3, 0, 0, 0, 0, 0], (0, 1, 0)),  # crowd of another class
        ([4, 4, 0, 0, 4, 4, 4, 4], (0, 1, 0)),  # exactly half on void is not more than half
        ([4, 0, 0, 0, 4, 4, 4, 4], (0, 0, 0)),
        ([1, 1, 1, 1, 1, 1, 1, 1], (0, 1, 1)),  # IoU of exactly one half is no match
    ],
)
def test_void_and_crowd(row, counts):
    known = {1: (1, 0), 2: (2, 0, True), 3: (3, 1, True), 4: (4, 1)}
    target = label([row], [known[i] for i in sorted(set(row)) if i])
    prediction = label([[9, 9, 9, 9, 0, 0, 0, 0]], [(9, 0)])
    metrics = PanopticMetrics([True, True])
    metrics.update(prediction, target)
    own = metrics.counts()[0]
    assert (own["tp"], own["fp"], own["fn"]) == counts


def test_copies_and_names():
    metrics = PanopticMetrics([True, False], names=("cat", "sky"))
    one = label([[1, 2]], [(1, 0), (2, 1)])
    metrics.update(one, one)
    twin = copy.deepcopy(metrics)
    metrics.update(label([[1, 1]], [(1, 1)]), one)
    assert twin.compute(per_class=True)["PQ/cat"] == 100
    assert metrics.compute(per_class=True)["PQ/cat"] < 100
    with pytest.raises(ValueError, match="both must have the same classes"):
        metrics.merge(PanopticMetrics([True, True]))


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (([[1, 7, 7]], [(1, 0)]), None, r"1 segments listed, or 0, got 7 \(2 pixels"),
        (None, ([[1, 0, -3]], [(1, 0)]), r"or 0, got -3 \(1 pixels"),
        (([[1, 1, 1]], [(1, 0), (2, 1)]), None, "prediction segment 2 is listed but has no pixel"),
        (None, ([[1, 1, 1]], [(1, 0), (2, 1)]), "target segment 2 is listed but has no pixel"),
        (([[1, 1, 1]], [(1, 2)]), None, r"prediction classes must be in \[0, 2\), got 2 of seg"),
        (None, ([[1, 1, 1]], [(1, -1)]), r"target classes must be in \[0, 2\), got -1"),
        (([[1, 1, 1]], [(1, 0), (1, 1)]), None, "expected every id once, got 1 again"),
        (([[0, 0, 0]], [(0, 0)]), None, "ids must be above 0, which is no segment, got 0"),
        (([[1, 1]], [(1, 0)]), None, r"of the label's size \[1, 3\], got \[1, 2\]"),
        (([[1, 1, 1]], [(1, 0, True)]), None, "a prediction cannot have crowd regions"),
        (([1, 1, 1], [(1, 0)]), None, r"must be of the label's size|integer \[H, W\]"),
    ],
)
def test_bad_input_is_explained(prediction, target, message):
    whole = label([[1, 1, 1]], [(1, 0)])
    metrics = PanopticMetrics([True, False])
    with pytest.raises(ValueError, match=message):
        metrics.update(
            *(whole if given is None else label(*given) for given in (prediction, target))
        )
    assert metrics.compute()["n"] == 0
    with pytest.raises(ValueError, match="at least 1 class, got 0"):
        PanopticMetrics([])
    with pytest.raises(ValueError, match="expected 2 different names, got 2, 1 of them"):
        PanopticMetrics([True, True], names=("a", "a"))
