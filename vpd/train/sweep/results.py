"""What the finished cells of a sweep found: rows, a table over seeds, pictures."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpd.data.files import json_lines, write_texts
from vpd.train.sweep.cell import read_inference, read_result
from vpd.train.sweep.grid import INFERENCE, Cell, Picture, SweepConfig

if TYPE_CHECKING:
    from vpd.viz.lines import Line

__all__ = ["course", "draw", "read_rows", "summary", "table", "write_results"]

_DIGITS = {
    "refer": 2,
    "semantic": 2,
    "panoptic": 2,
    "open-panoptic": 2,
    "depth": 4,
}  # of percentages; of fractions and metres


def read_rows(config: SweepConfig, cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """One flat row per trained cell, and one more for each condition that it was scored under:
    ``cell``, a column per axis, ``variant``, ``inference``, ``seed``, ``seconds``, ``resumed``,
    ``set.<field>`` of its overrides, ``at.<field>`` of the condition, and its metrics."""
    rows = []
    for cell in cells:
        folder = Path(cell.config.out)
        found = read_result(folder)
        if found is None:
            continue
        row = {"cell": cell.name}
        row |= {axis: cell.choices.get(axis, "") for axis in config.axes}
        row |= {"variant": cell.variant, INFERENCE: ""}
        row |= {name: found[name] for name in ("seed", "seconds", "resumed")}
        row |= {f"set.{name}": value for name, value in cell.overrides.items()}
        rows.append(row | found["metrics"])
        for name, scored in read_inference(folder).items():
            if name in config.inference:
                at = {f"at.{field}": value for field, value in scored["fields"].items()}
                rows.append(row | {INFERENCE: name} | at | scored["metrics"])
    return rows


def table(config: SweepConfig, rows: list[dict[str, Any]]) -> str:
    """Mean, and standard deviation where there are several seeds, of the chosen metrics."""
    keys = _keys(config)
    head = [*keys, *config.columns, "seeds", "minutes"]
    lines = [head, ["---"] * len(head)]
    for names, group in _groups(config, rows).items():
        found = [[row[c] for row in group if c in row] for c in config.columns]
        cells = [_spread(values, _DIGITS[config.task]) for values in found]
        minutes = statistics.mean(row["seconds"] for row in group) / 60
        lines.append([*names, *cells, str(len(group)), f"{minutes:.1f}"])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def summary(config: SweepConfig, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per group of seeds and metric: ``mean``, and with several seeds ``std`` and the limits of
    the mean's 95 % confidence interval (Student's t), ``low`` and ``high``."""
    found = []
    for names, group in _groups(config, rows).items():
        own = dict(zip(_keys(config), names, strict=True))
        for metric in config.columns:
            values = [row[metric] for row in group if metric in row]
            if values:
                found.append({**own, "metric": metric, "seeds": len(values), **_interval(values)})
    return found


def _keys(config: SweepConfig) -> list[str]:
    extra = {"variant": config.variants, INFERENCE: config.inference}
    return [*config.axes, *(name for name, used in extra.items() if used)]


def _groups(
    config: SweepConfig, rows: list[dict[str, Any]]
) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Rows that differ in the seed alone."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in _keys(config)), []).append(row)
    return groups


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _interval(values: list[float]) -> dict[str, float]:
    mean = statistics.mean(values)
    if len(values) < 2:
        return {"mean": mean}
    from scipy.stats import t

    std = statistics.stdev(values)
    half = float(t.ppf(0.975, len(values) - 1)) * std / len(values) ** 0.5
    return {"mean": mean, "std": std, "low": mean - half, "high": mean + half}


def write_results(config: SweepConfig, rows: list[dict[str, Any]]) -> list[Path]:
    """Writes ``results.jsonl``, the record, and what is drawn from it: ``results.csv``,
    ``summary.csv`` and ``table.md``."""
    texts = {
        "results.jsonl": json_lines(rows),
        "results.csv": _csv(rows),
        "summary.csv": _csv(summary(config, rows)),
        "table.md": table(config, rows),
    }
    return write_texts(config.out, texts)


def _csv(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def course(folder: Path, metric: str) -> list[tuple[int, float]]:
    """(steps done, value) of a metric that a run has logged."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(metric)]
    return sorted({int(row["step"]) + 1: float(row[metric]) for row in rows}.items())


def draw(config: SweepConfig, cells: list[Cell], rows: list[dict[str, Any]]) -> list[Path]:
    """Draws the pictures that have something to show."""
    files = []
    for name, picture in config.pictures.items():
        lines = _lines(config, cells, rows, picture)
        if lines:
            from vpd.viz.lines import lines_figure

            x_label = picture.x_label or picture.x or "training steps"
            figure = lines_figure(
                lines, x_label=x_label, y_label=picture.metric, log_x=picture.log_x
            )
            files.append(figure.save(Path(config.out) / f"{name}.png"))
    return files


def _lines(
    config: SweepConfig, cells: list[Cell], rows: list[dict[str, Any]], picture: Picture
) -> list[Line]:
    """One line per combination of choices on ``picture.lines``: at each x the mean over seeds."""
    from vpd.viz.lines import Line

    points: dict[tuple[str, ...], dict[float, list[float]]] = {}
    for names, xs in _points(config, cells, rows, picture):
        line = points.setdefault(tuple(names[axis] for axis in picture.lines), {})
        for x, value in xs:
            line.setdefault(x, []).append(value)
    lines = []
    places = [list(dict.fromkeys(key[i] for key in points)) for i in range(len(picture.lines))]
    for key, line in points.items():
        if not line:
            continue
        at = sorted(line)
        looks = [place.index(name) for place, name in zip(places, key, strict=True)]
        color, style = (*looks, 0, 0)[:2]
        spread = [statistics.stdev(line[x]) if len(line[x]) > 1 else 0.0 for x in at]
        means = [statistics.mean(line[x]) for x in at]
        label = ", ".join(name or "as trained" for name in key) or picture.metric
        lines.append(Line(label, at, means, spread, color, style))
    return lines


def _points(
    config: SweepConfig, cells: list[Cell], rows: list[dict[str, Any]], picture: Picture
) -> Iterator[tuple[dict[str, str], list[tuple[float, float]]]]:
    """Choices and (x, metric) of every run of the grid that a picture shows."""
    by_name = {cell.name: cell for cell in cells}
    if picture.x is None:
        for cell in cells:
            names = {**cell.choices, INFERENCE: ""}
            if _shown(config, cell, picture, names):
                found = course(Path(cell.config.out), picture.metric)
                yield names, [(float(step), value) for step, value in found]
        return
    inferred = INFERENCE in (picture.x, *picture.lines, *picture.at)
    for row in rows:
        cell = by_name[row["cell"]]
        names = {**cell.choices, INFERENCE: row[INFERENCE]}
        if not _shown(config, cell, picture, names) or (row[INFERENCE] and not inferred):
            continue
        if names[picture.x]:  # empty: as trained
            yield names, [(float(names[picture.x]), row[picture.metric])]


def _shown(config: SweepConfig, cell: Cell, picture: Picture, names: dict[str, str]) -> bool:
    of_grid = not cell.variant and len(cell.choices) == len(config.axes)
    return of_grid and all(names[axis] == choice for axis, choice in picture.at.items())
