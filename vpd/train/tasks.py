"""The tasks that `vpd train` and `vpd sweep` know, by name."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Literal, get_args

__all__ = ["Task", "config_type", "recipe_of", "train"]

Task = Literal["refer", "semantic", "panoptic", "open-panoptic", "depth"]
# Task -> (module of its training, name of its config there). Imported when used: one task needs
# nothing of another.
_TASKS: dict[str, tuple[str, str]] = {
    "refer": ("vpd.train.refer", "ReferTrainConfig"),
    "semantic": ("vpd.train.dense.semantic", "SemanticTrainConfig"),
    "panoptic": ("vpd.train.panoptic", "PanopticTrainConfig"),
    "open-panoptic": ("vpd.train.open", "OpenTrainConfig"),
    "depth": ("vpd.train.dense.depth", "DepthTrainConfig"),
}


def config_type(task: str) -> type[Any]:
    """The dataclass that determines a training of a task.

    Raises:
        ValueError: An unknown task.
    """
    if task not in _TASKS:
        raise ValueError(f"task must be one of {', '.join(get_args(Task))}, got {task!r}")
    module, name = _TASKS[task]
    return getattr(importlib.import_module(module), name)


def train(config: Any) -> dict[str, float]:
    """Trains what a config of :func:`config_type` describes; metrics of the trained model."""
    return _module(config).train(config)


def recipe_of(config: Any) -> Any:
    """The :class:`vpd.train.dense.run.Recipe` of a config's task: semantic, panoptic or depth."""
    return _module(config).RECIPE


def _module(config: Any) -> ModuleType:
    for module, name in _TASKS.values():
        if type(config).__name__ == name:
            return importlib.import_module(module)
    raise TypeError(f"expected a config of vpd train, got {type(config).__name__}")
