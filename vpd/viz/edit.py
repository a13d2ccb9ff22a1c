"""Edited pictures as figures and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vpd.data.files import write_jpeg, write_npz, write_png
from vpd.viz.files import save_as
from vpd.viz.overlay import shrink
from vpd.viz.page import Band, Panel, Picture, page

if TYPE_CHECKING:
    from vpd.tasks.editor_results import EditResult

__all__ = ["edit_figure", "save_edit"]


def edit_figure(
    results: Sequence[EditResult], truths: Sequence[np.ndarray] | None = None
) -> Picture:
    """Pictures before and after, below their instructions.

    Args:
        results: One band each.
        truths: What they should have become, uint8 [H, W, 3], if that is known.
    """
    bands = []
    for number, result in enumerate(results):
        guided = f"edited, text {result.text_guidance:g}, image {result.image_guidance:g}"
        panels = [Panel(shrink(result.before), "before"), Panel(shrink(result.image), guided)]
        if truths is not None:
            panels.append(Panel(shrink(truths[number]), "truth"))
        bands.append(Band(panels, heading=f"“{result.instruction}”"))
    columns = len(bands[0].panels)
    return page(bands, columns=columns, width_in=2.4 * columns)


def save_edit(result: EditResult, path: Path) -> Path:
    """Writes a result in the form that the file name asks for.

    ``.figure.png``: the figure; ``.png`` and ``.jpg``: the edited picture; ``.npz``: ``image``,
    ``before``, ``instruction`` and what it was made with.

    Raises:
        ValueError: Another extension. OSError: the file cannot be written.
    """

    def arrays(path: Path) -> None:
        write_npz(
            path,
            image=result.image,
            before=result.before,
            instruction=np.array(result.instruction),
            seed=np.array(-1 if result.seed is None else result.seed),
            text_guidance=np.array(result.text_guidance),
            image_guidance=np.array(result.image_guidance),
        )

    forms = {
        ".figure.png": lambda path: edit_figure([result]).save(path),
        ".png": lambda path: write_png(path, result.image),
        ".jpg": lambda path: write_jpeg(path, result.image),
        ".npz": arrays,
    }
    return save_as(path, forms)
