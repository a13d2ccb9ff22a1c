"""Full-size U-Net (Stable Diffusion v1.5's shape, random weights): vpd against diffusers.

    python benchmarks/unet.py [--quick] [--json] [--size 512] [--dtype float32] [--runs 3]

One forward at one image, 77 tokens, attention maps on (vpd; diffusers has none), no gradient.
Results are compared first. Times: minima of alternating runs in one process. Memory: a fresh
process each, peak resident memory during a forward minus resident memory with the weights touched.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _common import check, fresh, machine, report

import vpd
from vpd.memory import peak_resident, reset_peak, resident
from vpd.nn import channels_last


def build(kind: str, dtype: torch.dtype, quick: bool) -> torch.nn.Module:
    """A network with weights of realistic size; on the meta device first, so that nothing is
    initialised twice."""
    width = 64 if quick else 320
    with torch.device("meta"):
        if kind == "vpd":
            net = vpd.UNet(vpd.UNetConfig(model_channels=width))
        else:
            from diffusers import UNet2DConditionModel

            net = UNet2DConditionModel(
                block_out_channels=[width, 2 * width, 4 * width, 4 * width],
                cross_attention_dim=768, attention_head_dim=8,
            )  # fmt: skip
    net = net.to(dtype).to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, p in net.named_parameters():
        if name.endswith("weight") and p.dim() > 1:
            p.normal_(0, 0.7 * p[0].numel() ** -0.5, generator=generator)
        else:
            p.fill_(1.0 if name.endswith("weight") else 0.0)
    return channels_last(net) if kind == "vpd" else net


def inputs(size: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    side = size // 8
    latents = torch.randn(1, 4, side, side, generator=generator)
    return latents.to(dtype), torch.randn(1, 77, 768, generator=generator).to(dtype)


def forward(kind: str, net: torch.nn.Module, latents: torch.Tensor, context: torch.Tensor):
    with torch.no_grad():
        if kind == "vpd":
            out = net(latents, 1, context, taps=vpd.Taps(noise=True))
            out.pyramid()
            return out.noise
        return net(latents, 1, context).sample


def measure_memory(kind: str, size: int, dtype: torch.dtype, quick: bool) -> None:
    """Runs in a process of its own: one forward, nothing before it."""
    net = build(kind, dtype, quick)
    latents, context = inputs(size, dtype)
    before = resident()
    reset_peak()
    start = time.perf_counter()
    forward(kind, net, latents, context)
    seconds = time.perf_counter() - start
    print(json.dumps({"mib": (peak_resident() - before) / 2**20, "seconds": seconds}))


def memory(kind: str, args: argparse.Namespace) -> float:
    words = ("--memory-of", kind, "--size", str(args.size), "--dtype", args.dtype)
    return fresh(__file__, *words, quick=args.quick)["mib"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the width")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--memory-of", choices=("vpd", "diffusers"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    if args.memory_of:
        measure_memory(args.memory_of, args.size, dtype, args.quick)
        return
    peaks = {kind: memory(kind, args) for kind in ("vpd", "diffusers")}

    twin = build("diffusers", dtype, args.quick)
    with torch.device("meta"):
        net = vpd.UNet(vpd.UNetConfig(model_channels=64 if args.quick else 320))
    net = net.to(dtype).to_empty(device="cpu").eval().requires_grad_(False)
    vpd.load_weights(net, twin.state_dict())
    channels_last(net)  # as vpd.load leaves it
    latents, context = inputs(args.size, dtype)
    nets = {"vpd": net, "diffusers": twin}
    results = {
        kind: forward(kind, n, latents, context).float() for kind, n in nets.items()
    }  # also the warm-up
    error = float((results["vpd"] - results["diffusers"]).abs().max() / results["diffusers"].std())
    seconds: dict[str, list[float]] = {"vpd": [], "diffusers": []}
    for _ in range(args.runs):
        for kind, n in nets.items():
            start = time.perf_counter()
            forward(kind, n, latents, context)
            seconds[kind].append(time.perf_counter() - start)
    best = {kind: min(times) for kind, times in seconds.items()}
    tolerance = 1e-3 if dtype == torch.float32 else 0.2
    report(
        {
            "benchmark": "unet",
            "command": "python benchmarks/unet.py " + " ".join(sys.argv[1:]),
            "machine": machine(),
            "config": {
                "size": args.size,
                "dtype": args.dtype,
                "quick": args.quick,
                "runs": args.runs,
            },
            "seconds": seconds,
            "peak_mib_above_weights": peaks,
            "checks": [
                check("largest difference / std of the output", error, tolerance),
                check("time, vpd / diffusers", best["vpd"] / best["diffusers"], 1.0),
                check(
                    "peak memory above the weights, vpd / diffusers",
                    peaks["vpd"] / peaks["diffusers"],
                    1.0,
                ),
            ],
        },
        args.json,
    )


if __name__ == "__main__":
    main()
