"""Data sets: the rendered world `tabletop` and readers of the official on-disk layouts."""

import importlib
from typing import Any

# Public name -> module that defines it. Imported on first use, so that `import vpd.data` is light.
_PUBLIC = {
    "ReferDataset": "vpd.data.refer",
    "check_refer": "vpd.data.check",
    "make_tabletop": "vpd.data.tabletop.layout",
}
_MODULES = ("check", "masks", "refer", "tabletop")

__all__ = [*_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"vpd.data.{name}")
    else:
        raise AttributeError(f"module 'vpd.data' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
