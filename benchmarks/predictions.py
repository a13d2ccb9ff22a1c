"""Pictures per second of the models that ship with vpd, one picture after another.

    python benchmarks/predictions.py [--quick] [--json] [--runs 5]

Scenes of Tabletop, from bytes to the finished result at the picture's own size: as loaded, frozen,
and frozen in bfloat16. Results are compared first. Rates: maxima of alternating runs in one
process.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from _common import check, machine, report, turns

import vpd
from vpd.data import tabletop

FIRST = 3_000_000  # of Tabletop's val
TASKS: dict[str, tuple[str, Callable[[Any, Any], np.ndarray]]] = {
    "refer": ("vpd-mini-refer", lambda model, image: model(image, "the red cube").mask),
    "semantic": ("vpd-mini-semantic", lambda model, image: model(image).classes),
    "panoptic": ("vpd-mini-panoptic", lambda model, image: model(image).classes),
    "depth": ("vpd-mini-depth", lambda model, image: model(image).depth_m),
}
# Pixels whose result may differ from that of the model as it was loaded.
DIFFERENT = {"frozen": 1e-3, "frozen bfloat16": 0.02}


def different(found: np.ndarray, expected: np.ndarray) -> float:
    """Share of the pixels with another class, or another depth by more than 2 %."""
    if found.dtype.kind == "f":
        return float((abs(found - expected) > 0.02 * expected).mean())
    return float((found != expected).mean())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two scenes, one run")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    scenes, rounds = (2, 1) if args.quick else (16, args.runs)
    images = [tabletop.render(FIRST + i).image for i in range(scenes)]
    rates: dict[str, dict[str, list[float]]] = {}
    checks = []
    for task, (name, predict) in TASKS.items():
        models = {
            "as loaded": vpd.load(name),
            "frozen": vpd.load(name).frozen(),
            "frozen bfloat16": vpd.load(name, dtype=torch.bfloat16).frozen(),
        }
        found = {kind: [predict(model, x) for x in images] for kind, model in models.items()}
        for kind, limit in DIFFERENT.items():
            pairs = zip(found[kind], found["as loaded"], strict=True)
            share = float(np.mean([different(*pair) for pair in pairs]))
            checks.append(check(f"{task}: pixels that differ, {kind}", share, limit))
        rates[task] = {kind: [] for kind in models}
        for kind in turns(models, rounds):
            start = time.perf_counter()
            for image in images:
                predict(models[kind], image)
            rates[task][kind].append(scenes / (time.perf_counter() - start))
        best = {kind: max(several) for kind, several in rates[task].items()}
        for kind in DIFFERENT:
            ratio = best["as loaded"] / best[kind]
            checks.append(check(f"{task}: time, {kind} / as loaded", ratio, 1.0))
    report(
        {
            "benchmark": "predictions",
            "machine": machine(),
            "config": {"scenes": scenes, "runs": rounds},
            "pictures_per_second": rates,
            "checks": checks,
        },
        args.json,
    )


if __name__ == "__main__":
    main()
