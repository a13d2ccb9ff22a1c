"""Learning rates as functions of the step: factors of the highest rate, in closed form, so that a
resumed run has those of an uninterrupted one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["ScheduleConfig", "multi_step", "poly", "triangle", "warmed_up"]


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate goes from ``loop.lr`` on, after the warm-up of ``loop.warmup``
    steps."""

    kind: Literal["poly", "triangle", "multi_step"] = "poly"
    """``poly``: falls to the end. ``triangle``: rises, then falls. ``multi_step``: drops at
    milestones."""
    power: float = 1.0
    """Of ``poly`` and ``triangle``. VPD: 1 for segmentation, 0.9 for depth."""
    least: float = 0.0
    """Smallest factor of ``poly`` and ``triangle``. VPD: 0 for segmentation, 0.06 for depth (3e-5
    of 5e-4)."""
    rise: float = 0.48
    """``triangle``: share of the steps until the top. VPD: 12 of 25 epochs."""
    milestones: tuple[float, ...] = (0.9, 0.95)
    """``multi_step``: shares of the steps after which the rate drops."""
    gamma: float = 0.1
    """``multi_step``: factor of each drop."""
    warmup_from: float = 1e-6
    """Factor at the beginning of the warm-up. ODISE: 0.067."""

    def __post_init__(self) -> None:
        if self.kind not in ("poly", "triangle", "multi_step"):
            raise ValueError(
                f"schedule.kind must be poly, triangle or multi_step, got {self.kind!r}"
            )
        if self.power <= 0 or not 0 <= self.least <= 1 or not 0 < self.rise <= 1:
            raise ValueError(
                "schedule needs power > 0, least in [0, 1] and rise in (0, 1], got "
                f"{self.power}, {self.least} and {self.rise}"
            )
        if not 0 <= self.warmup_from <= 1:
            raise ValueError(f"schedule.warmup_from must be in [0, 1], got {self.warmup_from}")
        if any(not 0 < share < 1 for share in self.milestones):
            raise ValueError(
                f"schedule.milestones must be shares in (0, 1), got {list(self.milestones)}"
            )

    def factor(self, step: int, total: int, warmup: int = 0) -> float:
        """Of the highest rate, at a step counted from 0.

        Args:
            step: The one that is about to be made.
            total: Steps of the run.
            warmup: Steps of :func:`warmed_up`.
        """
        if self.kind == "poly":
            found = poly(step, total, self.power, self.least)
        elif self.kind == "triangle":
            found = triangle(step, self.rise * total, self.power, self.least)
        else:
            found = multi_step(step, [share * total for share in self.milestones], self.gamma)
        return warmed_up(found, step, warmup, self.warmup_from)


def poly(step: int, total: int, power: float = 1.0, least: float = 0.0) -> float:
    """``(1 - step / total) ** power``, between 1 and ``least`` (mmcv's ``poly``)."""
    return (1 - least) * max(0.0, 1 - step / total) ** power + least


def triangle(step: int, rise: float, power: float = 0.9, least: float = 0.06) -> float:
    """VPD's schedule of depth: from ``least`` to 1 in ``rise`` steps and back in as many, each way
    by the power of the way that is done; then ``least``."""
    way = step / rise
    if way < 1:
        return float((1 - least) * way**power + least)
    return float(max(least, 1 - (1 - least) * (way - 1) ** power))


def multi_step(step: int, milestones: Sequence[float], gamma: float = 0.1) -> float:
    """``gamma`` to the power of the number of milestones that are reached."""
    return float(gamma ** sum(step >= milestone for milestone in milestones))


def warmed_up(factor: float, step: int, steps: int, ratio: float = 1e-6) -> float:
    """A schedule's factor within the first ``steps`` steps: lowered by a factor that rises linearly
    from ``ratio`` to 1 (mmcv's ``warmup="linear"``)."""
    if step >= steps:
        return factor
    return factor * (1 - (1 - step / steps) * (1 - ratio))
