from __future__ import annotations

from typing import Literal

__all__ = ["Reduction"]

Reduction = Literal["mean", "none", "sum"]
