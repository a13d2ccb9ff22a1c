"""Curves of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vpd.viz.page import Picture

__all__ = ["training_curves"]

_COLUMNS, _CELL_IN = 3, (2.9, 2.1)
_RAW, _MEAN = "#c9d4e4", "#1f4e8c"
_WINDOW = 25  # logged rows of the running mean


def training_curves(rows: Sequence[Mapping[str, str | float]]) -> Picture:
    """One small plot per metric of a log, against the step.

    Metrics of one family (``rise/t500``, ``rise/t700``) share a plot. Densely logged ones (a loss)
    are shown with their running mean over 25 rows.

    Args:
        rows: Rows of ``metrics.csv``; an empty or missing cell means not logged at that step.
    """
    families: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        for key, value in row.items():
            if key in ("step", "epoch") or value in ("", None):
                continue
            family, _, member = key.partition("/")
            points = families.setdefault(family, {}).setdefault(member or family, [])
            points.append((float(row["step"]), float(value)))
    if not families:
        raise ValueError("training_curves: expected rows of metrics beside their step, got none")
    down = -(-len(families) // _COLUMNS)
    width, height = _CELL_IN
    figure = Picture(figsize=(width * min(_COLUMNS, len(families)), height * down))
    grid = figure.subplots(down, min(_COLUMNS, len(families)), squeeze=False)
    for axes in list(grid.flat)[len(families) :]:
        axes.set_visible(False)
    for axes, (family, members) in zip(grid.flat, sorted(families.items()), strict=False):
        for name, points in sorted(members.items()):
            steps, values = np.array(sorted(points)).T
            if len(values) > 4 * _WINDOW:
                axes.plot(steps, values, color=_RAW, linewidth=0.6)
                mean = np.convolve(values, np.ones(_WINDOW) / _WINDOW, mode="valid")
                axes.plot(steps[_WINDOW - 1 :], mean, color=_MEAN, linewidth=1.3)
            else:
                axes.plot(steps, values, marker=".", linewidth=1.2, markersize=4, label=name)
        if len(members) > 1:
            axes.legend(fontsize=6, frameon=False)
        axes.set_title(family, fontsize=8.5)
        axes.set_xlabel("step", fontsize=7)
        axes.tick_params(labelsize=6.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#eeeeee", linewidth=0.6)
    figure.tight_layout()
    return figure
