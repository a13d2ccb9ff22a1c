"""Options that belong to some tasks alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["check_options"]


def check_options(
    task: str, given: Mapping[str, Any], owners: Mapping[str, tuple[str, ...]], whose: str
) -> None:
    """Refuses options of another task.

    Args:
        task: The one that is asked for.
        given: Options by name; None where one was not given.
        owners: The tasks of each option; referring segmentation's if it is not named.
        whose: Task it is, in words.

    Raises:
        ValueError: The first of them.
    """
    for name, value in given.items():
        tasks = owners.get(name, ("refer",))
        if value is not None and task not in tasks:
            raise ValueError(f"{name} is an option of {' and '.join(tasks)}, {whose} is {task}")
