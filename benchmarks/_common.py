"""What the benchmark scripts share: the machine's description, the report."""

from __future__ import annotations

import json
import os
import platform
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
    for name in ("diffusers", "transformers"):
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


def check(name: str, value: float, limit: float) -> dict[str, Any]:
    """One line of the verdict: the value must not exceed the limit."""
    return {"name": name, "value": value, "limit": limit, "ok": value <= limit}


def report(result: dict[str, Any], as_json: bool) -> None:
    """Prints one JSON object, or a readable summary."""
    if as_json:
        print(json.dumps(result))
        return
    print(json.dumps(result, indent=1))
    for line in result["checks"]:
        mark = "ok  " if line["ok"] else "MISS"
        print(f"{mark} {line['name']}: {line['value']:.4g} (limit {line['limit']:g})")
