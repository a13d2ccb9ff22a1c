"""What the benchmark scripts share: the machine's description, memory readings, the report."""

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


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}: memory is measured on Linux only")


def rss() -> int:
    """Resident bytes of this process."""
    return _status("VmRSS")


def peak_rss() -> int:
    """Largest number of resident bytes since the last reset."""
    return _status("VmHWM")


def reset_peak_rss() -> None:
    Path("/proc/self/clear_refs").write_text("5")


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
