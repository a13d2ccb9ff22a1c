"""Evaluation of panoptic segmenters: equal to what is counted by hand from their predictions."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from dense_toys import Split
from panoptic_toys import segmenter

import vpd
from vpd.data import Instance, PanopticLabel, Segment, tabletop
from vpd.data.masks import encode_mask
from vpd.tasks.evaluate_panoptic import PanopticScores, evaluate_panoptic
from vpd.tasks.panoptic_results import PanopticResult


@pytest.fixture(scope="module")
def scenes():
    return tabletop.panoptic(Split("val", 4))


class Guess:
    """A model that says the labels of other pictures of the set."""

    device = type("Device", (), {"type": "cpu"})
    dtype = "torch.float32"

    def __init__(self, scenes, **changes) -> None:
        self.config = replace(segmenter().config, **changes)
        self.labels = [scene.read_label() for scene in scenes]
        self.asked: list[dict] = []

    def __call__(self, image: np.ndarray, **options) -> PanopticResult:
        self.asked.append(options)
        label = self.labels[len(self.asked) % len(self.labels)]
        names, things = self.config.classes, self.config.things
        segments = tuple(replace(s, score=0.5) for s in label.segments)
        objects = [s for s in segments if things[s.category]]
        instances = tuple(
            Instance(s.category, encode_mask(label.ids == s.id), score=1 / (i + 2))
            for i, s in enumerate(objects)
        )
        classes = label.semantic()
        return PanopticResult(image, label.ids, segments, classes, names, things, instances)


def by_hand(found: list[PanopticLabel], true: list[PanopticLabel], things) -> dict[str, float]:
    """PQ and mIoU, mask by mask."""
    iou, tp, fp, fn = (np.zeros(len(things)) for _ in range(4))
    inter, union = np.zeros(len(things)), np.zeros(len(things))
    for one, other in zip(found, true, strict=True):
        taken = set()
        for a in one.segments:
            hit = 0.0
            for b in other.segments:
                x, y = one.ids == a.id, other.ids == b.id
                own = (x & y).sum() / (x | y).sum()
                if a.category == b.category and own > 0.5:
                    hit = own
                    taken.add(b.id)
            iou[a.category] += hit
            (tp if hit else fp)[a.category] += 1
        for b in other.segments:
            fn[b.category] += b.id not in taken
        for k in range(len(things)):
            x, y = one.semantic() == k, other.semantic() == k
            inter[k] += (x & y).sum()
            union[k] += (x | y).sum()
    there = tp + fp + fn > 0
    pq = iou / np.maximum(tp + (fp + fn) / 2, 1e-9)
    own = np.array(things)
    labelled = np.array([any((o.semantic() == k).any() for o in true) for k in range(len(things))])
    return {
        "PQ": 100 * pq[there].mean(),
        "PQ_things": 100 * pq[there & own].mean(),
        "PQ_stuff": 100 * pq[there & ~own].mean(),
        "mIoU": 100 * (inter / np.maximum(union, 1))[labelled].mean(),
    }


def test_scores_are_those_counted_by_hand(scenes):
    model = Guess(scenes)
    found = evaluate_panoptic(model, scenes, min_score=0.25, per_class=True, progress=False)
    shown = [model.labels[(i + 1) % 4] for i in range(4)]
    for name, value in by_hand(shown, model.labels, model.config.things).items():
        assert found.metrics[name] == pytest.approx(value, rel=1e-6), name
    objects = vpd.metrics.InstanceMetrics(len(model.config.classes))
    again = Guess(scenes)
    for scene in scenes:
        objects.update(again(scene.read_image()).instances, scene.read_instances())
    assert found.metrics["mAP"] == objects.compute()["mAP"]
    assert found.metrics["n"] == 4
    assert {"PQ/ball", "IoU/ball"} <= set(found.metrics)
    assert model.asked[0] == {"words": None, "min_score": 0.25, "min_overlap": None}
    assert found.protocol["test"] == {
        "mode": "whole", "side": 64, "min_score": 0.25, "min_overlap": 0.8,
    }  # fmt: skip
    assert (found.protocol["task"], found.protocol["images"]) == ("panoptic", 4)
    table = found.table()
    assert "PQ_things" in table
    assert any(line.split() == ["n", "4"] for line in table.splitlines())
    assert any(line.startswith("classes ") and "." not in line for line in table.splitlines())


def test_perfect_predictions_and_a_guess_without_looking(scenes):
    model = Guess(scenes)
    model.labels = [model.labels[-1], *model.labels[:-1]]  # each picture's own
    found = evaluate_panoptic(model, scenes, floors=scenes, progress=False).metrics
    for name in ("PQ", "SQ", "RQ", "PQ_things", "PQ_stuff", "mIoU"):
        assert found[name] == pytest.approx(100), name
    assert found["mAP"] == pytest.approx(100)
    truth = np.stack([scene.read_label().semantic() for scene in scenes])
    counts = np.stack([(truth == k).sum(0) for k in range(len(scenes.names))])
    usual = counts.argmax(0)
    guess = PanopticLabel(
        (usual + 1).astype(np.int32), tuple(Segment(int(k) + 1, int(k)) for k in np.unique(usual))
    )
    metrics = vpd.metrics.PanopticMetrics(scenes.things)
    for scene in scenes:
        metrics.update(guess, scene.read_label())
    assert found["floor/PQ"] == pytest.approx(metrics.compute()["PQ"])
    assert 0 < found["floor/PQ"] < 60


def test_counts_travel_between_processes(scenes):
    model = Guess(scenes)
    whole, parts = (PanopticScores(model.config.classes, model.config.things) for _ in range(2))
    other = PanopticScores(model.config.classes, model.config.things)
    for i, scene in enumerate(scenes):
        result = model(scene.read_image())
        for scores in (whole, parts if i % 2 else other):
            scores.update(result, result.classes, scene.read_label())
            scores.instances.update(result.instances, scene.read_instances())
    parts.merge(pickle.loads(pickle.dumps(other)))
    assert parts.compute() == pytest.approx(whole.compute())


def test_a_model_as_it_is(scenes):
    model = segmenter()
    found = evaluate_panoptic(model, scenes, limit=2, progress=False)
    metrics = vpd.metrics.PanopticMetrics(scenes.things)
    for scene in scenes[:2]:
        metrics.update(model(scene.read_image()), scene.read_label())
    assert found.metrics["PQ"] == metrics.compute()["PQ"]
    assert (found.metrics["n"], found.protocol["condition"]) == (2, "classes")
    oracle = evaluate_panoptic(
        segmenter(condition="oracle", attention=()), scenes, limit=2, progress=False
    )
    assert oracle.metrics["oracle"] == 1
    assert "ORACLE" in oracle.table()


def test_other_classes_are_refused(scenes):
    names = tuple(f"class {i}" for i in range(8))
    with pytest.raises(ValueError, match=r"the model has 8 classes \(class 0, .*expected the same"):
        evaluate_panoptic(Guess(scenes, classes=names), scenes, progress=False)
    with pytest.raises(ValueError, match=r"disagree on which of floor, wall, .* are things"):
        evaluate_panoptic(Guess(scenes, things=(True,) * 8), scenes, progress=False)
