"""Sampling with the full-size U-Net (Stable Diffusion v1.5's shape, random weights): vpd against
diffusers.

    python benchmarks/sampling.py [--quick] [--json] [--steps 2] [--size 512] [--guidance 7.5]

DDIM under classifier-free guidance, one picture, 77 tokens, float32, both halves in one batch as
diffusers' pipeline does it; vpd's network is frozen. Both sample from the same noise with the same
weights; latents are compared at the end. Times: every step of one, then the same of the other, in
one process; minima over steps. Memory: a fresh process each, peak resident memory over two steps
minus resident memory with the weights touched.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from _common import check, fresh, machine, report
from unet import build, inputs, loaded

from vpd.diffusion import GuidedUNet, Sampler
from vpd.memory import peak_resident, reset_peak, resident

KINDS = ("vpd", "diffusers")


def texts() -> tuple[Tensor, Tensor]:
    """States of a caption and of the empty one."""
    draw = torch.Generator().manual_seed(2)
    caption, empty = torch.randn(2, 1, 77, 768, generator=draw)
    return caption, empty


def steps_of_vpd(net: torch.nn.Module, start: Tensor, args: argparse.Namespace) -> Iterator[Tensor]:
    """Latents after every step."""
    sampler = Sampler("ddim", args.steps)
    unet = GuidedUNet(net, *texts(), text_guidance=args.guidance)
    x = sampler.initial_scale * start
    for index, step in enumerate(sampler.table):
        x, _ = sampler.step(index, x, unet(step.input_scale * x, step.timestep))
        yield x


def steps_of_diffusers(
    net: torch.nn.Module, start: Tensor, args: argparse.Namespace
) -> Iterator[Tensor]:
    """The same, as StableDiffusionPipeline's loop."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(args.steps)
    caption, empty = texts()
    both = torch.cat([empty, caption])
    x = start * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(torch.cat([x] * 2), t)
        free, told = net(seen, t, encoder_hidden_states=both, return_dict=False)[0].chunk(2)
        noise = free + args.guidance * (told - free)
        x = scheduler.step(noise, t, x, return_dict=False)[0]
        yield x


WAYS = {"vpd": steps_of_vpd, "diffusers": steps_of_diffusers}


def measure_memory(kind: str, args: argparse.Namespace) -> None:
    """Runs in a process of its own: two steps, nothing before them."""
    net = build(kind, torch.float32, args.quick)
    start, _ = inputs(args.size, torch.float32)
    args.steps = 2
    before = resident()
    reset_peak()
    for _ in WAYS[kind](net, start, args):
        pass
    print(json.dumps({"mib": (peak_resident() - before) / 2**20}))


def memory(kind: str, args: argparse.Namespace) -> float:
    words = ("--memory-of", kind, "--size", str(args.size), "--guidance", str(args.guidance))
    return fresh(__file__, *words, quick=args.quick)["mib"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the width, 256 px")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--size", type=int)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--memory-of", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.size = args.size or (256 if args.quick else 512)
    if args.memory_of:
        measure_memory(args.memory_of, args)
        return
    peaks = {kind: memory(kind, args) for kind in KINDS}

    twin = build("diffusers", torch.float32, args.quick)
    nets = {"vpd": loaded(twin, args.quick).frozen(), "diffusers": twin}
    start, context = inputs(args.size, torch.float32)
    with torch.no_grad():
        nets["vpd"](start, 1, context), twin(start, 1, context)  # warm-up
    ways = {kind: WAYS[kind](nets[kind], start, args) for kind in KINDS}
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    latents: dict[str, Tensor] = {}
    for _ in range(args.steps):
        for kind, way in ways.items():
            begin = time.perf_counter()
            latents[kind] = next(way)
            seconds[kind].append(time.perf_counter() - begin)
    best = {kind: min(times) for kind, times in seconds.items()}
    error = (latents["vpd"] - latents["diffusers"]).abs().max() / latents["diffusers"].std()
    report(
        {
            "benchmark": "sampling",
            "title": f"one step of sampling, {args.size} px, float32",
            "machine": machine(),
            "config": {
                "size": args.size, "steps": args.steps, "guidance": args.guidance,
                "quick": args.quick,
            },
            "seconds": seconds,
            "peak_mib_above_weights": peaks,
            "checks": [
                check("largest difference / std of the latents", float(error), 1e-3),
                check("time of a step, vpd / diffusers", best["vpd"] / best["diffusers"], 1.0),
                check(
                    "peak memory above the weights, vpd / diffusers",
                    peaks["vpd"] / peaks["diffusers"],
                    1.0,
                ),
            ],
        },
        args.json,
    )  # fmt: skip


if __name__ == "__main__":
    with torch.no_grad():
        main()
