"""A batch taken in parts, by several processes or one part after another, with the gradients of the
whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from torch import Tensor

from vpd.train.distributed import Processes, present, total
from vpd.train.loop.recipe import CHANGEABLE, check_recipe

__all__ = ["PartsTraining", "Shares", "begun", "lasting"]

C = TypeVar("C")


@dataclass(frozen=True)
class Shares:
    """How the rows of a batch are divided: among the processes, and by each of them into passes."""

    batch: int
    """Rows of a step, of all processes and passes together."""
    micro_batch: int | None = None
    """Rows of a pass; None: all rows of a process in one."""
    processes: Processes = field(default_factory=Processes)

    def __post_init__(self) -> None:
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(f"micro_batch must be at least 1, got {self.micro_batch}")
        count = self.processes.count
        if self.batch % (count * (self.micro_batch or 1)):
            each = (
                "" if self.micro_batch is None else f" in passes of micro_batch={self.micro_batch}"
            )
            raise ValueError(
                f"expected a batch that divides among {count} process{'es' * (count > 1)}{each}, "
                f"got batch={self.batch}"
            )

    @property
    def rows(self) -> int:
        """Rows of a pass."""
        return self.micro_batch or self.batch // self.processes.count

    @property
    def passes(self) -> int:
        return self.batch // (self.processes.count * self.rows)

    def part(self, number: int) -> slice:
        """The rows of this process's pass ``number``. Those of all processes lie side by side: what
        batch norms see together does not depend on how many processes it is divided among."""
        start = (number * self.processes.count + self.processes.rank) * self.rows
        return slice(start, start + self.rows)


def begun(config: C) -> tuple[C, Shares, torch.device]:
    """What every training starts with: its config, where bars are the first process's alone; how a
    batch is divided among the processes that are there; the device to train on.

    Raises:
        ValueError: A batch that does not divide among them, or a folder with a checkpoint of
            another recipe.
    """
    own: Any = config
    if (Path(own.out) / "last.ckpt").exists():
        check_recipe(own, CHANGEABLE)
    shares = Shares(own.loop.batch, own.loop.micro_batch, present())
    own = replace(own, progress=own.progress and shares.processes.first)
    return own, shares, torch.device("cuda" if torch.cuda.is_available() else "cpu")


def lasting(config: C, steps_per_epoch: int) -> C:
    """A config with the steps of its ``epochs``, if those are set."""
    own: Any = config
    if own.epochs is None:
        return config
    return replace(own, loop=replace(own.loop, steps=own.epochs * steps_per_epoch))


class PartsTraining(pl.LightningModule):
    """A training whose step is a sum over the rows of its batch.

    A subclass says in :meth:`losses` what some of the rows add to the sum; which rows, by which
    process and in which pass is decided here.
    """

    def __init__(self, batch: int, micro_batch: int | None) -> None:
        super().__init__()
        self.shares = Shares(batch, micro_batch, present())
        self._sums: dict[str, Tensor] = {}

    def losses(self, step: int, rows: slice) -> dict[str, Tensor]:
        """What some rows of a step's batch add to its loss, named ``loss``, and to whatever else is
        to be logged."""
        raise NotImplementedError

    def logged(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is logged of a step, ``loss`` in any case, from the sums over its whole batch."""
        return sums

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """All passes but the last one, which is Lightning's."""
        self._sums = {}
        if self.shares.passes == 1:
            return
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()
        for number in range(self.shares.passes - 1):
            with self.trainer.precision_plugin.train_step_context():
                loss = self._pass(number)
            # Processes exchange nothing here: DDP sums gradients up in the backward that belongs to
            # its own forward, the last pass's, and then all that has gathered.
            loss.backward()  # type: ignore[no-untyped-call]

    def optimizer_zero_grad(self, *args: Any) -> None:
        if self.shares.passes == 1:  # else done before the first pass
            super().optimizer_zero_grad(*args)

    def training_step(self, _: int) -> Tensor:
        loss = self._pass(self.shares.passes - 1)
        found = self.logged(total(self._sums))
        self.log("loss", found.pop("loss"), prog_bar=True, batch_size=self.shares.batch)
        self.log_dict(found, batch_size=self.shares.batch)
        return loss

    def _pass(self, number: int) -> Tensor:
        found = self.losses(self.global_step, self.shares.part(number))
        for name, value in found.items():
            before = self._sums.get(name)
            self._sums[name] = value.detach() if before is None else before + value.detach()
        return found["loss"] * self.shares.processes.count  # DDP takes the mean over processes
