"""Scores of several runs as lines: against the amount of data, training steps, a timestep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import FuncFormatter, NullLocator

from vpd.viz.page import Picture

__all__ = ["COLORS", "Line", "lines_figure"]

# Okabe and Ito's palette: told apart with every kind of colour vision.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))


@dataclass(frozen=True)
class Line:
    """One line: y over x, ascending."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] = ()
    """Half the height of the error bar of each point, 0 for none; () for no bars."""
    color: int = 0
    """Lines of one colour, or of one style, have something in common."""
    style: int = 0


def lines_figure(
    lines: Sequence[Line], *, x_label: str, y_label: str, log_x: bool = False
) -> Picture:
    """Lines over a common axis, with error bars and a legend.

    With ``log_x`` the axis is logarithmic and marked at the points themselves.

    Raises:
        ValueError: No line, or one whose x, y and spread are not of one length.
    """
    if not lines:
        raise ValueError("a figure of lines needs at least one, got none")
    figure = Picture(figsize=(6.2, 4.0), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for line in lines:
        if not len(line.x) == len(line.y) == len(line.spread or line.x):
            raise ValueError(
                f"line {line.label!r}: expected x, y and spread of one length, got "
                f"{len(line.x)}, {len(line.y)} and {len(line.spread)}"
            )
        dash, marker = _STYLES[line.style % len(_STYLES)]
        axes.errorbar(
            line.x,
            line.y,
            yerr=line.spread if any(line.spread) else None,
            label=line.label,
            color=COLORS[line.color % len(COLORS)],
            linestyle=dash,
            marker=marker,
            markersize=4,
            linewidth=1.5,
            capsize=3,
        )
    if log_x:
        axes.set_xscale("log")
        axes.set_xticks(sorted({x for line in lines for x in line.x}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure
