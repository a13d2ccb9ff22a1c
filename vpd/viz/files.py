"""Results as files, each complete or not there at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vpd.data.files import write_npz, write_png

if TYPE_CHECKING:
    from vpd.tasks.results import ReferResult

__all__ = ["save_as", "save_refer"]


def save_as(path: str | Path, forms: Mapping[str, Callable[[Path], object]]) -> Path:
    """Writes a file in the form that its name asks for.

    Args:
        forms: By ending, what writes such a file; endings that contain others come first.

    Raises:
        ValueError: Another ending. OSError: the file cannot be written.
    """
    path = Path(path)
    for ending, write in forms.items():
        if path.name.lower().endswith(ending):
            write(path)
            return path
    *others, last = forms
    endings = f"{', '.join(others)} or {last}" if others else last
    raise ValueError(f"{path}: expected a name ending in {endings}")


def save_refer(result: ReferResult, path: str | Path) -> Path:
    """Writes a result in the form that the file name asks for.

    ``.figure.png``: the figure; ``.png``: the mask, one channel, 0 and 255; ``.npz``: ``image``,
    ``probability``, ``mask``, ``text``, ``words`` and ``attention_<stride>`` [words, h, w].

    Raises:
        ValueError: Another extension. OSError: the file cannot be written.
    """

    def figure(path: Path) -> None:
        from vpd.viz.figures import refer_figure

        refer_figure(result).save(path)

    def arrays(path: Path) -> None:
        maps = result.attention.strides
        named: dict[str, Any] = {f"attention_{stride}": maps[stride] for stride in maps}
        write_npz(
            path,
            image=result.image,
            probability=result.probability,
            mask=result.mask,
            text=np.array(result.text),
            words=np.array(result.attention.words, dtype=str),
            **named,
        )

    mask = result.mask.astype(np.uint8) * 255
    return save_as(
        path,
        {".figure.png": figure, ".png": lambda path: write_png(path, mask), ".npz": arrays},
    )
