"""What the finished cells of a sweep found: rows, a table over seeds, pictures."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpd.data.files import atomic_write
from vpd.train.sweep_grid import Cell, Picture, SweepConfig

if TYPE_CHECKING:
    from vpd.viz.lines import Line

__all__ = ["course", "draw", "read_rows", "table", "write_results"]


def read_rows(config: SweepConfig, cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """One flat row per finished cell: ``cell``, a column per axis, ``variant``, ``seed``,
    ``seconds``, ``resumed``, ``set.<field>`` of its overrides, and its metrics."""
    rows = []
    for cell in cells:
        path = Path(config.out) / cell.name / "result.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        row = {"cell": cell.name}
        row |= {axis: cell.choices.get(axis, "") for axis in config.axes}
        row |= {"variant": cell.variant}
        row |= {name: found[name] for name in ("seed", "seconds", "resumed")}
        row |= {f"set.{name}": value for name, value in cell.overrides.items()}
        rows.append(row | found["metrics"])
    return rows


def table(config: SweepConfig, rows: list[dict[str, Any]]) -> str:
    """Mean, and standard deviation where there are several seeds, of the chosen metrics."""
    keys = [*config.axes, "variant"] if config.variants else [*config.axes]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    head = [*keys, *config.columns, "seeds", "minutes"]
    lines = [head, ["---"] * len(head)]
    for names, group in groups.items():
        cells = [_spread([row[c] for row in group if c in row]) for c in config.columns]
        minutes = statistics.mean(row["seconds"] for row in group) / 60
        lines.append([*names, *cells, str(len(group)), f"{minutes:.1f}"])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def write_results(config: SweepConfig, cells: list[Cell]) -> list[Path]:
    """Writes ``results.json`` and ``table.md``."""
    rows = read_rows(config, cells)
    out = Path(config.out)
    texts = {"results.json": json.dumps(rows, indent=1) + "\n", "table.md": table(config, rows)}
    for name, text in texts.items():
        with atomic_write(out / name) as file:
            file.write(text.encode())
    return [out / name for name in texts]


def course(folder: Path, metric: str) -> list[tuple[int, float]]:
    """(steps done, value) of a metric that a run has logged."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(metric)]
    return sorted({int(row["step"]) + 1: float(row[metric]) for row in rows}.items())


def draw(config: SweepConfig, cells: list[Cell]) -> list[Path]:
    """Draws the pictures that have something to show."""
    files = []
    for name, picture in config.pictures.items():
        lines = _lines(config, cells, picture)
        if lines:
            from vpd.viz.lines import lines_figure

            x_label = picture.x_label or picture.x or "training steps"
            figure = lines_figure(
                lines, x_label=x_label, y_label=picture.metric, log_x=picture.log_x
            )
            files.append(figure.save(Path(config.out) / f"{name}.png"))
    return files


def _lines(config: SweepConfig, cells: list[Cell], picture: Picture) -> list[Line]:
    """One line per combination of choices on ``picture.lines``: at each x the mean over seeds."""
    from vpd.viz.lines import Line

    points: dict[tuple[str, ...], dict[float, list[float]]] = {}
    for cell in cells:
        of_grid = not cell.variant and len(cell.choices) == len(config.axes)
        if not of_grid or any(cell.choices[a] != choice for a, choice in picture.at.items()):
            continue
        line = points.setdefault(tuple(cell.choices[axis] for axis in picture.lines), {})
        for x, value in _points(Path(config.out) / cell.name, cell, picture):
            line.setdefault(x, []).append(value)
    lines = []
    places = [list(dict.fromkeys(key[i] for key in points)) for i in range(len(picture.lines))]
    for key, line in points.items():
        if not line:
            continue
        xs = sorted(line)
        looks = [place.index(name) for place, name in zip(places, key, strict=True)]
        color, style = (*looks, 0, 0)[:2]
        spread = [statistics.stdev(line[x]) if len(line[x]) > 1 else 0.0 for x in xs]
        means = [statistics.mean(line[x]) for x in xs]
        lines.append(Line(", ".join(key) or picture.metric, xs, means, spread, color, style))
    return lines


def _points(folder: Path, cell: Cell, picture: Picture) -> list[tuple[float, float]]:
    if picture.x is None:
        return [(float(step), value) for step, value in course(folder, picture.metric)]
    path = folder / "result.json"
    if not path.exists():
        return []
    value = json.loads(path.read_text())["metrics"][picture.metric]
    return [(float(cell.choices[picture.x]), value)]
