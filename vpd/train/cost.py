"""What a training will cost: FLOP, bytes, memory and time, known before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch

from vpd.cost import Operation, Operations, Phase, scaled
from vpd.cost_time import Device, all_reduce, seconds
from vpd.memory import LiveBytes
from vpd.train.footprint import BlankStep, Footprint, counted

__all__ = ["Plan", "Prediction", "TrainingCost", "training_cost"]

Called = list[tuple[Operation, float]]


@dataclass(frozen=True)
class _Pass:
    """Some rows of a step: forward, backward and the optimizer's update."""

    operations: Sequence[Operation]
    footprint: Footprint


@dataclass(frozen=True)
class Prediction:
    """A picture in, scores out."""

    operations: Called
    memory: int
    """Bytes: weights, tensors, and what kernels and libraries hold besides."""


@dataclass(frozen=True)
class Plan:
    """A training on one device, or on several of a kind."""

    device: str
    processes: int
    rows: int | None
    """Rows of a pass; None: not even the fewest fit."""
    passes: int
    memory: float
    """Bytes that a process needs; of the fewest rows, if they do not fit."""
    step: float
    """Seconds."""
    sent: float
    """Bytes that a process sends in the all-reduce of a step."""
    waited: float
    """Seconds of it that the backward does not hide."""
    before: float
    """Seconds before the first step, for what is computed once and kept."""
    epoch: float | None
    total: float
    """Seconds of all steps and what is before them."""


@dataclass(frozen=True)
class TrainingCost:
    """What a training costs, from two passes that were counted, of ``counted`` rows and of twice as
    many: all else lies on a straight line with them."""

    together: int
    """Rows that cannot be parted."""
    counted: int
    one: _Pass
    two: _Pass
    once: Sequence[Operation]
    """For a row, before the first step."""
    prediction: Prediction
    batch: int
    micro_batch: int | None
    steps: int
    epoch_rows: int | None
    """As published; None where nothing is."""
    autocast: torch.dtype | None

    @property
    def trained(self) -> int:
        """Parameters in the optimizer."""
        return sum(part.in_optimizer for part in self.one.footprint.parts)

    def operations(self, rows: int) -> Called:
        """Of a pass of so many rows, with the optimizer's, which are once a step."""
        return list(scaled(self.one.operations, self.two.operations, rows / self.counted))

    def memory(self, rows: int) -> float:
        """Bytes at the peak, with so many rows in a pass."""
        one, two = self.one.footprint.peak, self.two.footprint.peak
        return one + (rows / self.counted - 1) * (two - one)

    def divides(self, processes: int) -> bool:
        """Whether the batch can be shared out among so many."""
        return processes >= 1 and self.batch % (processes * self.together) == 0

    def plan(self, device: Device, processes: int = 1) -> Plan:
        """The training on so many devices: as many rows at a time as fit.

        Raises:
            ValueError: A batch that does not divide among them.
        """
        if not self.divides(processes):
            raise ValueError(
                f"expected a batch that divides among {processes} processes, with {self.together} "
                f"rows together, got batch={self.batch}"
            )
        share = self.batch // processes
        most = min(share, self.micro_batch or share)
        sizes = [n for n in range(most, 0, -1) if share % n == 0 and n % self.together == 0]
        fits = [n for n in sizes if self.memory(n) <= device.usable]
        rows = fits[0] if fits else sizes[-1]
        taken = self.operations(rows)

        def time(*phases: Phase) -> float:
            return seconds([c for c in taken if c[0].phase in phases], device, self.autocast)

        backward, passes = time("backward"), share // rows
        sent, summed = all_reduce(self.trained, device, processes)
        waited = max(0.0, summed - backward)  # it runs beside the last pass's backward
        step = passes * (time("forward") + backward) + time("optimizer") + waited
        seen = self.steps * self.batch
        kept = min(seen, self.epoch_rows or seen)
        each = seconds([(own, 1.0) for own in self.once], device, self.autocast)
        before = kept * each / processes
        epoch = self.epoch_rows and self.epoch_rows / self.batch * step
        return Plan(
            device.name, processes, rows if fits else None, passes, self.memory(rows), step, sent,
            waited, before, epoch, before + self.steps * step,
        )  # fmt: skip


def training_cost(
    config: Any,
    blank: Callable[[Any], AbstractContextManager[BlankStep]],
    epoch_rows: int | None,
) -> TrainingCost:
    """Counts a training's step.

    Nothing is read and nothing computed, so full-size recipes take seconds. Not in it: reading the
    data, and the evaluations.

    Args:
        config: Of the training.
        blank: Its step on tensors without values, like
            :func:`vpd.train.refer.footprint.refer_step`.
        epoch_rows: Rows of its data set.
    """
    loop, together = config.loop, getattr(config, "together", 1)
    steps = loop.steps
    if config.epochs is not None:
        if epoch_rows is None:
            raise ValueError(
                "expected a data set of published size, or loop.steps instead of epochs, got "
                f"epochs={config.epochs} of {config.data.name}"
            )
        steps = config.epochs * (epoch_rows // loop.batch)
    precision = "bf16" if loop.precision == "auto" else loop.precision  # as on a GPU
    bf16 = precision == "bf16"

    def of_rows(rows: int) -> AbstractContextManager[BlankStep]:
        changes = {"batch": rows, "micro_batch": None, "precision": precision}
        return blank(replace(config, loop=replace(loop, **changes)))

    with of_rows(together) as step:
        once = _once(step, bf16)
        prediction = _prediction(step, bf16, once, together)
    rows = 2 * together  # batch norms take no single one
    with of_rows(rows) as step:
        one = _counted(step)
    with of_rows(2 * rows) as step:
        two = _counted(step)
    return TrainingCost(
        together, rows, one, two, once, prediction, loop.batch, loop.micro_batch, steps, epoch_rows,
        torch.bfloat16 if bf16 else None,
    )  # fmt: skip


def _counted(step: BlankStep) -> _Pass:
    operations = Operations(step.model)
    footprint = counted(step.model, step.module, step.loop, step.loss, operations)
    made = step.module.configure_optimizers()
    operations.phase = "optimizer"
    with operations:
        if step.loop.clip is not None:
            torch.nn.utils.clip_grad_norm_(step.module.parameters(), step.loop.clip)
        made["optimizer"].step()
    return _Pass(operations.found, footprint)


def _once(step: BlankStep, bf16: bool) -> Sequence[Operation]:
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    with Operations(step.model) as operations, torch.no_grad(), autocast:
        step.once()
    return operations.found


def _prediction(step: BlankStep, bf16: bool, once: Sequence[Operation], rows: int) -> Prediction:
    """What a step computes before it learns, with what precedes the first one."""
    model, autocast = step.model, torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    model.eval()
    held = [*model.parameters(), *model.buffers()]
    with LiveBytes(held) as live, torch.no_grad(), autocast:
        step.once()
        with Operations(model) as operations:
            step.loss()
    weights = sum(tensor.numel() * tensor.element_size() for tensor in held)
    calls = [(own, 1.0) for own in once] + [(own, 1 / rows) for own in operations.found]
    return Prediction(calls, weights + live.peak + Footprint.overhead)
