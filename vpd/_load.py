"""Loads the compiled core; importing this module registers ``torch.ops.vpd``."""

from __future__ import annotations

from pathlib import Path

import torch

_BUILT_FOR = "2.13"

try:
    from vpd import _C as core
except ImportError as error:
    built = sorted(path.name for path in Path(__file__).parent.glob("_C*"))
    raise ImportError(
        f"vpd's compiled core did not load: {error}. "
        f"Installed PyTorch: {torch.__version__}, vpd expects {_BUILT_FOR}.*; "
        f"compiled files found: {built or 'none'}. Rebuild it against this PyTorch with: "
        "pip install --no-build-isolation ."
    ) from error

__all__ = ["core"]
