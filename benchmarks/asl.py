"""The fused asymmetric loss beside its formula in eager PyTorch, forward and backward.

    python benchmarks/asl.py [--quick] [--json] [--threads N] [--device cpu|cuda]

Logits of 64 pictures and the 4,585 tags of the Recognize Anything Model, and of 16 pictures and
ADE20K's 150 classes. Loss and gradient are first compared with the reference in double. Then all
contestants run in turn until the time is up, and each one's fastest run counts: other work on the
machine slows single runs, hardly ever all of them. Memory is what the operators' results hold at
most while a step runs, arguments apart.
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
from vpd.memory import LiveBytes

SHAPES = {(64, 4585): 1 / 3, (16, 150): 1.0}  # and the share of eager's time allowed
LIMIT = {torch.float32: 2e-6, torch.bfloat16: 1.2e-2}  # error, as a fraction of the largest value
GAMMA_NEG, GAMMA_POS, CLIP, EPS = 4.0, 1.0, 0.05, 1e-8

Loss = Callable[[Tensor, Tensor, bool], Tensor]


def fused(logits: Tensor, target: Tensor, full_grad: bool) -> Tensor:
    return ops.asymmetric_loss(logits, target, GAMMA_NEG, GAMMA_POS, CLIP, EPS, full_grad)


def selecting(logits: Tensor, target: Tensor, full_grad: bool) -> Tensor:
    """With selections by target."""
    wide = logits.float() if logits.dtype != torch.float64 else logits
    return reference.asymmetric_loss(wide, target, GAMMA_NEG, GAMMA_POS, CLIP, EPS, full_grad)


def multiplying(logits: Tensor, target: Tensor, full_grad: bool) -> Tensor:
    """With factors that are 0 or 1, as the paper writes it."""
    p = torch.sigmoid(logits.float())
    missed = (1 - p + CLIP).clamp(max=1)
    positive = target.to(p.dtype)
    negative = 1 - positive
    logs = positive * p.clamp(min=EPS).log() + negative * missed.clamp(min=EPS).log()
    with torch.set_grad_enabled(full_grad):
        wrong = 1 - p * positive - missed * negative
        weight = wrong ** (GAMMA_POS * positive + GAMMA_NEG * negative)
    return -(logs * weight).sum()


CONTESTANTS: dict[str, Loss] = {
    "vpd": fused,
    "eager, selecting": selecting,
    "eager, multiplying": multiplying,
}


def step(loss: Loss, logits: Tensor, target: Tensor, full_grad: bool) -> tuple[Tensor, Tensor]:
    value = loss(logits, target, full_grad)
    return value.detach(), torch.autograd.grad(value, logits)[0]


def largest_error(logits: Tensor, target: Tensor, full_grad: bool) -> float:
    """Of loss and gradient, as a fraction of the largest exact value."""
    exact = step(selecting, logits.detach().double().requires_grad_(), target, full_grad)
    got = step(fused, logits, target, full_grad)
    pairs = zip(got, exact, strict=True)
    return max(((g - e).abs().max() / e.abs().max()).item() for g, e in pairs)


def peak(loss: Loss, logits: Tensor, target: Tensor, full_grad: bool) -> int:
    with LiveBytes([logits, target]) as live:
        step(loss, logits, target, full_grad)
    return live.peak


def fastest(
    logits: Tensor, target: Tensor, full_grad: bool, seconds: float, device: str
) -> dict[str, float]:
    """Seconds of the fastest step of each contestant."""
    best = dict.fromkeys(CONTESTANTS, math.inf)
    stop, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < stop or rounds < 5:
        for name, loss in CONTESTANTS.items():
            start = time.perf_counter()
            step(loss, logits, target, full_grad)
            if device == "cuda":
                torch.cuda.synchronize()
            best[name] = min(best[name], time.perf_counter() - start)
        rounds += 1
    return best


def measure(args: argparse.Namespace) -> dict[str, Any]:
    results, checks = [], []
    errors = dict.fromkeys(LIMIT, 0.0)
    for shape, allowed in SHAPES.items():
        target = (torch.rand(shape, device=args.device) < 0.03).float()
        for dtype in LIMIT:
            logits = (torch.randn(shape, device=args.device) * 3 - 3).to(dtype).requires_grad_()
            for full_grad in (False, True):
                case = (logits, target, full_grad)
                errors[dtype] = max(errors[dtype], largest_error(*case))
                memory = {name: peak(loss, *case) for name, loss in CONTESTANTS.items()}
                best = fastest(*case, 0.5 if args.quick else 2.0, args.device)
                eager = min(t for name, t in best.items() if name != "vpd")
                least = min(b for name, b in memory.items() if name != "vpd")
                place = {
                    "logits": f"{shape[0]} x {shape[1]}",
                    "dtype": str(dtype).removeprefix("torch."),
                    "gradient": "full" if full_grad else "weights constant",
                }
                results.append(
                    place
                    | {
                        "microseconds": {n: round(t * 1e6, 1) for n, t in best.items()},
                        "times_faster": round(eager / best["vpd"], 2),
                        "peak_bytes": memory,
                    }
                )
                name = ", ".join(place.values())
                checks.append(check(f"{name}: time / eager's", best["vpd"] / eager, allowed))
                checks.append(check(f"{name}: peak / eager's", memory["vpd"] / least, 1.0))
    for dtype, error in errors.items():
        name = f"largest error, {str(dtype).removeprefix('torch.')}"
        checks.insert(0, check(name, error, LIMIT[dtype]))
    return {
        "benchmark": "asl",
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "machine": machine(),
        "results": results,
        "checks": checks,
    }


if __name__ == "__main__":
    main(measure, __doc__, "less time for each case")
