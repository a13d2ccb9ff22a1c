"""The cells of a sweep: every combination of the choices on its axes, named variants, and seeds."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vpd.train.loop.recipe import flat
from vpd.train.sweep.inference import Inference
from vpd.train.tasks import Task, config_type

__all__ = [
    "INFERENCE", "Cell", "Choice", "Picture", "SweepConfig", "Variant", "cells_of",
    "chosen", "values_of",
]  # fmt: skip


_OWN = {"seed", "out", "progress"}


@dataclass(frozen=True)
class Choice:
    """One place on an axis."""

    set: dict[str, Any] = field(default_factory=dict)
    """Fields of `vpd train`, by dotted name."""
    seeds: tuple[int, ...] | None = None
    """Of the cells with this choice; the last axis that names any decides."""


@dataclass(frozen=True)
class Variant:
    """Cells beside the grid: one point of it, changed."""

    at: dict[str, str] = field(default_factory=dict)
    """Axis -> the name of a choice; an axis left out is left at the base."""
    set: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Picture:
    """A picture of results: one line for each combination of choices on the axes ``lines``."""

    lines: tuple[str, ...] = ()
    x: str | None = None
    """An axis whose choices are numbers, or ``inference`` where its conditions are. None: training
    steps, on the images watched meanwhile."""
    at: dict[str, str] = field(default_factory=dict)
    """Only cells with these choices."""
    metric: str = "oIoU"
    log_x: bool = False
    x_label: str | None = None


INFERENCE = "inference"
"""Column of the conditions under which a trained cell was scored."""


@dataclass(frozen=True)
class SweepConfig:
    """Runs of `vpd train` that differ in a few fields."""

    out: str = "runs/sweep"
    task: Task = "refer"
    """What is trained."""
    base: str | None = None
    """A config file of `vpd train`; None for its defaults."""
    set: dict[str, Any] = field(default_factory=dict)
    """Fields on top of it, nested or by dotted name."""
    axes: dict[str, dict[str, Choice] | list[Any] | str] = field(default_factory=dict)
    """Axis -> name -> choice; or a field's dotted name -> list of its values, or their range
    as text, ``0 to 500 by 100``, both ends included."""
    inference: dict[str, Inference] = field(default_factory=dict)
    """Name -> what is changed when trained cells are scored once more, without training; of the
    task ``refer`` alone."""
    variants: dict[str, Variant] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    columns: tuple[str, ...] = ("oIoU", "mIoU", "P@0.5", "pick")
    """Metrics of the table."""
    pictures: dict[str, Picture] = field(default_factory=dict)
    """File name -> picture."""
    progress: bool = False


@dataclass(frozen=True)
class Cell:
    """One run."""

    name: str
    """Of its folder: its variant, or else the names of its choices, and its seed."""
    choices: dict[str, str]
    variant: str
    seed: int
    overrides: dict[str, Any]
    """What it sets on top of the base, by dotted name."""
    config: Any
    """Of the training: :func:`vpd.train.tasks.config_type`."""


def cells_of(sweep: SweepConfig) -> list[Cell]:
    """Every cell, in the order in which they run: variants behind the grid.

    Raises:
        ValueError: An unknown field, axis or choice (with the nearest one as a suggestion), a value
            of the wrong type, or two cells of the same name.
        OSError: The base cannot be read.
    """
    for name in _OWN & flat(sweep.set).keys():
        raise ValueError(f"set: {_own(name)}")
    base = _merged(flat(_read_base(sweep)), flat(sweep.set))
    axes = {axis: _choices(axis, values) for axis, values in sweep.axes.items()}
    if INFERENCE in axes or "" in sweep.inference:
        raise ValueError(f"an axis must not be named {INFERENCE!r}, nor a condition ''")
    if sweep.inference and sweep.task != "refer":
        raise ValueError(f"inference is for the task refer alone, got task={sweep.task}")
    for name, picture in sweep.pictures.items():
        for axis in (*picture.lines, *picture.at, *([picture.x] if picture.x else [])):
            _known(axis, [*axes, INFERENCE], f"pictures.{name}: unknown axis")
    cells: list[Cell] = []
    for names in itertools.product(*axes.values()) if axes else ():
        cells += _seeded(sweep, base, axes, dict(zip(axes, names, strict=True)), "", Variant())
    for label, variant in sweep.variants.items():
        for axis, name in variant.at.items():
            _known(axis, axes, f"variants.{label}.at: unknown axis")
            _known(name, axes[axis], f"variants.{label}.at.{axis}: unknown choice")
        cells += _seeded(sweep, base, axes, variant.at, label, variant)
    if not axes and not sweep.variants:
        cells += _seeded(sweep, base, axes, {}, "", Variant())
    seen: set[str] = set()
    for cell in cells:
        if cell.name in seen:
            raise ValueError(f"two cells are named {cell.name!r}: name choices and variants apart")
        seen.add(cell.name)
    return cells


def chosen(cells: list[Cell], patterns: Iterable[str] | None) -> list[Cell]:
    """The cells whose name matches one of the patterns (``random-*``); all without patterns.

    Raises:
        ValueError: A pattern that matches no cell.
    """
    if patterns is None:
        return cells
    found: set[str] = set()
    for pattern in patterns:
        hits = {cell.name for cell in cells if fnmatchcase(cell.name, pattern)}
        if not hits:
            near = difflib.get_close_matches(pattern, [cell.name for cell in cells], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"no cell matches {pattern!r}{hint} (--dry-run lists them)")
        found |= hits
    return [cell for cell in cells if cell.name in found]


def _seeded(
    sweep: SweepConfig,
    base: dict[str, Any],
    axes: dict[str, dict[str, Choice]],
    at: dict[str, str],
    label: str,
    variant: Variant,
) -> Iterator[Cell]:
    from vpd.cli.parser import read

    picked = [axes[axis][name] for axis, name in at.items()]
    overrides = _merged(*(flat(choice.set) for choice in picked), flat(variant.set))
    for name in _OWN & overrides.keys():
        raise ValueError(f"cell {label or '-'.join(at.values())}: {_own(name)}")
    named = [choice.seeds for choice in picked if choice.seeds is not None]
    seeds = variant.seeds or (named[-1] if named else sweep.seeds)
    where = label or "-".join(at.values()) or "base"
    try:
        config = read(config_type(sweep.task), _nested(_merged(base, overrides)))
    except ValueError as error:
        raise ValueError(f"cell {where}: {error}") from error
    for seed in seeds:
        name = _file_name(f"{where}-s{seed}")
        out = str(Path(sweep.out) / name)
        run = replace(config, seed=seed, out=out, progress=sweep.progress)
        yield Cell(name, dict(at), label, seed, overrides, run)


def _own(name: str) -> str:
    return f"{name!r} is decided by the sweep: use its own 'seeds', 'out' and 'progress'"


def _read_base(sweep: SweepConfig) -> dict[str, Any]:
    if sweep.base is None:
        return {}
    import yaml

    try:
        found = yaml.safe_load(Path(sweep.base).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{sweep.base} is not valid YAML: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{sweep.base}: expected fields of vpd train, got {type(found).__name__}")
    return found


def _choices(axis: str, values: dict[str, Choice] | list[Any] | str) -> dict[str, Choice]:
    """Values of a field as choices named after them."""
    if isinstance(values, dict):
        return values
    if isinstance(values, str):
        values = values_of(axis, values)
    return {str(value): Choice({axis: value}) for value in values}


def values_of(axis: str, text: str) -> list[float]:
    """The numbers of a range such as ``0 to 500 by 100``.

    Raises:
        ValueError: Another text, or a range without numbers.
    """
    number = r"(-?[\d.]+(?:e-?\d+)?)"
    found = re.fullmatch(rf"\s*{number} to {number} by {number}\s*", text)
    try:
        start, stop, step = map(float, found.groups() if found else ())
        if step <= 0 or stop < start:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"axis {axis}: expected '<start> to <stop> by <step>', got {text!r}"
        ) from None
    numbers = (start + i * step for i in range(int((stop - start) / step + 1e-9) + 1))
    return [int(v) if v.is_integer() else round(v, 12) for v in numbers]


def _known(name: str, known: Iterable[str], where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
        raise ValueError(f"{where} {name!r}{hint}")


def _merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Later layers on top of earlier ones. A field replaces what it contains and what contains
    it: ``noise.noise_t`` goes over ``noise: null``."""
    found: dict[str, Any] = {}
    for layer in layers:
        for name in layer:
            found = {
                old: value
                for old, value in found.items()
                if not (old.startswith(name + ".") or name.startswith(old + "."))
            }
        found |= layer
    return found


def _nested(fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields.items():
        *path, leaf = name.split(".")
        place = found
        for part in path:
            place = place.setdefault(part, {})
        place[leaf] = value
    return found


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+=-]", "_", name)
