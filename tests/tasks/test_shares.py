"""Counts of units, made one by one and anywhere, add up to those of one process to the last bit."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import odise_checkpoints
import pytest
import tiny
import torch

import vpd
from vpd.data import tabletop
from vpd.tasks.evaluate import evaluate_refer
from vpd.tasks.evaluate_dense import evaluate_depth, evaluate_semantic
from vpd.tasks.evaluate_open import evaluate_open
from vpd.tasks.evaluate_panoptic import evaluate_panoptic
from vpd.tasks.shares import Spread, Unit, count_unit, own_part, together
from vpd.vocabulary import label_set

SCENES = 5


def refer():
    model = tiny.segmenter()
    tiny.balance(model)
    return model


def depth():
    torch.manual_seed(0)
    parts = {name: tiny.PARTS[name] for name in ("unet", "vae", "scale_factor")}
    options = {"embed_dim": 8, "num_filters": (8, 8), "norm_groups": 4, "image_size": 64}
    model = vpd.DepthEstimator(vpd.DepthConfig(**parts, **options, scenes=("tabletop",)))
    with torch.no_grad():
        for parameter in model.head.parameters():
            if not parameter.any():
                parameter.normal_()
    return model.eval()


def scorer(task):
    """Scores a model of the task with a group, and the number of its units."""
    if task == "refer":
        scenes = tiny.val_scenes(SCENES)
        model, options = refer(), {"batch": 4, "text_blind": True, "progress": False}
        return lambda group: evaluate_refer(model, scenes, group=group, **options)
    scenes = tabletop.load_split("val", workers=1, limit=SCENES, progress=False, depth=True)
    evaluate, model, samples, options = {
        "semantic": (evaluate_semantic, lambda: vpd.load("vpd-mini-semantic"), tabletop.semantic,
                     {"mode": "whole", "per_class": True}),
        "panoptic": (evaluate_panoptic, lambda: vpd.load("vpd-mini-panoptic"), tabletop.panoptic,
                     {"per_class": True}),
        "open-panoptic": (evaluate_open, odise_checkpoints.segmenter, tabletop.panoptic,
                          {"vocabulary": label_set("tabletop_shapes"), "shuffled": True,
                           "without_clip": True}),
        "depth": (evaluate_depth, depth, tabletop.depth, {"floors": tabletop.depth(scenes)}),
    }[task]  # fmt: skip
    network, pictures = model(), samples(scenes)
    return lambda group: evaluate(network, pictures, group=group, progress=False, **options)


@pytest.mark.parametrize("task", ["refer", "semantic", "panoptic", "open-panoptic", "depth"])
def test_units_add_up_to_one_process_to_the_last_bit(task):
    score = scorer(task)
    whole = score(None)
    units = []

    def count(total):
        units.append(total)
        made = {index: pickle.dumps(count_unit(score, index)) for index in reversed(range(total))}
        return (pickle.loads(made[index]) for index in range(total))

    spread = score(Spread(count))
    assert units[0] >= SCENES
    assert spread.metrics == whole.metrics
    assert spread.protocol == whole.protocol
    assert spread.seconds_per_image > 0
    assert any(value not in (0, 100) for value in whole.metrics.values())


class Sum(SimpleNamespace):
    def merge(self, other):
        self.value += other.value


def test_parts():
    group = SimpleNamespace(rank=lambda: 1, size=lambda: 3)
    assert own_part(range(10), group) == range(1, 10, 3)
    assert own_part(range(10), None) == range(10)
    assert own_part([3, 4, 5], Unit(1)) == [4]
    assert own_part([3, 4, 5], Unit(7)) == []
    counts = [([Sum(value=i)], 0.5) for i in range(4)]
    spread = Spread(lambda units: counts[:units])
    assert own_part(range(3), spread) == range(0)
    (total,), seconds = together([Sum(value=10)], 1.0, spread)
    assert (total.value, seconds) == (13, 2.5)
    assert together([5], 1.0, None) == ([5], 1.0)
    with pytest.raises(AssertionError, match="never came together"):
        count_unit(lambda group: None, 0)
