"""A run's folder belongs to one recipe, which is kept there: a command that asks for something else
is refused before it reads or overwrites what another one trained."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vpd.data.files import atomic_write

__all__ = ["CHANGEABLE", "check_recipe", "flat", "keep_recipe", "recipe"]

_ELSEWHERE = ("out", "progress", "eval_batch", "cache_dir", "workers")
"""Where and how fast, not what."""
CHANGEABLE = frozenset(
    [
        "epochs", "recompute", "data.val_limit", "data.final_limit", "loop.steps",
        "loop.precision", "loop.micro_batch", "loop.freed_memory", "loop.log_every",
        "loop.val_every", "loop.checkpoint_every",
    ]
)  # fmt: skip
"""What a run may go on with changed: its length, how it is watched, how it is computed."""


def recipe(config: Any) -> dict[str, Any]:
    """What determines the result, without where it was made."""
    found = {k: v for k, v in asdict(config).items() if k not in _ELSEWHERE}
    if "data" in found:
        found["data"] = {k: v for k, v in found["data"].items() if k not in _ELSEWHERE}
    return found


def flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by dotted name."""
    found: dict[str, Any] = {}
    for key, value in fields.items():
        name = f"{prefix}{key}"
        found |= flat(value, name + ".") if isinstance(value, dict) else {name: value}
    return found


def keep_recipe(config: Any) -> None:
    """Writes ``config.out/recipe.json``."""
    with atomic_write(_path(config)) as file:
        file.write((json.dumps(recipe(config), indent=1) + "\n").encode())


def check_recipe(config: Any, changeable: Collection[str] = ()) -> None:
    """Refuses a folder whose ``recipe.json`` is of another recipe. Fields that only one of the two
    knows, as those of another version of vpd, are not compared.

    Args:
        config: Of a training that is about to begin or to go on.
        changeable: Names of fields that may differ, such as :data:`CHANGEABLE`.

    Raises:
        ValueError: Such a folder.
    """
    path = _path(config)
    if not path.exists():
        return
    own = flat(json.loads(json.dumps(recipe(config))))
    there = flat(json.loads(path.read_text()))
    for name in sorted(own.keys() & there.keys() - set(changeable)):
        if own[name] != there[name]:
            raise ValueError(
                f"{path.parent} holds a run with {name} = {there[name]!r}, expected "
                f"{own[name]!r}; choose another folder with --out, or remove it"
            )


def _path(config: Any) -> Path:
    return Path(config.out) / "recipe.json"
