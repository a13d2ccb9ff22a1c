"""Mask AP against pycocotools run on files."""

from __future__ import annotations

import contextlib
import io
import json
import pickle

import numpy as np
import pytest

from vpd.data import Instance
from vpd.data.masks import encode_mask
from vpd.metrics import InstanceMetrics

SIZE = (140, 160)


def ellipse(rng, size=SIZE, at=None):
    height, width = size
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    a, b = rng.uniform(4, 70, 2)
    if at is not None:
        y, x, a, b = np.array(at) * rng.uniform(0.85, 1.15, 4)
    rows, columns = np.mgrid[:height, :width]
    return ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 <= 1, (y, x, a, b)


def scenes(seed=0, count=12, classes=4):
    """Objects and predictions, most of which are near one."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        target, predictions = [], []
        for _ in range(rng.integers(0, 9)):
            category = int(rng.integers(classes - 1))  # of the last class there is no object
            mask, place = ellipse(rng)
            if not mask.any():
                continue
            crowd = bool(rng.random() < 0.15)
            area = float(mask.sum() * rng.uniform(0.8, 1.2))
            target.append(Instance(category, encode_mask(mask), crowd=crowd, area=area))
            for _ in range(rng.integers(0, 4)):
                near, _ = ellipse(rng, at=place)
                own = category if rng.random() < 0.8 else int(rng.integers(classes))
                predictions.append(Instance(own, encode_mask(near), score=float(rng.random())))
        for _ in range(rng.integers(0, 3)):
            stray = encode_mask(ellipse(rng)[0])
            predictions.append(Instance(int(rng.integers(classes)), stray, score=0.3))
        found.append((predictions, target))
    return found


def from_files(folder, pictures, classes=4):
    """What pycocotools' own command says."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, results = [], []
    for i, (predictions, target) in enumerate(pictures):
        for one in target:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": one.category,
                 "segmentation": one.mask, "area": one.area, "iscrowd": int(one.crowd)}
            )  # fmt: skip
        for one in predictions:
            results.append(
                {"image_id": i, "category_id": one.category, "segmentation": one.mask,
                 "score": one.score}
            )  # fmt: skip
    height, width = SIZE
    tables = {
        "images": [{"id": i, "height": height, "width": width} for i in range(len(pictures))],
        "annotations": annotations,
        "categories": [{"id": i} for i in range(classes)],
    }
    (folder / "objects.json").write_text(json.dumps(tables))
    (folder / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "objects.json"))
        found = COCOeval(truth, truth.loadRes(str(folder / "results.json")), "segm")
        found.evaluate()
        found.accumulate()
        found.summarize()
    return found.stats


def test_equals_pycocotools_on_files(tmp_path):
    pictures = scenes()
    whole = InstanceMetrics(4, names=("a", "b", "c", "d"))
    parts = [InstanceMetrics(4) for _ in range(3)]
    for i, picture in enumerate(pictures):
        whole.update(*picture)
        parts[i % 3].update(*picture)
    want = from_files(tmp_path, pictures)
    got = whole.compute(per_class=True)
    assert 5 < got["mAP"] < 95
    for key, value in zip(("mAP", "AP50", "AP75", "APs", "APm", "APl"), want, strict=False):
        assert got[key] == pytest.approx(100 * value, rel=1e-12), key
    assert got["n"] == 12
    names = [key for key in got if key.startswith("AP/")]
    assert names == ["AP/a", "AP/b", "AP/c"]
    assert np.mean([got[name] for name in names]) == pytest.approx(got["mAP"])
    # Scores of all predictions differ but those of strays, so the order of parts hardly counts.
    merged = parts[2]
    for part in parts[:2]:
        merged.merge(pickle.loads(pickle.dumps(part)))
    assert merged.compute()["mAP"] == pytest.approx(got["mAP"], abs=0.5)
    assert merged.compute()["n"] == 12


def test_a_hundred_predictions_count():
    mask = encode_mask(np.ones((8, 8), bool))
    none = encode_mask(np.eye(8, dtype=bool))
    wrong = [Instance(0, none, score=0.9) for _ in range(100)]
    metrics = InstanceMetrics(1)
    metrics.update([*wrong, Instance(0, mask, score=0.1)], [Instance(0, mask)])
    assert metrics.compute()["mAP"] == 0
    metrics = InstanceMetrics(1)
    metrics.update([*wrong[1:], Instance(0, mask, score=0.1)], [Instance(0, mask)])
    assert metrics.compute()["mAP"] == pytest.approx(1)  # one in a hundred


def test_areas_as_the_data_set_counts_them():
    mask = encode_mask(np.ones((20, 20), bool))
    metrics = InstanceMetrics(2)
    metrics.update([Instance(1, mask, score=0.5)], [Instance(1, mask, area=5000.0)])
    got = metrics.compute()
    assert (got["APs"], got["APm"], got["APl"]) == pytest.approx((0, 100, 0))


def test_empty_cases():
    keys = ("mAP", "AP50", "AP75", "APs", "APm", "APl")
    metrics = InstanceMetrics(2)
    assert metrics.compute(per_class=True) == {**dict.fromkeys(keys, 0), "n": 0}
    mask = encode_mask(np.ones((4, 4), bool))
    metrics.update([], [])
    metrics.update([Instance(0, mask, score=1.0)], [])
    metrics.update([], [Instance(0, mask, crowd=True)])
    assert metrics.compute(per_class=True) == {**dict.fromkeys(keys, 0), "n": 3}
    metrics.update([], [Instance(0, mask)])
    assert metrics.compute(per_class=True)["AP/0"] == 0


@pytest.mark.parametrize(
    ("predictions", "target", "message"),
    [
        ([(0, 8, None)], [], "expected a score of every prediction, got None"),
        ([(0, 8, float("nan"))], [], "got nan"),
        ([(2, 8, 0.5)], [], r"classes must be in \[0, 2\), got 2"),
        ([], [(-1, 8, None)], r"classes must be in \[0, 2\), got -1"),
        ([(0, 8, 0.5)], [(0, 9, None)], r"masks of one size, got \[\[8, 4\], \[9, 4\]\]"),
    ],
)
def test_bad_input_is_explained(predictions, target, message):
    def made(rows):
        return [Instance(c, encode_mask(np.ones((h, 4), bool)), score=s) for c, h, s in rows]

    metrics = InstanceMetrics(2)
    with pytest.raises(ValueError, match=message):
        metrics.update(made(predictions), made(target))
    assert metrics.compute()["n"] == 0
    with pytest.raises(ValueError, match="both need the same classes, got 2 and 3"):
        metrics.merge(InstanceMetrics(3))
    with pytest.raises(ValueError, match="at least 1 class, got 0"):
        InstanceMetrics(0)
    with pytest.raises(ValueError, match="expected 2 different names"):
        InstanceMetrics(2, names=["a"])
