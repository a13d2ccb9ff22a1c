"""Training the head alone, from cached outputs of the frozen U-Net, against full fine-tuning.

    python benchmarks/head_only.py [--quick] [--json] [--batch 8] [--runs 5]

vpd-mini on scenes of Tabletop. Both modes are the very module that ``vpd train`` runs (batch
drawn, loss, backward, gradient clipping, optimizer), in the precision that it takes by itself; the
cache is filled before. Times: minima of alternating rounds in one process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _common import check, machine, report

from vpd.memory import set_freed_memory
from vpd.nn import channels_last
from vpd.train.loop.config import LoopConfig, resolve_precision
from vpd.train.refer.cache import CachedFeatures
from vpd.train.refer.config import ReferData, ReferTrainConfig
from vpd.train.refer.data import training_data
from vpd.train.refer.model import build
from vpd.train.refer.table import ReferTable
from vpd.train.refer.training import ReferTraining

CLIP = 1.0


def steps_of(config: ReferTrainConfig, cache: Path | None, steps: int) -> Callable[[int], float]:
    """A function that takes one training step by its number and returns the loss."""
    model = build(config)
    data = training_data(config.data, progress=False)
    table = ReferTable(model, data.pictures, data.refs, config.loop.batch, config.seed)
    bf16 = resolve_precision(config.loop.precision) == "bf16-mixed"
    cached = None
    if cache is not None:
        cached = CachedFeatures(model, table, steps, cache, bf16=bf16, progress=False)
    module = channels_last(ReferTraining(model, config, table, None, cached)).train()
    optimizer = module.configure_optimizers()["optimizer"]

    def step(number: int) -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = module.losses(number, slice(None))["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        optimizer.step()
        return float(loss.detach())

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer scenes, steps and rounds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--runs", type=int)
    args = parser.parse_args()
    runs = args.runs or (2 if args.quick else 5)
    scenes, full_steps, head_steps = (20, 5, 30) if args.quick else (60, 20, 200)
    set_freed_memory("kept")
    with tempfile.TemporaryDirectory() as folder:
        config = ReferTrainConfig(
            out=folder,
            data=ReferData(split="val", limit=scenes, cache_dir=Path(folder) / "tabletop"),
            loop=LoopConfig(batch=args.batch, clip=CLIP),
            progress=False,
        )
        head = replace(config, freeze="unet", text_adapter=False)
        step = {
            "head only": steps_of(head, Path(folder) / "features", head_steps),
            "full fine-tuning": steps_of(config, None, full_steps),
        }
        count = {"head only": head_steps, "full fine-tuning": full_steps}
        losses = {kind: [take(n) for n in range(3)] for kind, take in step.items()}  # and warm-up
        rates: dict[str, list[float]] = {kind: [] for kind in step}
        for _ in range(runs):
            for kind, take in step.items():
                start = time.perf_counter()
                for number in range(count[kind]):
                    take(number)
                seconds = time.perf_counter() - start
                rates[kind].append(count[kind] * args.batch / seconds)
    best = {kind: max(found) for kind, found in rates.items()}
    ratio = best["head only"] / best["full fine-tuning"]
    first = abs(losses["head only"][0] - losses["full fine-tuning"][0])
    report(
        {
            "benchmark": "head_only",
            "machine": machine(),
            "config": {"scenes": scenes, "batch": args.batch, "runs": runs},
            "samples_per_second": rates,
            "ratio": ratio,
            "checks": [
                check("difference of the first step's losses", first, 0.02),
                check("10 / (samples a second, head only / full fine-tuning)", 10 / ratio, 1.0),
            ],
        },
        args.json,
    )


if __name__ == "__main__":
    main()
