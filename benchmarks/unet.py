"""Full-size U-Net (Stable Diffusion v1.5's shape, random weights): vpd, diffusers and OpenVINO.

    python benchmarks/unet.py [--quick] [--json] [--size 512] [--batch 1] [--dtype float32]
        [--runs 3] [--compiled]

One forward, 77 tokens, no gradient; vpd's network is frozen and returns features and attention
maps, which the others have not. diffusers runs in channels-last, with ``--compiled`` also by
torch.compile (which takes minutes first). OpenVINO takes part where it is installed (pip install
"vpd[bench]"), in the same precision. Results are compared first. Times: minima of alternating runs
in one process. Memory: a fresh process each, peak resident memory during a forward minus resident
memory after one of 64 px, with weights and code in memory; the least of several processes, since
where an allocator finds room differs from run to run. What tensors take of it does not.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _common import check, fresh, machine, report, turns
from _peers import PlainUNet, has_openvino, openvino

import vpd
from vpd.memory import LiveBytes, peak_resident, reset_peak, resident
from vpd.nn import channels_last

# The most that vpd's time may be of a peer's.
LIMITS = {
    "float32": {"diffusers": 1.0, "diffusers compiled": 1.0, "openvino": 1.1},
    "bfloat16": {"diffusers": 0.8, "diffusers compiled": 1.0, "openvino": 1.0},
}
MEMORY_RUNS = 5
MAPS = {"time": 1.03, "memory": 1.02}  # with attention maps / without
ERROR = 1.2  # of bfloat16 against float32, vpd's / diffusers'


def build(kind: str, dtype: torch.dtype, quick: bool, frozen: bool = True) -> torch.nn.Module:
    """A network with weights of realistic size; on the meta device first, so that nothing is
    initialised twice."""
    width = 64 if quick else 320
    with torch.device("meta"):
        if kind.startswith("vpd"):
            net = vpd.UNet(vpd.UNetConfig(model_channels=width))
        else:
            from diffusers import UNet2DConditionModel

            net = UNet2DConditionModel(
                block_out_channels=[width, 2 * width, 4 * width, 4 * width],
                cross_attention_dim=768, attention_head_dim=8,
            )  # fmt: skip
    net = with_weights(net.to(dtype), seed=0)
    return net.frozen() if frozen and kind.startswith("vpd") else channels_last(net)


def with_weights(net: torch.nn.Module, seed: int) -> torch.nn.Module:
    """A network of the meta device on the CPU, frozen, with random weights of realistic size."""
    net = net.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, p in net.named_parameters():
        if name.endswith("weight") and p.dim() > 1:
            p.normal_(0, 0.7 * p[0].numel() ** -0.5, generator=generator)
        else:
            p.fill_(1.0 if name.endswith("weight") else 0.0)
    return net


def loaded(twin: torch.nn.Module, quick: bool) -> vpd.UNet:
    """vpd's U-Net with the weights of a float32 one of diffusers."""
    with torch.device("meta"):
        net = vpd.UNet(vpd.UNetConfig(model_channels=64 if quick else 320))
    net = net.to_empty(device="cpu").eval().requires_grad_(False)
    vpd.load_weights(net, twin.state_dict())
    return net


def inputs(size: int, dtype: torch.dtype, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    side = size // 8
    latents = torch.randn(batch, 4, side, side, generator=generator)
    return latents.to(dtype), torch.randn(batch, 77, 768, generator=generator).to(dtype)


def forward(
    kind: str, net: torch.nn.Module, latents: torch.Tensor, context: torch.Tensor
) -> torch.Tensor:
    with torch.no_grad():
        if kind == "diffusers":
            return net(latents, 1, context).sample
        maps = () if kind == "vpd without maps" else (2, 4)
        out = net(latents, 1, context, taps=vpd.Taps(noise=True, attention=maps))
        out.pyramid()
        return out.noise


def measure_memory(kind: str, args: argparse.Namespace) -> None:
    """Runs in a process of its own: one forward, no other of its size before it, of which the
    peak of resident memory counts, or with ``--tensors`` that of living tensors."""
    dtype = getattr(torch, args.dtype)
    net = build(kind, dtype, args.quick)
    latents, context = inputs(args.size, dtype, args.batch)
    if args.tensors:
        with LiveBytes(net.parameters()) as living:
            forward(kind, net, latents, context)
        print(json.dumps({"mib": living.peak / 2**20}))
        return
    forward(kind, net, *inputs(64, dtype, args.batch))
    ctypes.CDLL(None).malloc_trim(0)  # what freezing has freed must not be counted as there before
    before = resident()
    reset_peak()
    start = time.perf_counter()
    forward(kind, net, latents, context)
    seconds = time.perf_counter() - start
    print(json.dumps({"mib": (peak_resident() - before) / 2**20, "seconds": seconds}))


def memory(kind: str, args: argparse.Namespace) -> tuple[float, float]:
    """Peak resident memory above the weights, and the most that tensors take, MiB."""
    words = ["--memory-of", kind, "--dtype", args.dtype]
    words += ["--size", str(args.size), "--batch", str(args.batch)]
    peak = min(fresh(__file__, *words, quick=args.quick)["mib"] for _ in range(MEMORY_RUNS))
    return peak, fresh(__file__, *words, "--tensors", quick=args.quick)["mib"]


def contestants(
    args: argparse.Namespace, dtype: torch.dtype
) -> tuple[dict[str, Callable[[], torch.Tensor]], torch.Tensor]:
    """Forwards of one and the same network, and its result in float32."""
    twin = build("diffusers", torch.float32, args.quick)
    net = loaded(twin, args.quick)
    found = {}
    plain = inputs(args.size, torch.float32, args.batch)
    if has_openvino():
        latents, context = plain
        example = (latents, torch.tensor(1), context)
        compiled = openvino(PlainUNet(twin), example, dtype)
        found["openvino"] = lambda: compiled(*example)
    exact = forward("diffusers", twin, *plain)
    frozen, twin = net.to(dtype).frozen(), channels_last(twin.to(dtype))
    del net
    latents, context = inputs(args.size, dtype, args.batch)
    for kind in ("vpd", "vpd without maps"):
        found[kind] = lambda kind=kind: forward(kind, frozen, latents, context)
    last = latents.contiguous(memory_format=torch.channels_last)
    found["diffusers"] = lambda: forward("diffusers", twin, last, context)
    if args.compiled:
        fused = torch.compile(PlainUNet(twin))
        now = torch.tensor(1)
        found["diffusers compiled"] = torch.no_grad()(lambda: fused(last, now, context))
    return found, exact


def accuracy(dtype: str, errors: dict[str, float]) -> dict[str, Any]:
    """The check of relative errors against diffusers in float32, by contestant."""
    if dtype == "float32":
        return check("difference to diffusers, relative length", errors["vpd"], 1e-4)
    ratio = errors["vpd"] / errors["diffusers"]
    return check("error against float32, vpd / diffusers", ratio, ERROR)


def verdict(
    args: argparse.Namespace,
    errors: dict[str, float],
    best: dict[str, float],
    peaks: dict[str, float],
    living: dict[str, float],
) -> list[dict[str, Any]]:
    checks = [accuracy(args.dtype, errors)]
    for peer, limit in LIMITS[args.dtype].items():
        if peer in best:
            checks.append(check(f"time, vpd / {peer}", best["vpd"] / best[peer], limit))
    pairs = (("vpd without maps", MAPS["memory"]), ("diffusers", 1.0))
    checks.append(check("time, with maps / without", best["vpd"] / best[pairs[0][0]], MAPS["time"]))
    for peer, limit in pairs:
        name = f"peak memory above the weights, vpd / {peer}"
        checks.append(check(name, peaks["vpd"] / peaks[peer], limit))
    name = "most of living tensors, with maps / without"
    checks.append(check(name, living["vpd"] / living["vpd without maps"], MAPS["memory"]))
    return checks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the width")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=tuple(LIMITS), default="float32")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--compiled", action="store_true", help="also torch.compile of diffusers")
    kinds = ("vpd", "vpd without maps", "diffusers")
    parser.add_argument("--memory-of", choices=kinds, help=argparse.SUPPRESS)
    parser.add_argument("--tensors", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    if args.memory_of:
        measure_memory(args.memory_of, args)
        return
    measured = {kind: memory(kind, args) for kind in kinds}
    peaks, living = ({kind: two[at] for kind, two in measured.items()} for at in (0, 1))
    runs, exact = contestants(args, dtype)
    errors = {  # also the warm-up
        kind: ((run().float() - exact).norm() / exact.norm()).item() for kind, run in runs.items()
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in runs}
    for kind in turns(runs, args.runs):
        start = time.perf_counter()
        runs[kind]()
        seconds[kind].append(time.perf_counter() - start)
    best = {kind: min(times) for kind, times in seconds.items()}
    report(
        {
            "benchmark": "unet",
            "title": f"U-Net, {args.batch} x {args.size} px, {args.dtype}",
            "machine": machine(),
            "config": {
                name: getattr(args, name) for name in ("size", "batch", "dtype", "quick", "runs")
            },
            "seconds": seconds,
            "relative_error": errors,
            "peak_mib_above_weights": peaks,
            "peak_mib_of_tensors": living,
            "checks": verdict(args, errors, best, peaks, living),
        },
        args.json,
    )


if __name__ == "__main__":
    main()
