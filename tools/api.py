"""Writes docs/api.md, one line for every public name; ``--check`` only compares."""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import vpd
from vpd.cli import COMMANDS

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
MODULES = (
    *(f"vpd.{name}" for name in vpd._MODULES),
    "vpd.data.tabletop",
    "vpd.data.refer",
    "vpd.data.semantic",
    "vpd.data.depth",
    "vpd.data.panoptic",
    "vpd.data.panoptic_sets",
    "vpd.data.segments",
    "vpd.data.augment",
    "vpd.data.dense",
    "vpd.images",
    "vpd.models.clip",
    "vpd.protocol",
    "vpd.tasks",
    "vpd.tasks.class_texts",
    "vpd.tasks.clusters",
    "vpd.tasks.denoising",
    "vpd.tasks.dense_results",
    "vpd.tasks.evaluate",
    "vpd.tasks.evaluate_dense",
    "vpd.tasks.evaluate_edit",
    "vpd.tasks.panoptic_results",
    "vpd.tasks.results",
    "vpd.tasks.sdedit",
    "vpd.tasks.store",
    "vpd.tokens",
    "vpd.weights",
    "vpd.reference",
)
HEAD = """\
# Public names

Written by `tools/api.py` from the docstrings; `help(vpd.UNet)` says more. Names of the first table
are imported on first use, so `import vpd` stays light.
"""


def summary(thing: Any) -> str:
    """The first sentence or line of the docstring."""
    if not (inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)):
        return f"a {type(thing).__name__}"
    text = (inspect.getdoc(thing) or "").split("\n\n")[0]
    return " ".join(text.split()).replace("|", "\\|").replace("``", "`")


def call(name: str, thing: Any) -> str:
    """``name(a, b=1)``, without types."""
    if not callable(thing):
        return name
    try:
        parameters = inspect.signature(thing).parameters.values()
    except ValueError:
        return name
    shown = []
    for parameter in parameters:
        default = parameter.default
        short = "..." if len(repr(default)) > 20 or " at 0x" in repr(default) else repr(default)
        has_default = default is not inspect.Parameter.empty
        shown.append(parameter.name + (f"={short}" if has_default else ""))
    text = f"{name}({', '.join(shown)})"
    return text if len(text) <= 90 else f"{name}({', '.join(shown[:3])}, ...)"


def table(rows: list[tuple[str, str]]) -> list[str]:
    return ["| name | what it is |", "| --- | --- |", *(f"| `{n}` | {s} |" for n, s in rows), ""]


def public(module: Any) -> list[str]:
    """``__all__``, else what the module itself defines without an underscore."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    own = (n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__)
    return sorted(n for n in own if not n.startswith("_"))


def page() -> str:
    lines = [HEAD, "## vpd", ""]
    lines += table([(call(n, getattr(vpd, n)), summary(getattr(vpd, n))) for n in vpd._PUBLIC])
    lines += ["## The command line", ""]
    lines += table([(f"vpd {name}", text) for name, (_, text) in COMMANDS.items()])
    for name in sorted(MODULES):
        module = importlib.import_module(name)
        rows = [(call(n, getattr(module, n)), summary(getattr(module, n))) for n in public(module)]
        lines += [f"## {name}", "", summary(module), ""] + (table(rows) if rows else [])
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the file is out of date")
    check = parser.parse_args().check
    text = page()
    if not check:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.exit("docs/api.md is out of date: run `make stubs`")


if __name__ == "__main__":
    main()
