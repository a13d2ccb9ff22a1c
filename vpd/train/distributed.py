"""Several processes that train one model: how they find each other, and what they do together."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "Processes",
    "alone",
    "first_in_turn",
    "group",
    "join",
    "present",
    "same_everywhere",
    "total",
    "trainer_options",
    "wait",
]

log = logging.getLogger("vpd")

# The longest that one process may wait for another, e.g. while that renders pictures. A process
# that has failed is noticed long before.
_PATIENCE = timedelta(hours=1)


@dataclass(frozen=True)
class Processes:
    """How many processes share the work, and which of them this is."""

    count: int = 1
    rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0


def group() -> dist.ProcessGroup | None:
    """The group that this process has joined; None if it is on its own."""
    joined = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return dist.group.WORLD if joined else None


def present() -> Processes:
    """The processes of :func:`group`."""
    if group() is None:
        return Processes()
    return Processes(dist.get_world_size(), dist.get_rank())


@contextmanager
def join() -> Iterator[Processes]:
    """Joins the processes that were started together, by ``torchrun`` or by SLURM's ``srun``, until
    the end of the block; a process that was started on its own stays so.

    They talk through NCCL, each with a GPU of its own, or without GPUs through Gloo. Only the first
    one logs. At the end they wait for each other, except for one that fails: the others then fail
    too, as soon as they need it, and ``torchrun`` or ``srun --kill-on-bad-exit`` ends them.
    """
    if present().count > 1 or _started() == 1:
        yield present()
        return
    if "RANK" not in os.environ:
        _name_as_torchrun_does(os.environ)
    device = None
    if torch.cuda.is_available():
        # Some schedulers show each process its own GPU only.
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    backend = "nccl" if device else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE, device_id=device)
    processes, level = present(), log.level
    try:
        if not processes.first:
            log.setLevel(logging.WARNING)
        yield processes
    finally:
        log.setLevel(level)
    dist.barrier()
    dist.destroy_process_group()


def alone(what: str) -> None:
    """Raises ValueError if this process is one of several that were started together."""
    count = max(present().count, _started())
    if count > 1:
        raise ValueError(f"{what} runs in one process, got {count} of torchrun or srun")


@contextmanager
def first_in_turn() -> Iterator[None]:
    """The first process goes through the block, then all others do: they find what it has left on
    disk."""
    processes = present()
    if not processes.first:
        dist.barrier()
    yield
    if processes.first and processes.count > 1:
        dist.barrier()


def total(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sum over all processes of each of some scalars, by name."""
    if group() is None:
        return values
    sums = torch.stack([value.detach().float() for value in values.values()])
    dist.all_reduce(sums)
    return dict(zip(values, sums.unbind(), strict=True))


def wait() -> None:
    """Until all processes are here."""
    if group() is not None:
        dist.barrier()


def same_everywhere(value: bool, what: str) -> bool:
    """``value``, which all processes must agree upon.

    Raises:
        ValueError: They do not.
    """
    if group() is not None:
        found: list[Any] = [None] * present().count
        dist.all_gather_object(found, value)
        if len(set(found)) > 1:
            raise ValueError(
                f"expected one answer of all processes to {what}, got {found}; the run's folder "
                "must be on a file system that they share"
            )
    return value


def trainer_options(*plugins: Any) -> dict[str, Any]:
    """Where a Lightning Trainer runs: the processes of :func:`group`, whatever the environment
    looks like besides."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning.pytorch.strategies import DDPStrategy
    from lightning.pytorch.utilities import rank_zero_only

    vars(rank_zero_only)["rank"] = present().rank  # who writes TensorBoard's files
    if group() is None:
        return {"accelerator": "auto", "devices": 1, "plugins": [*plugins, LightningEnvironment()]}
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    strategy = DDPStrategy(
        # Lightning takes the one at this process's place, which is always its own.
        parallel_devices=[device] * present().count,
        cluster_environment=TorchElasticEnvironment(),
        # The U-Net's last blocks feed no feature map.
        find_unused_parameters=True,
        # The only buffers are statistics of batch norms, the same everywhere.
        broadcast_buffers=False,
    )
    return {"accelerator": device.type, "strategy": strategy, "plugins": [*plugins]}


def _started() -> int:
    """How many processes this one was started together with, itself included."""
    if "RANK" in os.environ:
        return int(os.environ.get("WORLD_SIZE", 1))
    # Of the job step: a batch script has a job of several tasks around it, yet is one process.
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))


def _name_as_torchrun_does(environment: Any) -> None:
    """Adds the variables by which ``torch.distributed`` finds its peers to those of ``srun``."""
    nodes = environment.get("SLURM_STEP_NODELIST", "localhost")  # such as node[03-07,9],other
    head = re.match(r"([^,\[]+)(?:\[(\w+))?([^,\-\]]*)", nodes)
    assert head is not None
    job = int(environment["SLURM_JOB_ID"]) * 7 + int(environment.get("SLURM_STEP_ID", 0))
    found = {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "GROUP_RANK": environment.get("SLURM_NODEID", "0"),
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "MASTER_ADDR": head.group(1) + (head.group(2) or ""),
        "MASTER_PORT": str(20_000 + job % 10_000),
    }
    for name, value in found.items():
        environment.setdefault(name, value)
