"""A page of pictures: bands of equally large panels with titles, all margins in inches."""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vpd.data.files import atomic_write

__all__ = ["Band", "Panel", "Picture", "clipped", "page", "printable"]

_MARGIN, _GAP = 0.14, 0.09
_HEADING_PT, _TITLE_PT = 9.5, 8.0
_LINE = 1.3 / 72  # inches per point of font size, with line spacing
_INK, _PALE = "#1c1c1c", "#6a6a6a"
_SHAPES = (0.4, 1.8)  # height / width that panels are kept within


class Picture(Figure):
    """A figure that draws itself in notebooks."""

    def _repr_png_(self) -> bytes:
        return self.png(dpi=110)

    def png(self, dpi: int = 130) -> bytes:
        """The picture as the bytes of a PNG file; the same picture gives the same bytes."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        return buffer.getvalue()

    def save(self, path: str | Path, dpi: int = 130) -> Path:
        """Writes a PNG file, complete or not at all."""
        data = self.png(dpi)
        with atomic_write(path) as file:
            file.write(data)
        return Path(path)


@dataclass(frozen=True)
class Panel:
    """One picture, uint8 [H, W, 3], and its title."""

    pixels: NDArray[np.uint8]
    title: str = ""


@dataclass(frozen=True)
class Band:
    """Panels side by side below a heading (wrapped to the page) and behind a label."""

    panels: Sequence[Panel]
    heading: str = ""
    label: str = ""
    color: str = _INK
    """Of the heading."""
    columns: int | None = None
    """Panels that would fill the width; the page's if None."""


def page(bands: Sequence[Band], *, columns: int | None = None, width_in: float = 7.4) -> Picture:
    """Lays bands below each other.

    Args:
        bands: At least one, with at least one panel each.
        columns: Panels that fill the width; the longest band's count if None.
        width_in: Width of the page in inches.
    """
    if not bands or not all(band.panels for band in bands):
        raise ValueError("a page needs at least one band, and each band at least one panel")
    columns = columns or max(len(band.panels) for band in bands)
    left = _MARGIN + _label_in([line for band in bands for line in band.label.splitlines()])
    first = bands[0].panels[0].pixels
    shape = float(np.clip(first.shape[0] / first.shape[1], *_SHAPES))
    cells = [_cell(width_in - left - _MARGIN, band.columns or columns) for band in bands]
    headings = [_wrapped(band.heading, width_in - left - _MARGIN) for band in bands]
    titled = [any(panel.title for panel in band.panels) for band in bands]
    heights = [
        cell * shape + _heading_in(heading) + (_TITLE_PT * _LINE + 0.03 if title else 0)
        for cell, heading, title in zip(cells, headings, titled, strict=True)
    ]
    height_in = 2 * _MARGIN + sum(heights) + _GAP * (len(bands) - 1)
    figure = Picture(figsize=(width_in, height_in), facecolor="white")
    FigureCanvasAgg(figure)

    def put(x: float, y: float, text: str, size: float, **style: Any) -> None:
        figure.text(x / width_in, 1 - y / height_in, text, fontsize=size, parse_math=False, **style)

    top = _MARGIN
    for band, cell, heading, title, height in zip(
        bands, cells, headings, titled, heights, strict=True
    ):
        tall = cell * shape
        if heading:
            put(left, top, heading, _HEADING_PT, va="top", color=band.color, linespacing=1.15)
        base = top + height - tall
        if band.label:
            put(
                left - 0.1,
                base + tall / 2,
                band.label,
                _TITLE_PT,
                va="center",
                ha="right",
                color=_PALE,
            )
        for index, panel in enumerate(band.panels):
            x = left + index * (cell + _GAP)
            if title:
                text = clipped(panel.title, cell, _TITLE_PT)
                put(
                    x + cell / 2, base - 0.04, text, _TITLE_PT, va="bottom", ha="center", color=_INK
                )
            box = (x / width_in, 1 - (base + tall) / height_in, cell / width_in, tall / height_in)
            axes = figure.add_axes(box)
            axes.imshow(panel.pixels, aspect="auto")
            axes.set_axis_off()
        top += height + _GAP
    return figure


def _label_in(lines: list[str]) -> float:
    return max(map(len, lines)) * _TITLE_PT * 0.56 / 72 + 0.14 if lines else 0.0


def _cell(width_in: float, columns: int) -> float:
    return (width_in - _GAP * (columns - 1)) / columns


def _heading_in(heading: str) -> float:
    return (heading.count("\n") + 1) * _HEADING_PT * _LINE + 0.05 if heading else 0.0


def _letters(width_in: float, points: float) -> int:
    """How many letters of average width fit."""
    return max(3, int(width_in * 72 / (points * 0.56)))


def _wrapped(text: str, width_in: float) -> str:
    fits = _letters(width_in, _HEADING_PT)
    return "\n".join(textwrap.wrap(printable(text), fits, max_lines=3, placeholder=" …"))


def clipped(text: str, width_in: float, points: float) -> str:
    """The beginning of a text that fits, as :func:`printable`."""
    text, fits = printable(text), _letters(width_in, points)
    return text if len(text) <= fits else text[: fits - 1] + "…"


def printable(text: str) -> str:
    """The text with a box for what the font cannot draw."""
    glyphs = _glyphs()
    return "".join(c if ord(c) in glyphs or c.isspace() else "□" for c in text)


@functools.cache
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())
