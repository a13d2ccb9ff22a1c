"""How far clusters of features agree with true segments, beside what needs no pre-training.

    python benchmarks/clusters.py [--quick] [--json] [--threads N]

``vpd.cluster_features`` of vpd-mini on the first scenes of Tabletop's `val`: adjusted Rand index of
the clusters with the segments, mean over scenes, over all pixels and over those of objects alone.
Beside it the same of a U-Net of random weights, clusters of the picture's own colours, and clusters
against the segments of another scene.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from _common import check, machine, report

import vpd
from vpd.data import tabletop
from vpd.kmeans import kmeans

K, RESTARTS = 8, 3
FINE, DEFAULT = 6, 5  # input blocks of the decoder: on 32 x 32, on 16 x 16
GRID = 32
BACKGROUND = (1, 2)  # ids of floor and wall


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Pairs of pixels that both labellings put together, against what chance would give: 1 if they
    are the same, 0 on average for chance (Hubert & Arabie 1985)."""
    _, rows = np.unique(a, return_inverse=True)
    _, columns = np.unique(b, return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1), dtype=np.int64)
    np.add.at(table, (rows.ravel(), columns.ravel()), 1)
    both, in_a, in_b = (
        float((counts * (counts - 1) // 2).sum()) for counts in (table, table.sum(1), table.sum(0))
    )
    chance = in_a * in_b / (a.size * (a.size - 1) // 2)
    most = (in_a + in_b) / 2
    return 1.0 if most == chance else (both - chance) / (most - chance)


def agreement(found: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean over scenes, of all pixels and of those that are an object's in the truth."""
    everywhere, objects = [], []
    for labels, truth in zip(found, truths, strict=True):
        inside = ~np.isin(truth, BACKGROUND)
        everywhere.append(adjusted_rand(labels, truth))
        objects.append(adjusted_rand(labels[inside], truth[inside]))
    return {"pixels": float(np.mean(everywhere)), "objects": float(np.mean(objects))}


def of_features(model: Any, pictures: Sequence[np.ndarray], block: int) -> list[np.ndarray]:
    return [
        vpd.cluster_features(picture, block, K, model=model, restarts=RESTARTS).labels
        for picture in pictures
    ]


def of_colours(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same k-means over nothing but the colours, on the grid of the finer block."""
    found = []
    for picture in pictures:
        small = cv2.resize(picture, (GRID, GRID), interpolation=cv2.INTER_AREA)
        points = torch.from_numpy(small.reshape(-1, 3)).float() / 255
        grid = kmeans(points, K, restarts=RESTARTS).labels.reshape(GRID, GRID).numpy()
        size = (picture.shape[1], picture.shape[0])
        found.append(cv2.resize(grid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST))
    return found


def measure(quick: bool) -> dict[str, Any]:
    scenes, seeds = (4, 1) if quick else (20, 3)
    split = tabletop.panoptic(tabletop.load_split("val", limit=scenes, progress=False))
    pictures = [scene.read_image() for scene in split]
    truths = [scene.read_label().ids for scene in split]
    others = truths[1:] + truths[:1]
    model = vpd.load("vpd-mini")
    fine = of_features(model, pictures, FINE)
    own, other = agreement(fine, truths), agreement(fine, others)
    rows = {
        "vpd-mini, block 6": own,
        "vpd-mini, block 5": agreement(of_features(model, pictures, DEFAULT), truths),
    }
    shape = model.unet.config
    for seed in range(seeds):
        model.unet = vpd.UNet(shape, generator=torch.Generator().manual_seed(seed)).eval()
        untrained = of_features(model, pictures, FINE)
        rows[f"random weights, block 6, seed {seed}"] = agreement(untrained, truths)
    rows["colours"] = agreement(of_colours(pictures), truths)
    rows["block 6, segments of another scene"] = other
    generator = np.random.default_rng(0)
    shuffled = [generator.permutation(labels.ravel()).reshape(labels.shape) for labels in fine]
    chance = agreement(shuffled, truths)["pixels"]
    return {
        "config": {"scenes": scenes, "k": K, "restarts": RESTARTS, "seeds": seeds},
        "adjusted_rand": rows,
        "checks": [
            check("index of shuffled pixels, but for its sign", abs(chance), 0.01),
            check(
                "index with another scene's segments less that with its own",
                other["pixels"] - own["pixels"],
                0.0,
            ),
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 scenes and one random U-Net")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--threads", type=int, help="threads of PyTorch; default: its own")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    found = {
        "benchmark": "clusters",
        "machine": machine(),
        **measure(args.quick),
    }
    report(found, args.json)


if __name__ == "__main__":
    main()
