"""``vpd convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vpd.cli.answer import Answer


def convert(src: Path, dst: Path, *, to: Literal["ldm", "diffusers"]) -> Answer:
    """Rewrites weights under the parameter names of another layout; values and dtypes stay.

    Args:
        src: a Stable Diffusion v1 file, a diffusers folder, or one network of either
        dst: the .safetensors file to write; a folder when several networks go to diffusers
        to: ldm (the original names, which vpd uses) or diffusers
    """
    from vpd.weights import convert as rewrite

    files = [str(path) for path in rewrite(src, dst, to)]
    return Answer(
        {"src": str(src), "to": to, "files": files}, "\n".join(f"wrote {f}" for f in files)
    )
