"""Scores of several runs as bars, side by side in groups: conditions for each data set."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg

from vpd.data.files import parse_json
from vpd.viz.lines import COLORS
from vpd.viz.page import Picture, printable

__all__ = ["bars_figure", "read_bars"]

_ENTRY_IN, _LETTER_IN = 0.5, 0.062  # of the legend
_NOTE = "hatched: conditioned on the labels of the test pictures"


def read_bars(
    path: str | os.PathLike[str], *, metric: str, bar: str, group: str | None = None
) -> dict[str, dict[str, list[float]]]:
    """Values of a results file, as ``vpd sweep`` writes it (``results.jsonl``).

    Args:
        path: One JSON object a line.
        metric: Field of the values.
        bar: Field that tells bars apart, e.g. ``condition``.
        group: Field that tells groups apart, e.g. ``data``; None: one group.

    Returns:
        Group -> bar -> values, one for each row (seed) that has all three fields.

    Raises:
        OSError: It cannot be opened. ValueError: A line that is no JSON object, or no row with
            these fields.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: expected an object by field")
        if metric in row and bar in row and (group is None or group in row):
            bars = found.setdefault("" if group is None else str(row[group]), {})
            bars.setdefault(str(row[bar]), []).append(float(row[metric]))
    if not found:
        fields = ", ".join(name for name in (metric, bar, group) if name)
        raise ValueError(f"{path}: expected rows with the fields {fields}, got none")
    return found


def bars_figure(
    values: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    y_label: str,
    hatched: Sequence[str] = ("oracle",),
) -> Picture:
    """Mean of each bar, its value above it, error bars of one standard deviation (Figure 1 of the
    tagging adapter's paper: no condition beside true class names, for each data set).

    Args:
        values: Group -> bar -> values, as of :func:`read_bars`. A bar has one colour in all groups.
        y_label: What they measure.
        hatched: Bars that have seen what they should not: a note says so.

    Raises:
        ValueError: Nothing to draw.
    """
    bars = list(dict.fromkeys(name for group in values.values() for name in group))
    if not bars or not all(found for group in values.values() for found in group.values()):
        raise ValueError("a figure of bars needs at least one value for each bar")
    width = 0.8 / len(bars)
    size = max(4.2, 0.9 + 0.52 * sum(len(group) for group in values.values()))
    figure = Picture(figsize=(size, 3.8), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    top = 0.0
    for index, name in enumerate(bars):
        rows = [(x, group[name]) for x, group in enumerate(values.values()) if name in group]
        at = [x + (index - (len(bars) - 1) / 2) * width for x, _ in rows]
        means = [statistics.mean(found) for _, found in rows]
        spread = [statistics.stdev(found) if len(found) > 1 else 0.0 for _, found in rows]
        marked = name in hatched
        axes.bar(
            at,
            means,
            width * 0.92,
            yerr=spread if any(spread) else None,
            label=_text(name),
            color="white" if marked else COLORS[index % len(COLORS)],
            edgecolor=COLORS[index % len(COLORS)],
            hatch="///" if marked else None,
            capsize=3,
        )
        for x, mean, error in zip(at, means, spread, strict=True):
            axes.text(x, mean + error, f"{mean:.1f}", ha="center", va="bottom", fontsize=7.5)
            top = max(top, mean + error)
    axes.set_ylim(0, top * 1.12 or 1.0)
    axes.set_xticks(range(len(values)), [_text(name) for name in values])
    axes.set_ylabel(y_label)
    if any(name in hatched for name in bars):
        axes.set_xlabel(_NOTE, fontsize=7.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=0)
    entry = _ENTRY_IN + _LETTER_IN * max(len(_text(name)) for name in bars)
    columns = max(1, min(len(bars), 4, int(size / entry)))
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=columns)
    return figure


def _text(name: str) -> str:
    return printable(name).replace("$", r"\$")
