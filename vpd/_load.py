"""Loads the compiled core; importing this module registers ``torch.ops.vpd``."""

from __future__ import annotations

import torch

from vpd import _build

_build.check()
try:
    from vpd import _C as core
except ImportError as error:
    raise ImportError(
        f"vpd's compiled core {_build.core_file()} did not load: {error}. Found PyTorch "
        f"{torch.__version__}, built with: {_build.facts()}. Build it anew with: {_build.REBUILD}"
    ) from error

__all__ = ["core"]
