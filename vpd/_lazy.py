"""Public names of a package that are imported on first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["public"]


def public(package: str, places: Mapping[str, str], name: str) -> Any:
    """What a package's ``__getattr__`` returns; the package keeps it.

    Args:
        package: Its full name.
        places: From each public name to the module that defines it.
        name: The one asked for.

    Raises:
        AttributeError: No public name.
    """
    if name not in places:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(places[name]), name)
    setattr(sys.modules[package], name, value)
    return value
