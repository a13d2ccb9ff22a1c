"""Loads the compiled core; importing this module registers ``torch.ops.vpd``."""

from __future__ import annotations

from pathlib import Path

import torch

_BUILT_FOR = "2.13"

try:
    from vpd import _C as core
except ImportError as error:
    import vpd

    built = sorted(path.name for folder in vpd.__path__ for path in Path(folder).glob("_C.*.so"))
    raise ImportError(
        f"vpd's compiled core did not load: {error}. "
        f"Installed PyTorch: {torch.__version__}, vpd expects {_BUILT_FOR}.*; "
        f"compiled files found: {built or 'none'}. Rebuild it against this PyTorch with: "
        "pip install --no-build-isolation ."
    ) from error

__all__ = ["core"]
