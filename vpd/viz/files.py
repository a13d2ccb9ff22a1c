"""Results as files, each complete or not there at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vpd.data.files import write_npz, write_png

if TYPE_CHECKING:
    from vpd.tasks.results import ReferResult

__all__ = ["save_refer"]


def save_refer(result: ReferResult, path: str | Path) -> Path:
    """Writes a result in the form that the file name asks for.

    ``.figure.png``: the figure; ``.png``: the mask, one channel, 0 and 255; ``.npz``: ``image``,
    ``probability``, ``mask``,
    ``text``, ``words`` and ``attention_<stride>`` [words, h, w].

    Raises:
        ValueError: Another extension. OSError: the file cannot be written.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".figure.png"):
        from vpd.viz.figures import refer_figure

        return refer_figure(result).save(path)
    if name.endswith(".png"):
        write_png(path, result.mask.astype(np.uint8) * 255)
        return path
    if name.endswith(".npz"):
        maps = result.attention.strides
        arrays: dict[str, Any] = {f"attention_{stride}": maps[stride] for stride in maps}
        write_npz(
            path,
            image=result.image,
            probability=result.probability,
            mask=result.mask,
            text=np.array(result.text),
            words=np.array(result.attention.words, dtype=str),
            **arrays,
        )
        return path
    raise ValueError(f"{path}: expected a name ending in .png, .figure.png or .npz")
