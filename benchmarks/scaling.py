"""The cost model (vpd.cost, docs/scaling.md) against measurements.

    python benchmarks/scaling.py [--quick] [--json] [--size 512] [--runs 2]

First what this processor reaches: one thread's time in products and in a sum of large arrays, and
in each operator of Stable Diffusion's U-Net (frozen, random weights, float32), which gives the
shares of these peaks that convolutions, matrix products, attention and the rest come to. Then, with
two such threads, the time and memory that the model predicts for what benchmarks/results records:
unet.json, of which the shares are no independent check, train_step.json and head_only.json. Times
of one thread are processor time, so a busy machine does not matter much.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _common import check, machine, report
from torch._subclasses.fake_tensor import FakeTensorMode
from unet import build, forward, inputs

import vpd
from vpd.cost import Operation, Operations, scaled
from vpd.cost_time import Device, Reach, all_reduce, devices_of, probe, seconds
from vpd.memory import LiveBytes
from vpd.train.loop.config import LoopConfig
from vpd.train.refer.config import ReferData, ReferTrainConfig
from vpd.train.refer.footprint import refer_step

RESULTS = Path(__file__).parent / "results"


class Timed(Operations):
    """Notes this thread's seconds in each operator too."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        spent = []

        def timed(*own: Any, **named: Any) -> Any:
            start = time.thread_time()
            made = func(*own, **named)
            spent.append(time.thread_time() - start)
            return made

        before = len(self.found)
        made = self.note(func, timed, args, kwargs or {})
        self.seconds += spent * (len(self.found) - before)
        return made


def reached(one: Device, runs: int, size: int, quick: bool) -> Reach:
    """Shares of one thread's peaks, by kind, in the U-Net."""
    net = build("vpd", torch.float32, quick)
    latents, context = inputs(size, torch.float32)
    best: list[float] = []
    for _ in range(runs):
        with Timed() as timed:
            forward("vpd", net, latents, context)
        best = [min(pair) for pair in zip(best or timed.seconds, timed.seconds, strict=True)]
    spent: dict[str, float] = defaultdict(float)
    done: dict[str, float] = defaultdict(float)
    for own, took in zip(timed.found, best, strict=True):
        spent[own.kind] += took
        done[own.kind] += own.bytes if own.kind == "other" else own.flop
    rates = {kind: done[kind] / spent[kind] for kind in spent}
    peak = one.peaks["float32"]
    return Reach(
        **{k: rate / (one.bandwidth if k == "other" else peak) for k, rate in rates.items()}
    )


def counted(run: Callable[[], Any], known: Any) -> tuple[list[Operation], int]:
    """Operators, and the most bytes of living tensors."""
    with Operations() as operations, LiveBytes(known) as live:
        run()
    return operations.found, live.peak


def unet_forward(recompute: str | None, size: int) -> tuple[list[Operation], int]:
    """What benchmarks/unet.py runs, or benchmarks/train_step.py with a ``recompute``."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        net = vpd.UNet(vpd.UNetConfig()).requires_grad_(False)
        latents = torch.zeros(1, 4, size // 8, size // 8)
        context = torch.zeros(1, 77, 768)
        if recompute is None:
            return counted(lambda: forward("vpd", net, latents, context), net.parameters())
        adapter = vpd.TextAdapter(768)
        net.recompute = recompute

        def step() -> None:
            maps = net(latents, 1, adapter(context)).features
            torch.autograd.backward(maps, [torch.zeros_like(m) for m in maps])

        return counted(step, [*net.parameters(), *adapter.parameters()])


def known() -> float:
    """How far the count is off a figure that is known, relatively."""
    operations, _ = unet_forward(None, 512)
    flop = sum(own.flop for own in operations if own.kind in ("convolution", "matrix"))
    return abs(flop / 677e9 - 1)


def head_step(batch: int, alone: bool) -> list[Operation]:
    """What benchmarks/head_only.py runs."""
    config = ReferTrainConfig(
        data=ReferData(split="val"),
        loop=LoopConfig(batch=batch, clip=1.0, precision="bf16"),
        freeze="unet" if alone else "none",
        text_adapter=not alone,
    )
    with refer_step(config) as step:
        made = step.module.configure_optimizers()
        with Operations(step.model) as operations:
            with torch.autocast("cpu", torch.bfloat16):
                loss = step.loss()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(step.module.parameters(), 1.0)
            made["optimizer"].step()
    return operations.found


def records(device: Device) -> list[dict[str, Any]]:
    """Predicted and measured, one after the other."""
    found: list[dict[str, Any]] = []

    def add(name: str, operations: list[Operation], took: float, **memory: float) -> None:
        predicted = seconds([(own, 1.0) for own in operations], device)
        flop = sum(own.flop for own in operations)
        line = {"name": name, "tflop": flop / 1e12, "predicted_s": predicted, "measured_s": took}
        found.append({**line, "measured / predicted": took / predicted, **memory})

    def read(name: str) -> dict[str, Any]:
        return json.loads((RESULTS / f"{name}.json").read_text())

    unet, training, head = read("unet"), read("train_step"), read("head_only")
    operations, peak = unet_forward(None, unet["config"]["size"])
    measured = unet["peak_mib_above_weights"]["vpd"] * 2**20 / 1e9
    add(
        "U-Net forward with maps", operations, min(unet["seconds"]["vpd"]),
        predicted_gb=peak / 1e9, measured_gb=measured,
    )  # fmt: skip
    for kind, recompute in (("vpd", "none"), ("vpd attention", "attention"), ("vpd all", "all")):
        operations, peak = unet_forward(recompute, training["config"]["size"])
        add(
            f"step before a frozen U-Net, recompute: {recompute}", operations,
            min(training["seconds"][kind]),
            predicted_gb=peak / 1e9, measured_gb=training["peak_gb_above_weights"][kind],
        )  # fmt: skip
    batch = head["config"]["batch"]
    for kind in ("full fine-tuning", "head only"):
        took = batch / max(head["samples_per_second"][kind])
        add(f"vpd-mini, bf16, {kind}", head_step(batch, kind == "head only"), took)
    return found


def published() -> dict[str, float]:
    """InstructPix2Pix as its authors trained it (Brooks et al. 2023): 10,000 steps of 1,024 pairs
    at 256 px on eight A100 of 40 GB took 25.5 hours. Each GPU takes its 128 pairs in four passes,
    recomputes activations, and multiplies matrices of float32 as TF32, like PyTorch did then."""
    counts = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        vae = vpd.AutoencoderKL(vpd.AutoencoderConfig(encode_only=True)).requires_grad_(False)
        text = vpd.CLIPTextEncoder(vpd.CLIPTextConfig()).requires_grad_(False)
        unet = vpd.UNet(vpd.UNetConfig(in_channels=8))
        unet.recompute = "all"
        optimizer = torch.optim.AdamW(unet.parameters(), fused=True)
        for rows in (1, 2):
            optimizer.zero_grad()
            with Operations() as counts[rows]:
                with torch.no_grad():
                    for _ in range(2):  # before and after the edit
                        vae.encode(torch.zeros(rows, 3, 256, 256))
                    states = text(torch.zeros(rows, 77, dtype=torch.int64)).hidden
                noise = unet(
                    torch.zeros(rows, 8, 32, 32), torch.zeros(rows), states,
                    taps=vpd.Taps(noise=True, features=False, attention=()),
                ).noise  # fmt: skip
                noise.square().mean().backward()
                counts[rows].phase = "optimizer"
                optimizer.step()
    device = devices_of(["A100-40"])[0]
    device = replace(device, peaks={**device.peaks, "float32": device.peaks["tf32"]})
    calls = list(scaled(counts[1].found, counts[2].found, 32))
    one_pass = seconds([c for c in calls if c[0].phase != "optimizer"], device)
    update = seconds([c for c in calls if c[0].phase == "optimizer"], device)
    reduced = all_reduce(sum(p.numel() for p in unet.parameters()), device, 8)[1]
    flop = 4 * sum(times * own.flop for own, times in calls)
    return {
        "tflop_a_step_and_gpu": flop / 1e12,
        "predicted_hours": 10_000 * (4 * one_pass + update + reduced) / 3600,
        "published_hours": 25.5,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the width, no records")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--size", type=int)
    parser.add_argument("--runs", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    one = probe(torch.device("cpu"), time.thread_time)
    reach = reached(one, args.runs, args.size or (256 if args.quick else 512), args.quick)
    result: dict[str, Any] = {
        "benchmark": "scaling",
        "machine": machine(),
        "one_thread": {
            "flop_per_second": one.peaks,
            "bytes_per_second": one.bandwidth,
            "overhead_s": one.overhead,
        },
        "reach": vars(reach),
        "checks": [
            check("products with weights in the U-Net at 512 px, off 677 GFLOP", known(), 0.01)
        ],
    }
    if not args.quick:
        twice = {kind: 2 * peak for kind, peak in one.peaks.items()}
        two = replace(one, peaks=twice, bandwidth=2 * one.bandwidth, reach=reach)
        result["records"] = records(two)
        result["instruct_pix2pix"] = published()
        for line in result["records"]:
            if line["name"].startswith("step before"):
                ratio = line["measured / predicted"]
                name = f"time, {line['name']}, predicted off by a factor of"
                result["checks"].append(check(name, max(ratio, 1 / ratio), 1.5))
                ratio = line["measured_gb"] / line["predicted_gb"]
                name = f"memory, {line['name']}, predicted off by a factor of"
                result["checks"].append(check(name, max(ratio, 1 / ratio), 1.5))
    report(result, args.json)


if __name__ == "__main__":
    main()
