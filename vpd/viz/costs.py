"""What things cost beside their peers, as bars: seconds and memory of benchmark records."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg

from vpd.data.files import parse_json
from vpd.viz.lines import COLORS
from vpd.viz.page import Picture, printable

__all__ = ["Cost", "costs_figure", "read_costs"]

_OURS, _PEERS = COLORS[0], "#b4b4b4"
_BAR_IN, _HEAD_IN, _WIDTH_IN = 0.23, 0.62, 4.2
_UNITS = {"peak_mib_above_weights": "MiB", "peak_gb_above_weights": "GB"}


@dataclass(frozen=True)
class Cost:
    """One panel: what each contestant costs. Those whose names begin with ``vpd`` come first and
    stand out."""

    title: str
    values: Mapping[str, float]
    unit: str = "s"


def read_costs(folder: str | os.PathLike[str]) -> list[tuple[Cost, Cost | None]]:
    """Time and, where it was taken, peak memory above the weights, of every record of a benchmark
    that has a ``title`` and ``seconds`` by contestant (the fastest run counts).

    Raises:
        OSError: A record cannot be read. ValueError: One that is no JSON object, or no record with
            a title.
    """
    found = []
    for path in sorted(Path(folder).glob("*.json")):
        record = parse_json(path.read_bytes(), path)
        if not isinstance(record, dict):
            raise ValueError(f"{path}: expected an object by field")
        if "title" not in record:
            continue
        title = str(record["title"])
        time = Cost(title, {kind: min(runs) for kind, runs in record["seconds"].items()})
        memory = [Cost(title, record[key], unit) for key, unit in _UNITS.items() if key in record]
        found.append((time, memory[0] if memory else None))
    if not found:
        raise ValueError(f"{folder}: expected records of benchmarks with a title, got none")
    return found


def costs_figure(rows: Sequence[tuple[Cost, Cost | None]]) -> Picture:
    """One row of two panels for each benchmark, time and memory.

    Raises:
        ValueError: Nothing to draw, or a cost that is not a positive number.
    """
    for given in (cost for row in rows for cost in row if cost is not None):
        if not given.values or not all(math.isfinite(v) and v > 0 for v in given.values.values()):
            raise ValueError(f"{given.title!r}: expected positive numbers, got {given.values}")
    if not rows:
        raise ValueError("a figure of costs needs at least one benchmark, got none")
    heights = [_HEAD_IN + _BAR_IN * len(time.values) for time, _ in rows]
    figure = Picture(figsize=(2 * _WIDTH_IN, sum(heights)), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows), 2, height_ratios=heights)
    for row, costs in enumerate(rows):
        for column, cost in enumerate(costs):
            if cost is not None:
                title = "peak memory above the weights" if column else f"{cost.title}: time"
                _panel(figure.add_subplot(grid[row, column]), cost, title)
    return figure


def _panel(axes: Any, cost: Cost, title: str) -> None:
    ordered = sorted(cost.values.items(), key=lambda named: not named[0].startswith("vpd"))
    names, values = [name for name, _ in ordered], [value for _, value in ordered]
    colors = [_OURS if name.startswith("vpd") else _PEERS for name in names]
    axes.barh(range(len(names)), values, color=colors, height=0.74)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, max(values) * 1.2)
    axes.set_yticks(range(len(names)), [printable(n) for n in names], fontsize=8, parse_math=False)
    for at, value in enumerate(values):
        number = f"{value:#.3g}".rstrip(".")
        axes.text(value, at, f" {number} {cost.unit}", fontsize=7.5, va="center", parse_math=False)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(printable(title), fontsize=8.5, loc="left", parse_math=False)
