"""What the compiled core was built for, known without loading it.

The core fits one minor version of PyTorch; loaded beside another it ends in an unresolved symbol at
best. So the build leaves its facts in ``build.json`` beside the core, and they are compared before
anything is loaded.
"""

from __future__ import annotations

import importlib.util
import json
import platform
from pathlib import Path

__all__ = ["REBUILD", "check", "core_file", "facts"]

REBUILD = "pip install --no-build-isolation ."
"""Builds the core for the installed PyTorch, in a folder with vpd's sources."""


def core_file() -> Path | None:
    """The compiled module that would be imported, None if there is none for this Python."""
    spec = importlib.util.find_spec("vpd._C")
    return Path(spec.origin) if spec and spec.origin else None


def facts() -> dict[str, str]:
    """What the build wrote: versions of vpd, PyTorch, Python and the compiler, among others.

    Raises:
        ImportError: without a compiled core, or without the file beside it.
    """
    core = core_file()
    if core is None:
        raise ImportError(f"vpd's compiled core is missing: {_missing()}. Build it with: {REBUILD}")
    try:
        found: dict[str, str] = json.loads((core.parent / "build.json").read_text())
    except (OSError, ValueError) as error:
        raise ImportError(
            f"{core}: expected a build.json beside it that says what it was built for, but "
            f"{error}. Build both anew with: {REBUILD}"
        ) from error
    return found


def check() -> None:
    """Compares what is installed with what the core was built for.

    Raises:
        ImportError: where they differ; with the versions found, those it was built for, and the
            command to mend it.
    """
    import torch

    import vpd

    built = facts()
    series = _series(built["torch"])
    if series != _series(torch.__version__):
        raise ImportError(
            f"vpd's compiled core and PyTorch disagree: found PyTorch {torch.__version__} in "
            f"{Path(torch.__file__).parent}, built for PyTorch {built['torch']}. Install that one "
            f"with: pip install 'torch=={series}.*'; or build vpd for the one found, in the folder "
            f"of its sources, with: {REBUILD}"
        )
    if built["vpd"] != vpd.__version__:
        raise ImportError(
            "vpd's compiled core and its Python files disagree: found Python files of vpd "
            f"{vpd.__version__} in {Path(vpd.__file__).parent}, a core built as vpd {built['vpd']} "
            f"in {core_file()}. Build it anew with: {REBUILD}"
        )


def _series(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _missing() -> str:
    import vpd

    others = sorted(path.name for folder in vpd.__path__ for path in Path(folder).glob("_C.*.so"))
    here = f"expected one for {platform.python_implementation()} {platform.python_version()} in "
    return f"{here}{', '.join(vpd.__path__)}, found {', '.join(others) or 'none'}"
