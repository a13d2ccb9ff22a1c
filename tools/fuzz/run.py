"""Feeds damaged files to vpd's readers, each target for some seconds.

libFuzzer makes the inputs: it changes those of the corpus and keeps what reaches new code. A reader
may return or raise what it documents: ValueError with the file's name in it, or OSError. Anything
else, a crash, a hang or memory without bound is a finding: the input is kept, the target ends, the
exit code is 1. `--target T --input FILE` repeats one.

Targets that begin with "core-" are the C++ readers under AddressSanitizer and
UndefinedBehaviorSanitizer, in the program that `--program` names; the others are driven by Atheris.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fuzz.fuzzer import CORE, Fuzzer, Outcome
from fuzz.targets import TARGETS

MARKS = ("<!-- fuzz:begin -->", "<!-- fuzz:end -->")


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
    parser.add_argument("--seconds", type=int, default=120, help="for each target")
    parser.add_argument("--jobs", type=int, default=1, help="this many targets at a time")
    parser.add_argument("--input", type=Path, help="give the target this file, nothing else")
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("build/fuzz"),
        help="folder of the report, of logs, findings and inputs that reached new code",
    )
    parser.add_argument("--program", type=Path, default=Path("build/fuzz/vpd_fuzz"))
    parser.add_argument("--write", type=Path, help="page whose table becomes that of the report")
    given = parser.parse_args()
    chosen = [Fuzzer(name, given.program, given.keep) for name in given.target or known]
    if any(fuzzer.core for fuzzer in chosen) and not given.program.is_file():
        parser.error(f"{given.program}: no such program; `make fuzz` builds it")
    if given.input is not None:
        if not given.input.is_file() or len(chosen) != 1:
            parser.error(f"--input: expected a file and one --target, got {given.input}")
        sys.exit(chosen[0].call([str(given.input)]))
    outcomes = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for outcome in pool.map(lambda fuzzer: fuzzer.run(given.seconds), chosen):
            print(
                f"{outcome.target}: {outcome.inputs} inputs, {outcome.findings} findings",
                flush=True,
            )
            outcomes.append(outcome)
            report(given.keep / "report.json", outcome)
    print(table(outcomes))
    if given.write is not None:
        rows = _rows(given.keep / "report.json")
        write_table(given.write, [Outcome(**rows[name]) for name in known if name in rows])
    sys.exit(any(outcome.findings for outcome in outcomes))
