"""What the benchmark scripts share: the machine's description, the report."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Processor, threads and versions a figure was taken with."""
    model = platform.processor()
    for line in (
        Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    ):
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("diffusers", "transformers", "openvino"):
        try:
            versions[name] = __import__("importlib.metadata").metadata.version(name)
        except Exception:  # not installed: nothing to state
            continue
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": versions,
    }


def fresh(script: str, *words: str, quick: bool = False) -> dict[str, Any]:
    """What a script prints last, one JSON object, in a process of its own: nothing was in memory
    before it."""
    command = [sys.executable, script, *words, *(["--quick"] if quick else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def turns(names: Iterable[str], rounds: int) -> Iterator[str]:
    """Contestants in turn. Every round begins with the next one, so that none is always measured
    after the same: what ran before leaves caches and freed memory behind."""
    order = deque(names)
    for _ in range(rounds):
        yield from list(order)
        order.rotate(-1)


def check(name: str, value: float, limit: float) -> dict[str, Any]:
    """One line of the verdict: the value must not exceed the limit."""
    return {"name": name, "value": value, "limit": limit, "ok": value <= limit}


def main(measure: Callable[[argparse.Namespace], dict[str, Any]], about: str, quick: str) -> None:
    """The command line of a benchmark of single operators.

    Args:
        measure: From the options to what is reported beside the machine.
        about: The script's docstring.
        quick: What its short form leaves out.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--threads", type=int, help="threads of PyTorch; default: its own")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    report(measure(args), args.json)


def report(result: dict[str, Any], as_json: bool) -> None:
    """Prints one JSON object, or a readable summary; the command that made it comes with it."""
    script = f"benchmarks/{Path(sys.argv[0]).name}"
    result = {"command": " ".join(["python", script, *sys.argv[1:]])} | result
    if as_json:
        print(json.dumps(result))
        return
    print(json.dumps(result, indent=1))
    for line in result["checks"]:
        mark = "ok  " if line["ok"] else "MISS"
        print(f"{mark} {line['name']}: {line['value']:.4g} (limit {line['limit']:g})")
