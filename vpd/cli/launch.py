"""Where a command's work is done: in this process and those started beside it, or in workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from vpd.cli.answer import Answer, plain

if TYPE_CHECKING:
    from vpd.tasks.dense_evaluation import DenseEvaluation
    from vpd.tasks.shares import Group

__all__ = ["Launch", "Launcher", "answered", "scored"]

R = TypeVar("R")
Launcher = Literal["local", "ray"]


class Launch(NamedTuple):
    """Options of a command."""

    launcher: Launcher
    workers: int
    device: str

    @property
    def gpu(self) -> bool:
        """Whether a worker needs one."""
        return self.device.startswith("cuda")


def answered(found: DenseEvaluation | None, name: str | list[str]) -> Answer | None:
    """What :func:`scored` found of a model of that name, as an answer."""
    if found is None:
        return None
    result = found.to_dict()
    result["protocol"] = {"model": name, **result["protocol"]}
    return Answer(plain(result), f"{name} on {found.table()}")


def scored(ready: Callable[[], Callable[[Group], R]], launch: Launch) -> R | None:
    """Scores a model on a data set.

    Args:
        ready: Loads both; returns what scores with a group. Ray pickles it.

    Returns:
        None in a process beside which another one answers.

    Raises:
        ValueError: Workers asked for by one of several processes.
    """
    from vpd.train.distributed import alone, group, join

    if launch.launcher == "ray":
        from vpd.train.workers import score

        alone("--launcher ray")
        return score(ready, launch.workers, gpu=launch.gpu)
    with join() as processes:
        found = ready()(group())
    return found if processes.first else None
