"""``vpd bench``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from vpd.cli.answer import Answer


def bench(
    name: str | None = None,
    *,
    folder: Path = Path("benchmarks"),
    quick: bool = False,
    draw: Path | None = None,
) -> Answer:
    """Lists the benchmark scripts of a source checkout, runs one of them, or draws what they found.

    Args:
        name: the script to run, without .py; none lists them
        folder: where they lie
        quick: end within a minute
        draw: the picture to make of the records in FOLDER/results, time and memory by contestant
    """
    if draw is not None:
        if name is not None or quick:
            raise ValueError("--draw draws records that are there: no NAME, no --quick beside it")
        from vpd.viz.costs import costs_figure, read_costs

        saved = costs_figure(read_costs(folder / "results")).save(draw)
        return Answer({"picture": str(saved)}, str(saved))
    scripts = {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}
    if not scripts:
        raise ValueError(
            f"{folder}: expected benchmark scripts here; run in a source checkout of vpd"
        )
    if name is None:
        return Answer({"benchmarks": list(scripts)}, "\n".join(scripts))
    if name not in scripts:
        raise ValueError(f"benchmark must be one of {', '.join(scripts)}, got {name!r}")
    command = [sys.executable, str(scripts[name]), "--json", *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    try:
        data = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise ValueError(
            f"{scripts[name]} printed no JSON object (exit code {done.returncode})"
        ) from None
    lines = [
        f"{check['name']}: {check['value']} (limit {check['limit']}) "
        + ("ok" if check["ok"] else "MISSED")
        for check in data.get("checks", [])
    ]
    return Answer(data, "\n".join(lines) or done.stdout, code=0 if done.returncode == 0 else 1)
