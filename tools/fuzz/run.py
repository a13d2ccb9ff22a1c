"""Feeds damaged files to vpd's readers, each target for some seconds, one after another.

A reader may return or raise what it documents: ValueError with the file's name in it, or OSError.
Anything else, a crash, a hang or memory without bound is a finding: the input is kept, the exit
code is 1. Each target runs in processes of its own. Cases are numbered: with the same corpus,
`--target T --first N --count 1` repeats one.

Targets that begin with "core-" are the C++ readers under AddressSanitizer and
UndefinedBehaviorSanitizer, in the program that `--program` names.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fuzz import CORPUS
from fuzz.targets import TARGETS

MARKS = ("<!-- fuzz:begin -->", "<!-- fuzz:end -->")
SECONDS_A_CHILD = 120.0
MOST_SECONDS = 600.0  # beyond that, for its imports and for a case that does not end
CORE = {
    "safetensors": "safetensors files",
    "torch-zip": "PyTorch checkpoints",
    "zip": "zip directories",
    "pickle": "the pickle machine",
    "json": "JSON",
    "merges": "vocabularies",
    "text": "sentences (tokenizer)",
}
"""Targets of vpd_fuzz, and what they read."""


@dataclass
class Outcome:
    """What became of a target."""

    target: str
    what: str
    seconds: float = 0.0
    inputs: int = 0
    findings: int = 0


def _keep(found: Path, keep: Path, name: str, said: str) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    kept = keep / f"{name}-{found.name}"
    kept.write_bytes(found.read_bytes())
    print(f"FOUND: {kept}\n{said[-1500:]}", flush=True)


def _process(command: list[str], seconds: float, folder: str) -> tuple[bool, str, list[Path]]:
    """Runs a child; whether it failed, what it said, and the input it died of."""
    env = {**os.environ, "OPENCV_LOG_LEVEL": "SILENT", "OMP_NUM_THREADS": "1"}
    env["ASAN_OPTIONS"] = "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=4096"
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, env=env)
        failed, said = done.returncode != 0, (done.stdout + done.stderr).decode(errors="replace")
        said += f"exit code {done.returncode}\n" if failed else ""
    except subprocess.TimeoutExpired:
        failed, said = True, f"no end within {seconds:.0f} s"
    return failed, said, sorted(p for p in Path(folder).iterdir() if p.is_file())


def run_python(name: str, seconds: float, first: int, keep: Path) -> Outcome:
    """Cases in child processes; importing what they read with is not counted as time."""
    outcome = Outcome(name, TARGETS[name].what)
    number = first
    while (left := seconds - outcome.seconds) > 0:
        with tempfile.TemporaryDirectory() as folder:
            span = min(left, SECONDS_A_CHILD)
            words = ["--target", name, "--first", str(number), "--count", "1000000"]
            words += ["--seconds", f"{span:.1f}", "--keep", folder]
            command = [sys.executable, str(Path(__file__).parent), *words]
            begin = time.monotonic()
            failed, said, inputs = _process(command, span + MOST_SECONDS, folder)
            if failed and not inputs:
                sys.exit(f"{name}: the reader did not start:\n{said}")
            if failed:
                outcome.findings += 1
                _keep(inputs[0], keep, name, said)
                count, took = int(inputs[0].name) + 1 - number, time.monotonic() - begin
            else:
                count, took = int(said.split()[0]), float(said.split()[1])
            number += count
            outcome.inputs += count
            outcome.seconds += took
    return outcome


def run_core(name: str, seconds: float, seed: int, keep: Path, program: Path) -> Outcome:
    """The C++ reader in batches of half a minute."""
    outcome = Outcome(f"core-{name}", CORE[name])
    begin = time.monotonic()
    while (left := seconds - (time.monotonic() - begin)) > 0:
        with tempfile.TemporaryDirectory() as folder:
            span = min(left, 30.0)
            words = [str(CORPUS / name), f"{span:.1f}", str(seed), folder]
            command = [str(program), name, *words]
            failed, said, inputs = _process(command, span + MOST_SECONDS, folder)
            if failed and not inputs:
                sys.exit(f"core-{name}: the reader did not start:\n{said}")
            if failed:
                outcome.findings += 1
                _keep(inputs[0], keep, f"core-{name}", said)
            else:
                outcome.inputs += int(said.split()[0])
            seed += 1
    outcome.seconds = time.monotonic() - begin
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """Rows for docs/reliability.md."""
    lines = ["| target | reads | minutes | inputs | findings |", "| --- | --- | --- | --- | --- |"]
    for o in outcomes:
        minutes = f"{o.seconds / 60:.1f}"
        lines.append(f"| `{o.target}` | {o.what} | {minutes} | {o.inputs:,} | {o.findings} |")
    inputs, findings = sum(o.inputs for o in outcomes), sum(o.findings for o in outcomes)
    minutes = f"{sum(o.seconds for o in outcomes) / 60:.0f}"
    return "\n".join([*lines, f"| all | | {minutes} | {inputs:,} | {findings} |"])


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    return json.loads(path.read_text()) if path.is_file() else {}


def report(path: Path, outcome: Outcome) -> None:
    """Puts an outcome in the place of the target's last one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = _rows(path) | {outcome.target: asdict(outcome)}
    path.write_text(json.dumps(rows, indent=1) + "\n")


def write_table(path: Path, outcomes: list[Outcome]) -> None:
    """Puts the table between its marks in a page."""
    text = path.read_text()
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    path.write_text(f"{before}{MARKS[0]}\n{table(outcomes)}\n{MARKS[1]}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [*TARGETS, *(f"core-{name}" for name in CORE)]
    parser.add_argument("--target", nargs="+", choices=known, metavar="T", help=", ".join(known))
    parser.add_argument(
        "--seconds", type=float, default=120, help="for each target, one after another"
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--count", type=int, help="this many cases in this process, then stop")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz/found"))
    parser.add_argument("--program", type=Path, default=Path("build/fuzz/vpd_fuzz"))
    parser.add_argument("--report", type=Path, default=Path("build/fuzz/report.json"))
    parser.add_argument("--write", type=Path, help="page whose table becomes that of the report")
    given = parser.parse_args()
    if given.count is not None:
        from fuzz.child import run

        given.keep.mkdir(parents=True, exist_ok=True)
        run(given.target[0], given.first, given.count, given.seconds, given.keep)
        return
    chosen = given.target or known
    if any(name.startswith("core-") for name in chosen) and not given.program.is_file():
        parser.error(f"{given.program}: no such program; `make fuzz` builds it")
    outcomes = []
    for name in chosen:
        core = name.removeprefix("core-")
        if core != name:
            found = run_core(core, given.seconds, given.first, given.keep, given.program)
        else:
            found = run_python(name, given.seconds, given.first, given.keep)
        print(f"{name}: {found.inputs} inputs, {found.findings} findings", flush=True)
        outcomes.append(found)
        report(given.report, found)
    print(table(outcomes))
    if given.write is not None:
        rows = _rows(given.report)
        write_table(given.write, [Outcome(**rows[name]) for name in known if name in rows])
    sys.exit(any(o.findings for o in outcomes))
