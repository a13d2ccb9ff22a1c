"""A training step through a full-size U-Net (Stable Diffusion v1.5's shape, random weights): vpd
against diffusers.

    python benchmarks/train_step.py [--quick] [--json] [--size 512] [--dtype float32] [--runs 2]
        [--trains adapter]

One image, 77 tokens, without a decoder: fixed gradients arrive at the four feature maps. What
trains:

    adapter   the text adapter; the U-Net is frozen (vpd's ``frozen(gradients=True)``)
    nothing   only what would follow the U-Net: a forward without gradient (vpd's ``frozen()``)
    lora      the adapter, and low-rank changes of the cross-attention, by peft in diffusers
    unet      the adapter and the U-Net

Gradients of the adapter are compared first, or else the feature maps. Times: minima of alternating
runs in one process. Memory: a fresh process each, peak resident memory during the step minus
resident memory with the weights touched, with blocks of a megabyte and more handed back when freed
(``vpd.memory.set_freed_memory``), for both.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from _common import check, fresh, machine, report, turns
from unet import build, inputs

import vpd
import vpd.lora
from vpd.memory import peak_resident, reset_peak, resident, set_freed_memory

TRAINS = {
    "adapter": "training step, frozen U-Net",
    "nothing": "features for a head",
    "lora": "training step, LoRA",
    "unet": "training step, whole U-Net",
}
ALONE = ("vpd", "diffusers")
KINDS = (
    "vpd", "vpd feed_forward", "vpd attention", "vpd all",  # what is recomputed
    "diffusers", "diffusers checkpointed",
)  # fmt: skip
LIMIT_GB = {"vpd": 1.3, "vpd all": 0.6}  # in float32
# Time and memory, vpd / diffusers; others: 1.
LIMITS = {("adapter", "bfloat16"): (0.75, 0.5), ("nothing", "bfloat16"): (0.9, 1.0)}
ERRORS = {"float32": 1e-3, "bfloat16": 0.1}  # of the adapter's gradient, relative


def prepare(kind: str, net: torch.nn.Module) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    """Sets a network to what ``kind`` says; returns its four feature maps, fine to coarse."""
    package, _, mode = kind.partition(" ")
    if package == "vpd":
        net.recompute = mode or "none"
        return lambda latents, context: net(latents, 1, context).features
    if mode:
        net.train()  # or it does not checkpoint
        net.enable_gradient_checkpointing()
    else:
        net.disable_gradient_checkpointing()

    def features(latents: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        ups = net.up_blocks
        places = (ups[3].attentions[2], ups[2].attentions[1], ups[1].attentions[1])
        hooks = []
        for place in (*places, ups[0].resnets[1]):
            index = len(hooks)

            def keep(_, __, output, index=index):
                found.append((index, output if isinstance(output, Tensor) else output[0]))

            hooks.append(place.register_forward_hook(keep))
        net(latents, 1, context)
        for hook in hooks:
            hook.remove()
        return tuple(f for _, f in sorted(found, key=lambda pair: pair[0]))

    return features


def step(
    run: Callable, adapter: vpd.TextAdapter | None, latents: Tensor, context: Tensor
) -> Tensor:
    """One step; the adapter's gradients in one vector, or without an adapter the feature maps."""
    if adapter is None:
        with torch.no_grad():
            return torch.cat([m.float().flatten() for m in run(latents, context)])
    adapter.zero_grad()
    maps = run(latents, adapter(context))
    draw = torch.Generator().manual_seed(2)
    grads = [torch.randn(m.shape, generator=draw).to(m.dtype) for m in maps]
    torch.autograd.backward(maps, grads)
    return torch.cat([p.grad.flatten() for p in adapter.parameters()])


def an_adapter(args: argparse.Namespace) -> vpd.TextAdapter | None:
    if args.trains == "nothing":
        return None
    adapter = vpd.TextAdapter(768, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():  # it starts as the identity: gamma is tiny
        for parameter in adapter.parameters():
            parameter.add_(0.02)
    return adapter.to(getattr(torch, args.dtype))


def network(
    package: str, args: argparse.Namespace, state: dict[str, Tensor] | None = None
) -> torch.nn.Module:
    net = build(package, getattr(torch, args.dtype), args.quick, frozen=False)
    if state is not None:
        vpd.load_weights(net, state)
    if args.trains == "unet":
        return net.requires_grad_()
    if args.trains == "lora" and package == "vpd":
        vpd.lora.add_lora(net)
        return net
    if args.trains == "lora":
        from peft import LoraConfig

        targets = r".*attn2\.to_[qkv]"
        net.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets))
        return net
    return net.frozen(gradients=args.trains == "adapter") if package == "vpd" else net


def measure_memory(kind: str, args: argparse.Namespace) -> None:
    """Runs in a process of its own: one step, nothing before it."""
    set_freed_memory("returned")
    net, adapter = network(kind.split()[0], args), an_adapter(args)
    run = prepare(kind, net)
    latents, context = inputs(args.size, getattr(torch, args.dtype))
    ctypes.CDLL(None).malloc_trim(0)  # what freezing has freed must not be counted as there before
    before = resident()
    reset_peak()
    start = time.perf_counter()
    step(run, adapter, latents, context)
    seconds = time.perf_counter() - start
    print(json.dumps({"gb": (peak_resident() - before) / 1e9, "seconds": seconds}))


def memory(kind: str, args: argparse.Namespace) -> float:
    words = ["--memory-of", kind, "--trains", args.trains]
    words += ["--size", str(args.size), "--dtype", args.dtype]
    return fresh(__file__, *words, quick=args.quick)["gb"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the width, 256 px")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--size", type=int)
    parser.add_argument("--dtype", choices=ERRORS, default="float32")
    parser.add_argument("--trains", choices=TRAINS, default="adapter")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--memory-of", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.size = args.size or (256 if args.quick else 512)
    if args.memory_of:
        measure_memory(args.memory_of, args)
        return
    kinds = ALONE if args.trains == "nothing" else KINDS
    peaks = {kind: memory(kind, args) for kind in kinds}
    set_freed_memory("returned")

    twin = network("diffusers", args)
    state = {k.replace(".base_layer", ""): v for k, v in twin.state_dict().items()}
    state = {k: v for k, v in state.items() if "lora_" not in k}
    nets = {"vpd": network("vpd", args, state), "diffusers": twin}
    adapter = an_adapter(args)
    latents, context = inputs(args.size, getattr(torch, args.dtype))

    def once(kind: str) -> tuple[float, Tensor]:
        net = nets[kind.split()[0]]
        net.zero_grad()
        run = prepare(kind, net)
        start = time.perf_counter()
        found = step(run, adapter, latents, context)
        return time.perf_counter() - start, found

    gradients = {kind: once(kind)[1] for kind in kinds}  # also the warm-up
    expected = gradients["diffusers"]
    errors = {k: float((g - expected).norm() / expected.norm()) for k, g in gradients.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind in turns(kinds, args.runs):
        seconds[kind].append(once(kind)[0])
    best = {kind: min(times) for kind, times in seconds.items()}
    checks = [
        check(
            "features against diffusers"
            if adapter is None
            else "adapter's gradient against diffusers",
            max(errors.values()),
            ERRORS[args.dtype],
        )
    ]
    if not args.quick and args.trains == "adapter" and args.dtype == "float32":
        checks += [
            check(f"peak memory above the weights, {kind}, GB", peaks[kind], limit)
            for kind, limit in LIMIT_GB.items()
        ]
    time_limit, memory_limit = LIMITS.get((args.trains, args.dtype), (1.0, 1.0))
    pairs = [("vpd", "diffusers", (time_limit, 1.0))]
    if adapter is not None:
        pairs += [
            ("vpd feed_forward", "diffusers", (time_limit, memory_limit)),
            ("vpd attention", "diffusers checkpointed", (1.0, 1.0)),
        ]
    for ours, theirs, limits in pairs:
        checks.append(check(f"time, {ours} / {theirs}", best[ours] / best[theirs], limits[0]))
        checks.append(check(f"memory, {ours} / {theirs}", peaks[ours] / peaks[theirs], limits[1]))
    report(
        {
            "benchmark": "train_step",
            "title": f"{TRAINS[args.trains]}, {args.size} px, {args.dtype}",
            "machine": machine(),
            "config": {
                key: getattr(args, key) for key in ("trains", "size", "dtype", "quick", "runs")
            },
            "seconds": seconds,
            "peak_gb_above_weights": peaks,
            "checks": checks,
        },
        args.json,
    )


if __name__ == "__main__":
    main()
