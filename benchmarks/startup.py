"""What is waited for before the first picture: ``import vpd`` and a full-size model from its file.

    python benchmarks/startup.py [--json] [--quick]

Stable Diffusion v1.5's shapes with random weights are written once, in float32, as one safetensors
file of 4.3 GB below the temporary folder, and removed again. A run reads it first as a whole, so
that it comes from the page cache. Every figure is the least of several runs, each in a process of
its own; seconds are counted after ``import torch``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _common import check, fresh, machine, main


def imported() -> dict[str, float]:
    """Seconds of ``import vpd``, and until its loader of models is there."""
    start = time.perf_counter()
    import vpd

    light = time.perf_counter() - start
    assert vpd.load
    return {"import_s": light, "import_and_load_s": time.perf_counter() - start}


def ready(path: Path) -> dict[str, float]:
    """Seconds and peak memory until a foundation model of a file can be called."""
    from vpd.memory import peak_resident
    from vpd.tasks.sources import build_foundation

    with path.open("rb", buffering=0) as file:
        piece = bytearray(1 << 24)
        while file.readinto(piece):
            pass
    before = peak_resident()
    start = time.perf_counter()
    build_foundation([path])
    seconds = time.perf_counter() - start
    return {"ready_s": seconds, "ready_peak_gb": (peak_resident() - before) / 1e9}


def write(path: Path) -> None:
    """Stable Diffusion v1.5 of random weights."""
    import vpd
    from vpd.nn import uninitialised
    from vpd.tasks.foundation import Foundation

    model = uninitialised(Foundation)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.02, 0.02)
    vpd.save_weights(model, path)


def least(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: min(run[name] for run in runs) for name in runs[0]}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    runs = 2 if args.quick else 5
    found = least([fresh(__file__, "--imported") for _ in range(runs)])
    checks = [check("import vpd beyond torch, s", found["import_and_load_s"], 0.5)]
    if not args.quick:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sd15.safetensors"
            write(path)
            found["file_gb"] = path.stat().st_size / 1e9
            found |= least([fresh(__file__, "--ready", str(path)) for _ in range(runs)])
        checks.append(check("full-size model ready, s", found["ready_s"], 2.0))
    return {"machine": machine(), "startup": found, "checks": checks}


if __name__ == "__main__":
    if "--imported" in sys.argv:
        print(json.dumps(imported()))
    elif "--ready" in sys.argv:
        print(json.dumps(ready(Path(sys.argv[sys.argv.index("--ready") + 1]))))
    else:
        main(measure, __doc__, "the import alone")
