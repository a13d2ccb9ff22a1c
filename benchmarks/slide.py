"""Semantic segmentation of a large picture by sliding windows: memory and time.

    python benchmarks/slide.py [--quick] [--json] [--model FOLDER]

vpd-mini with a head of eight classes (``--model``: a trained one) on a picture of 4000 x 3000
pixels at its own size. Memory: peak resident memory of a fresh process, everything included. The
classes are compared with those of scores averaged over the whole picture, on a part of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from _common import check, fresh, machine, report

from vpd.memory import peak_resident, set_freed_memory
from vpd.tasks import store
from vpd.tasks.semantic import SemanticConfig, SemanticSegmenter
from vpd.tasks.slide import slide_bands

LIMIT_GB = 1.5


def segmenter(model: str | None) -> SemanticSegmenter:
    """A model that takes pictures at their own size."""
    if model is not None:
        found = store.load(model)
        found.config = replace(found.config, resize="none")
        return found
    base = store.load_foundation("vpd-mini")
    torch.manual_seed(0)
    config = SemanticConfig(
        unet=base.config.unet,
        vae=replace(base.config.vae, encode_only=True),
        scale_factor=base.config.scale_factor,
        classes=tuple(f"class {i}" for i in range(8)),
        channels=64,
        image_size=base.config.image_size,
        stride=base.config.image_size * 2 // 3,
        resize="none",
    )
    found = SemanticSegmenter(config).eval()
    found.class_embeddings.normal_()
    found.unet.load_state_dict(base.unet.state_dict())
    return found


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def measure(model: str | None, height: int, width: int) -> None:
    """Runs in a process of its own."""
    set_freed_memory("returned")
    net, image = segmenter(model), picture(height, width)
    start = time.perf_counter()
    found = net(image, batch=8)
    seconds = time.perf_counter() - start
    assert found.classes.shape == (height, width)
    print(json.dumps({"gb": peak_resident() / 1e9, "seconds": seconds}))


def disagreement(model: str | None) -> float:
    """Share of pixels that another way of averaging puts into another class."""
    net, image = segmenter(model), picture(300, 400)
    found = net(image)
    side, stride = net.config.image_size, net.config.stride
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        scores = torch.cat(list(slide_bands(pixels, net.logits, side, stride, 1)), dim=1)
    return float((scores.argmax(0).numpy() != found.classes).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of each side")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    height, width = (750, 1000) if args.quick else (3000, 4000)
    if args.inner:
        measure(args.model, height, width)
        return
    chosen = ("--model", args.model) if args.model else ()
    found = fresh(__file__, "--inner", *chosen, quick=args.quick)
    report(
        {
            "benchmark": "slide",
            "machine": machine(),
            "config": {"height": height, "width": width, "model": args.model or "random head"},
            **found,
            "checks": [
                check("peak memory of the process, GB", found["gb"], LIMIT_GB),
                check("pixels of another class", disagreement(args.model), 1e-3),
            ],
        },
        args.json,
    )


if __name__ == "__main__":
    main()
