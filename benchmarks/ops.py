"""The ops of vpd beside eager PyTorch: agreement, and time of forward and backward.

    python benchmarks/ops.py [--quick] [--json] [--threads N] [--device cpu|cuda]

Shapes are those of Stable Diffusion v1 at 512 x 512 (one image) and of vpd-mini in training (32
images). Every result is first compared with the reference in double precision. Then all
contestants run in turn until the time is up, and each one's fastest run counts: other work on the
machine slows single runs, hardly ever all of them.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from _common import check, machine, main
from torch import Tensor

from vpd import ops, reference

LARGEST = (1, 4096, 8, 40)  # self-attention of Stable Diffusion v1 at 512 x 512
SHAPE = f"{LARGEST[0]} image(s), {LARGEST[1]} x {LARGEST[1]}, {LARGEST[2]} x {LARGEST[3]}"
# Time of self-attention without gradient, vpd / PyTorch's, on CPUs with AVX-512: at the largest
# shape, and the worst of all, where vpd may call PyTorch's and the clock differs a little.
SELF_ATTENTION = {torch.bfloat16: (1 / 1.5, 1.03), torch.float32: (1.0, 1.03)}
# Largest error allowed, as a fraction of the largest value of the exact result.
LIMIT = {torch.float32: 4e-6, torch.bfloat16: 2e-2}


@dataclass
class Case:
    """One op at one shape. The first contestant is vpd's, the others are its peers."""

    op: str
    shape: str
    tensors: tuple[Tensor, ...]
    reference: Callable[..., Any]
    contestants: dict[str, Callable[..., Any]]


def group_norm_silu(dtype: torch.dtype, device: str, quick: bool) -> Iterator[Case]:
    shapes = [(1, 320, 64, 32), (1, 640, 32, 32), (1, 1280, 16, 32), (1, 2560, 8, 32)]
    shapes += [(32, 32, 32, 16), (32, 64, 16, 16), (32, 128, 8, 16)]
    for b, c, size, groups in [shapes[0], shapes[5]] if quick else shapes:
        x = torch.randn(b, c, size, size, device=device).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        affine = (torch.randn(c, device=device).to(dtype), torch.randn(c, device=device).to(dtype))
        yield Case(
            "group_norm_silu",
            f"{b}x{c}x{size}x{size}",
            (x, *affine),
            lambda *t, g=groups: reference.group_norm_silu(*t, g),
            {
                "vpd": lambda *t, g=groups: ops.group_norm_silu(*t, g),
                "group_norm, silu": lambda x, w, b, g=groups: F.silu(F.group_norm(x, g, w, b)),
            },
        )


def geglu(dtype: torch.dtype, device: str, quick: bool) -> Iterator[Case]:
    def plain(x: Tensor) -> Tensor:
        value, gate = x.chunk(2, -1)
        return value * F.gelu(gate)

    shapes = [(1, 4096, 2560), (1, 1024, 5120), (1, 256, 10240), (32, 256, 512), (32, 64, 1024)]
    for shape in [shapes[1], shapes[3]] if quick else shapes:
        x = torch.randn(shape, device=device).to(dtype)
        name = "x".join(map(str, shape))
        contestants = {"vpd": ops.geglu, "chunk, gelu, mul": plain}
        yield Case("geglu", name, (x,), reference.geglu, contestants)


def cross_attention(dtype: torch.dtype, device: str, quick: bool) -> Iterator[Case]:
    shapes = [(1, 4096, 77, 8, 40), (1, 1024, 77, 8, 80), (1, 256, 77, 8, 160)]
    shapes += [(1, 64, 77, 8, 160), (32, 256, 24, 4, 16), (32, 64, 24, 4, 32)]
    for b, m, n, heads, width in [shapes[0], shapes[4]] if quick else shapes:
        tensors = [torch.randn(b, r, heads * width, device=device).to(dtype) for r in (m, n, n)]
        yield Case(
            "cross_attention",
            f"{b} image(s), {m} x {n}, {heads} x {width}",
            tuple(tensors),
            lambda q, k, v, h=heads: reference.cross_attention(q, k, v, None, h),
            {
                "vpd": lambda q, k, v, h=heads: ops.cross_attention(q, k, v, None, h),
                "softmax with map": lambda q, k, v, h=heads: reference.cross_attention(
                    q, k, v, None, h
                ),
                "SDPA without map": lambda q, k, v, h=heads: ops.attention(q, k, v, None, h),
            },
        )


def self_attention(dtype: torch.dtype, device: str, quick: bool) -> Iterator[Case]:
    def plain(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        parts = [t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v)]
        return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)

    shapes = [LARGEST, (1, 1024, 8, 80), (1, 256, 8, 160), (1, 64, 8, 160)]
    shapes += [(32, 256, 4, 16), (32, 64, 4, 32)]
    for b, n, heads, width in [shapes[1], shapes[4]] if quick else shapes:
        tensors = [torch.randn(b, n, heads * width, device=device).to(dtype) for _ in range(3)]
        yield Case(
            "self_attention",
            f"{b} image(s), {n} x {n}, {heads} x {width}",
            tuple(tensors),
            lambda *t, h=heads: reference.attention(*t, None, h),
            {
                "vpd": lambda *t, h=heads: ops.attention(*t, None, h),
                "SDPA": lambda *t, h=heads: plain(*t, h),
            },
        )


def outputs(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def error(case: Case) -> float:
    """Largest error of vpd's outputs and gradients against the reference in double."""
    results = []
    for function, double in ((case.contestants["vpd"], False), (case.reference, True)):
        leaves = [t.double() if double else t for t in case.tensors]
        leaves = [t.detach().requires_grad_() for t in leaves]
        out = outputs(function(*leaves))
        grads = [torch.ones_like(o) + torch.arange(o.shape[-1]).to(o) / o.shape[-1] for o in out]
        results.append([*out, *torch.autograd.grad(out, leaves, grads)])
    worst = 0.0
    for actual, exact in zip(*results, strict=True):
        found = ((actual - exact).abs().max() / exact.abs().max()).item()
        worst = max(worst, found if math.isfinite(found) else math.inf)
    return worst


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


def forward_times(case: Case, seconds: float, device: str) -> dict[str, float]:
    with torch.no_grad():
        runs = {n: (lambda f=f: f(*case.tensors)) for n, f in case.contestants.items()}
        return fastest(runs, seconds, device)


def backward_times(case: Case, seconds: float, device: str) -> dict[str, float]:
    runs = {}
    for name, function in case.contestants.items():
        leaves = [t.detach().requires_grad_() for t in case.tensors]
        out = outputs(function(*leaves))
        grads = [torch.ones_like(o) for o in out]
        runs[name] = lambda o=out, x=leaves, g=grads: torch.autograd.grad(
            o, x, g, retain_graph=True
        )
    return fastest(runs, seconds, device)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    seconds = 0.25 if args.quick else 1.0
    errors: dict[torch.dtype, float] = dict.fromkeys(LIMIT, 0.0)
    ratios: dict[str, list[float]] = {}
    results = []
    for dtype in LIMIT:
        for make in (group_norm_silu, geglu, cross_attention, self_attention):
            for case in make(dtype, args.device, args.quick):
                errors[dtype] = max(errors[dtype], error(case))
                for direction, timer in (("forward", forward_times), ("backward", backward_times)):
                    best = timer(case, seconds, args.device)
                    own = best["vpd"]
                    line = {
                        "op": case.op,
                        "shape": case.shape,
                        "dtype": str(dtype).removeprefix("torch."),
                        "direction": direction,
                        "microseconds": {n: round(t * 1e6, 1) for n, t in best.items()},
                        "times_faster": {
                            n: round(t / own, 2) for n, t in best.items() if n != "vpd"
                        },
                    }
                    results.append(line)
                    for name, t in best.items():
                        if name not in ("vpd", "SDPA without map"):  # it returns less
                            key = f"{case.op} {direction}: time / time of ({name})"
                            ratios.setdefault(key, []).append(own / t)
    checks = [
        check(f"largest error, {str(dtype).removeprefix('torch.')}", errors[dtype], LIMIT[dtype])
        for dtype in LIMIT
    ]
    for dtype, (limit, worst) in SELF_ATTENTION.items() if args.device == "cpu" else ():
        name = str(dtype).removeprefix("torch.")
        found = {
            line["shape"]: line["microseconds"]["vpd"] / line["microseconds"]["SDPA"]
            for line in results
            if (line["op"], line["dtype"], line["direction"]) == ("self_attention", name, "forward")
        }
        if SHAPE in found:
            checks.append(check(f"self_attention, {SHAPE}, {name}", found[SHAPE], limit))
        checks.append(check(f"self_attention, worst shape, {name}", max(found.values()), worst))
    for name, values in ratios.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        checks.append(check(f"{name}, geometric mean", mean, 1.0))
    return {
        "benchmark": "ops",
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "machine": machine(),
        "results": results,
        "checks": checks,
    }


if __name__ == "__main__":
    main(measure, __doc__, "two shapes of each op")
