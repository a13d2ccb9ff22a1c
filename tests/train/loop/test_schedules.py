"""Learning rates by step, against PyTorch's schedulers and step-by-step twins of the originals."""

from __future__ import annotations

import pytest
import torch

from vpd.train.loop.schedules import ScheduleConfig, multi_step, poly, triangle, warmed_up

LR = 8e-5


def rates(make, steps: int) -> list[float]:
    """Of a scheduler of PyTorch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("power", [1.0, 0.9])
def test_poly_is_pytorchs(power):
    want = rates(lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 40, power), 45)
    assert [poly(step, 40, power) for step in range(45)] == pytest.approx(want, abs=1e-12)


def test_multi_step_is_pytorchs():
    want = rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [7, 20], 0.3), 30)
    assert [multi_step(step, [7, 20], 0.3) for step in range(30)] == pytest.approx(want)


def mmcv_rate(step: int) -> float:
    """mmcv's PolyLrUpdaterHook with min_lr=0, warmup="linear", warmup_ratio=1e-6."""
    base, least, warmup, ratio, total = LR, 0.0, 1500, 1e-6, 80000
    regular = (base - least) * (1 - step / total) ** 1.0 + least
    if step >= warmup:
        return regular
    k = (1 - step / warmup) * (1 - ratio)
    return regular * (1 - k)


def test_segmentation_has_mmcvs_rates():
    schedule = ScheduleConfig(kind="poly", power=1.0)
    for step in (0, 1, 750, 1499, 1500, 1501, 40000, 79999):
        got = LR * schedule.factor(step, 80000, 1500)
        assert got == pytest.approx(mmcv_rate(step), rel=1e-9)
    assert schedule.factor(0, 80000, 1500) == pytest.approx(1e-6)


def vpd_depth_rate(step: int, per_epoch: int) -> float:
    """The update of VPD's depth training."""
    low, high = 3e-5, 5e-4
    done = step / (per_epoch * 12)
    if done < 1:
        return (high - low) * done**0.9 + low
    return max(low, (low - high) * (done - 1) ** 0.9 + high)


def test_depth_has_vpds_rates():
    schedule = ScheduleConfig(kind="triangle", power=0.9, least=3e-5 / 5e-4, rise=12 / 25)
    per_epoch = 1009
    total = 25 * per_epoch
    for step in (0, 1, 100, 6 * per_epoch, 12 * per_epoch, 18 * per_epoch, total - 1):
        got = 5e-4 * schedule.factor(step, total)
        assert got == pytest.approx(vpd_depth_rate(step, per_epoch), rel=1e-6)
    top = max(range(total), key=lambda step: schedule.factor(step, total))
    assert top == 12 * per_epoch
    assert triangle(total, 12 * per_epoch) == 0.06


def test_least_and_warm_up_of_any_schedule():
    assert poly(10, 10, least=0.25) == 0.25
    assert poly(5, 10, least=0.5) == 0.75
    assert warmed_up(0.5, 3, 0) == 0.5
    assert warmed_up(0.5, 2, 4, ratio=0.0) == 0.25
    steps = ScheduleConfig(kind="multi_step", milestones=(0.5, 0.75), gamma=0.1)
    assert [steps.factor(s, 8) for s in (0, 3, 4, 5, 6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "cosine"}, "schedule.kind must be .*, got 'cosine'"),
        ({"rise": 0.0}, "rise in"),
        ({"milestones": (5.0,)}, "milestones must be shares"),
    ],
)
def test_mistakes(change, message):
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**change)
