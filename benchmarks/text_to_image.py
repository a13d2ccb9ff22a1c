"""Does vpd-mini draw what a caption asks for? A detector trained on real scenes looks.

    python benchmarks/text_to_image.py [--quick] [--json] [--count 100] [--steps 20] [--guidance 4]
        [--sampler dpm++] [--seed 0] [--picture FILE]

Captions: single clauses about scenes of Tabletop's ``val`` that name the colour and the shape of
one object and no other object. Detector: the segments of vpd-mini-panoptic have a shape; their
colour is read by a quadratic discriminant of the pixels' colours, fitted to the true masks of
``train``. Found: one segment has both. Beside it, the same for the real scenes that the captions
are about, and for the captions of other pictures (those of another object).
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from _common import check, machine, report

import vpd
from vpd.data import tabletop
from vpd.data.tabletop.phrases import ANY_NOUN, NOUNS
from vpd.data.tabletop.spec import COLORS, VISIBLE_PX
from vpd.diffusion import SampleNoise, Sampler

WANTED = 60.0  # percent of the samples
SHAPE_OF = {noun: shape for shape, nouns in NOUNS.items() for noun in nouns}


class Asked(NamedTuple):
    caption: str
    color: str
    shape: str
    scene: int


class Colors:
    """Tells an object's colour: the likeliest of one Gaussian for each, of how bright and dark its
    pixels are in every channel (Hastie et al. 2009, section 4.3)."""

    def __init__(self, split: Any) -> None:
        seen: dict[str, list[np.ndarray]] = {color: [] for color in COLORS}
        for picture, mask, color in true_objects(split):
            seen[color].append(self._features(picture, mask))
        self._means = np.stack([np.mean(seen[color], axis=0) for color in COLORS])
        spreads = [np.cov(np.array(seen[color]).T) + 1e-6 * np.eye(6) for color in COLORS]
        self._inverse = np.linalg.inv(spreads)
        self._volumes = np.linalg.slogdet(spreads)[1]

    @staticmethod
    def _features(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Two levels of every channel: stripes darken some pixels, a shine brightens some."""
        return np.percentile(picture[mask] / 255.0, (30, 75), axis=0).ravel()

    def __call__(self, picture: np.ndarray, mask: np.ndarray) -> str:
        off = self._features(picture, mask) - self._means
        costs = np.einsum("ki,kij,kj->k", off, self._inverse, off) + self._volumes
        return COLORS[int(costs.argmin())]


def true_objects(split: Any):
    """Picture, mask and colour of every visible object."""
    for i in range(len(split)):
        picture, ids = np.array(split.images[i]), np.array(split.instances[i])
        for number, one in enumerate(split.scene(i).objects, start=1):
            if one.visible_px >= VISIBLE_PX:
                yield picture, ids == number, one.color


def asked_of(split: Any, count: int, seed: int) -> list[Asked]:
    """One caption of a scene, of as many scenes as are wanted."""
    found = []
    for i in range(len(split)):
        for attempt in range(20):
            caption = tabletop.caption(split.scene(i), random.Random(f"{seed} {i} {attempt}"), 1)
            words = caption.split()
            colors = [word for word in words if word in COLORS]
            shapes = [SHAPE_OF[word] for word in words if word in SHAPE_OF]
            if (len(colors), len(shapes)) == (1, 1) and not set(words) & set(ANY_NOUN):
                found.append(Asked(caption, colors[0], shapes[0], i))
                break
        if len(found) == count:
            return found
    raise ValueError(f"count must be at most {len(found)}, got {count}")


def draw(asked: Sequence[Asked], args: argparse.Namespace) -> list[np.ndarray]:
    model, pictures = vpd.load("vpd-mini"), []
    sampler = Sampler(args.sampler, args.steps)
    for start in range(0, len(asked), 10):
        part = asked[start : start + 10]
        noise = SampleNoise(args.seed, range(start, start + len(part)))
        images = model.sample(
            [one.caption for one in part], guidance=args.guidance, sampler=sampler, noise=noise
        )
        values = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
        pictures += list(values.numpy())
    return pictures


def objects_in(detector: Any, colors: Colors, picture: np.ndarray) -> set[tuple[str, str]]:
    """Colour and shape of all that the detector finds."""
    result = detector(picture, min_score=0.5)
    found = set()
    for segment in result.segments:
        mask = result.mask(segment.id)
        if result.things[segment.category] and mask.sum() >= VISIBLE_PX:
            found.add((colors(picture, mask), result.names[segment.category]))
    return found


def rates(asked: Sequence[Asked], seen: Sequence[set[tuple[str, str]]]) -> dict[str, float]:
    """Percent of pictures with an object as asked, with one of its shape, and with one as asked by
    the caption of another picture."""
    pairs = [
        (others, one)
        for others, own, one in zip(seen, asked, [*asked[1:], asked[0]], strict=True)
        if (own.color, own.shape) != (one.color, one.shape)
    ]
    found = {
        "found": [(one.color, one.shape) in own for own, one in zip(seen, asked, strict=True)],
        "shape": [
            one.shape in {shape for _, shape in own} for own, one in zip(seen, asked, strict=True)
        ],
        "shuffled": [(one.color, one.shape) in own for own, one in pairs],
    }
    return {name: 100 * float(np.mean(values)) for name, values in found.items()}


def show(asked: Sequence[Asked], pictures: Sequence[np.ndarray], path: str) -> None:
    from vpd.viz import Band, Panel, page

    panels = [Panel(p, one.caption) for p, one in zip(pictures, asked, strict=True)][:15]
    bands = [Band(panels[i : i + 5]) for i in range(0, len(panels), 5)]
    page(bands, columns=5, width_in=9).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ten captions")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--count", type=int)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--sampler", default="dpm++")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", help="PNG file of the first samples")
    args = parser.parse_args()
    count = args.count or (10 if args.quick else 100)
    colors = Colors(tabletop.load_split("train", limit=300))
    val = tabletop.load_split("val")
    right = [colors(picture, mask) == color for picture, mask, color in true_objects(val)]
    asked = asked_of(val, count, args.seed)
    start = time.perf_counter()
    samples = draw(asked, args)
    seconds = time.perf_counter() - start
    if args.picture:
        show(asked, samples, args.picture)
    detector = vpd.load("vpd-mini-panoptic")
    real = [np.array(val.images[one.scene]) for one in asked]
    of = {
        name: rates(asked, [objects_in(detector, colors, picture) for picture in pictures])
        for name, pictures in (("samples", samples), ("real scenes", real))
    }
    checks = [
        check("colours of true masks misread, percent", 100 - 100 * float(np.mean(right)), 5.0)
    ]
    if not args.quick:
        missed = 100 - of["samples"]["found"]
        checks.append(check("samples without what was asked for, percent", missed, 100 - WANTED))
    report(
        {
            "benchmark": "text_to_image",
            "machine": machine(),
            "config": {
                "count": count, "steps": args.steps, "guidance": args.guidance,
                "sampler": args.sampler, "seed": args.seed,
            },
            "percent": of,
            "seconds_of_sampling": seconds,
            "checks": checks,
        },
        args.json,
    )  # fmt: skip


if __name__ == "__main__":
    with torch.inference_mode():
        main()
