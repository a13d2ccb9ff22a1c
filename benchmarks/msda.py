"""Deformable attention beside the same through grid_sample: agreement, and time.

    python benchmarks/msda.py [--quick] [--json] [--threads N] [--device cpu|cuda]

Sizes are those of Mask2Former's pixel decoder: maps of 16 x 16, 32 x 32 and 64 x 64 pixels, 256
channels in 8 heads, 4 points, every pixel a query that looks at points around itself. Results are
first compared with the definition in double precision. Then both run in turn until the time is up,
and each one's fastest run counts.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from _common import check, machine, main
from torch import Tensor

from vpd import ops, reference

LEVELS = ((16, 16), (32, 32), (64, 64))
HEADS, WIDTH, POINTS = 8, 32, 4
LIMIT = {torch.float32: 4e-6, torch.bfloat16: 2e-2}  # of the error, by the largest value
FASTER = {"forward": 3.0, "forward and backward": 2.0}


def problem(dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Offsets as after the official initialisation, eight directions and 1 to 4 pixels, and
    noise."""
    centres = [
        torch.stack(
            torch.meshgrid((torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h, indexing="xy"),
            -1,
        ).view(-1, 2)
        for h, w in LEVELS
    ]
    around = torch.cat(centres)[:, None, None, None]  # [Q, 1, 1, 1, 2]
    angles = 2 * math.pi * torch.arange(HEADS) / HEADS
    steps = torch.stack([angles.cos(), angles.sin()], -1)
    steps = steps / steps.abs().amax(-1, keepdim=True)
    offsets = steps[:, None, None] * torch.arange(1, POINTS + 1).view(-1, 1)  # [heads, 1, P, 2]
    sizes = torch.tensor([(w, h) for h, w in LEVELS]).view(-1, 1, 2)
    noise = torch.randn(len(around), HEADS, len(LEVELS), POINTS, 2)
    locations = (around + (offsets + noise) / sizes)[None]
    value = torch.randn(1, len(around), HEADS, WIDTH).to(dtype)
    weights = torch.randn(1, len(around), HEADS, len(LEVELS) * POINTS).softmax(-1)
    weights = weights.unflatten(-1, (len(LEVELS), POINTS))
    shapes = torch.tensor(LEVELS)
    return tuple(t.to(device) for t in (value, shapes, locations, weights))


def by_grid_sample(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    # grid_sample takes one type for values and locations, and bfloat16 locations would be wrong
    wide = value.to(locations.dtype)
    return reference.deformable_attention(wide, shapes, locations, weights).to(value.dtype)


def fastest(runs: dict[str, Callable[[], Any]], seconds: float, device: str) -> dict[str, float]:
    """Seconds of the fastest run of each, run in turn."""
    best = dict.fromkeys(runs, math.inf)
    stop, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < stop or rounds < 3:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            best[name] = min(best[name], time.perf_counter() - start)
        rounds += 1
    return best


def measure(args: argparse.Namespace) -> dict[str, Any]:
    contestants = {"vpd": ops.deformable_attention, "grid_sample": by_grid_sample}
    seconds = 1.0 if args.quick else 5.0
    results, checks = [], []
    for dtype in LIMIT:
        value, shapes, locations, weights = problem(dtype, args.device)
        leaves = [t.detach().requires_grad_() for t in (value, locations, weights)]

        def forward(
            attention: Callable[..., Tensor], tensors: Any = (value, shapes, locations, weights)
        ):
            with torch.no_grad():
                return attention(*tensors)

        def both(attention: Callable[..., Tensor], tensors: Any = leaves, shapes: Tensor = shapes):
            out = attention(tensors[0], shapes, *tensors[1:])
            return torch.autograd.grad(out, tensors, out.detach())

        name = str(dtype).removeprefix("torch.")
        exact = reference.deformable_attention(
            value.double(), shapes, locations.double(), weights.double()
        )
        error = (forward(ops.deformable_attention).double() - exact).abs().max() / exact.abs().max()
        checks.append(check(f"largest error, {name}", error.item(), LIMIT[dtype]))
        for direction, run in (("forward", forward), ("forward and backward", both)):
            runs = {n: (lambda a=a, run=run: run(a)) for n, a in contestants.items()}
            best = fastest(runs, seconds, args.device)
            results.append(
                {
                    "dtype": name,
                    "direction": direction,
                    "milliseconds": {n: round(t * 1e3, 2) for n, t in best.items()},
                    "times_faster": round(best["grid_sample"] / best["vpd"], 2),
                }
            )
            share = best["vpd"] / best["grid_sample"]
            checks.append(
                check(f"{name}, {direction}: share of the time", share, 1 / FASTER[direction])
            )
    return {
        "benchmark": "msda",
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "machine": machine(),
        "results": results,
        "checks": checks,
    }


if __name__ == "__main__":
    main(measure, __doc__, "a second a measurement, not five")
