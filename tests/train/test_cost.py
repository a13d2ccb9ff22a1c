"""Plans of a training from two counted passes, against passes of other sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny

pytest.importorskip("lightning")
from vpd.cost_time import devices_of
from vpd.train.cost import training_cost
from vpd.train.loop.config import LoopConfig
from vpd.train.refer.config import ReferTrainConfig
from vpd.train.refer.footprint import footprint, refer_step

CONFIG = ReferTrainConfig(
    token_length=16,
    freeze="unet",
    text_adapter=False,
    loop=LoopConfig(steps=100, batch=32, precision="32"),
)


@pytest.fixture(scope="module", autouse=True)
def _small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "vpd.train.refer.footprint.empty_model",
            lambda config: tiny.segmenter(text_adapter=config.text_adapter),
        )
        yield


@pytest.fixture(scope="module")
def kept():
    """The decoder on outputs of the U-Net that are kept."""
    return training_cost(CONFIG, refer_step, 3200)


@pytest.fixture(scope="module")
def tuned():
    """Everything trains, two objects of a picture stand together."""
    changes = {"freeze": "none", "together": 2, "epochs": 3}
    return training_cost(replace(CONFIG, **changes), refer_step, 3210)


def flop(operations, phase="forward"):
    found: dict[str, float] = {}
    for own, times in operations:
        if own.phase == phase:
            found[own.part] = found.get(own.part, 0.0) + times * own.flop
    return {part: value for part, value in found.items() if value}


def test_what_is_kept_costs_once(kept):
    once = flop((own, 1) for own in kept.once)
    assert {"vae", "text", "unet"} == set(once)
    assert set(flop(kept.operations(32))) == {"decoder"}
    # A prediction goes through all of them.
    prediction = flop(kept.prediction.operations)
    assert prediction == once | {"decoder": pytest.approx(flop(kept.operations(1))["decoder"])}
    assert not any(own.part == "unet" for own, _ in kept.operations(32) if own.phase == "backward")


def test_a_trained_unet_costs_in_every_step(tuned):
    assert tuned.together == 2
    assert tuned.steps == 3 * (3210 // 32)
    forward, backward = flop(tuned.operations(8)), flop(tuned.operations(8), "backward")
    assert set(forward) == {"text", "unet", "decoder"}
    assert set(backward) == {"unet", "decoder"}
    assert set(flop((own, 1) for own in tuned.once)) == {"vae"}
    assert backward["decoder"] == pytest.approx(2 * forward["decoder"], rel=0.01)
    update = sum(own.bytes for own, _ in tuned.operations(8) if own.phase == "optimizer")
    assert update > 28 * tuned.trained  # AdamW: weight, gradient and moments read, three written


def test_memory_at_other_sizes_is_that_of_the_footprint(tuned):
    loop = replace(CONFIG.loop, batch=12)
    config = replace(CONFIG, freeze="none", together=2, loop=loop)
    assert tuned.memory(12) == pytest.approx(footprint(config).peak, rel=0.02)


def test_a_plan_takes_as_many_rows_as_fit(tuned):
    (card,) = devices_of(["A100-40"])
    whole = tuned.plan(card)
    assert (whole.rows, whole.passes, whole.sent, whole.waited) == (32, 1, 0, 0)
    assert whole.epoch == pytest.approx(whole.step * 3210 / 32)
    assert whole.total == pytest.approx(whole.before + tuned.steps * whole.step)
    for rows in (16, 2):
        small = replace(card, memory=tuned.memory(rows) * 1.01 / 0.9)
        plan = tuned.plan(small)
        assert (plan.rows, plan.passes) == (rows, 32 // rows)
        assert plan.step > whole.step
    assert tuned.plan(replace(card, memory=tuned.memory(2) * 0.9)).rows is None
    assert replace(tuned, micro_batch=8).plan(card).passes == 4


def test_several_processes_share_a_batch(tuned):
    card = replace(devices_of(["A100-40"])[0], overhead=0)
    one, eight = tuned.plan(card), tuned.plan(card, 8)
    assert eight.rows == 4
    assert eight.sent == 4 * tuned.trained * 2 * 7 / 8
    assert one.step / 8 < eight.step < one.step
    slow = tuned.plan(replace(card, link=1e8), 8)
    assert slow.step == pytest.approx(eight.step - eight.waited + slow.waited)
    assert 0 < slow.waited < slow.sent / 1e8  # the backward hides a part
    with pytest.raises(ValueError, match=r"divides among 3 processes.*batch=32"):
        tuned.plan(card, 3)


def test_epochs_of_a_data_set_of_unknown_size():
    with pytest.raises(ValueError, match=r"expected a data set of published size.*epochs=2"):
        training_cost(replace(CONFIG, epochs=2), refer_step, None)
