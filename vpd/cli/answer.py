"""What a command hands back to the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Answer", "plain"]


@dataclass(frozen=True)
class Answer:
    """What a command found."""

    data: dict[str, Any]
    """The JSON object that ``--json`` prints."""
    text: str
    """What is printed otherwise."""
    code: int = 0
    """Exit code: 1 if a part could not be done."""


def plain(value: Any) -> Any:
    """``value`` as JSON can say it: paths as text, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and getattr(value, "size", 0) == 1:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
