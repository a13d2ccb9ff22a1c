"""Draws the pictures of the documentation: docs/images/tabletop.png, demo.png, panoptic.png,
depth.png, clusters.png, edits.png, vocabularies.png and told.png."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import vpd
from vpd.data import tabletop
from vpd.tasks.panoptic_results import PanopticResult
from vpd.viz.bars import bars_figure, read_bars
from vpd.viz.edit import edit_figure
from vpd.viz.panoptic import vocabularies_figure

DOCS = Path(__file__).parent.parent / "docs"
ROWS, COLUMNS = 2, 6
FIRST_SEED = 3_000_000  # the validation split's
TOLD = (
    "unconditional", "implicit (ODISE)", "class names (VPD)", "tagging, centred classes",
    "true caption", "tagging, true tags, centred classes", "oracle",
)  # fmt: skip
VOCABULARIES = (
    "red; green; yellow; floor, at the front; wall, at the back",
    "red, yellow; floor, at the front; wall, at the back",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "images", help="folder to write to")
    draw(parser.parse_args().out)


def draw(folder: Path) -> None:
    scenes = [tabletop.render(FIRST_SEED + i).image for i in range(ROWS * COLUMNS)]
    size = tabletop.IMAGE_SIZE
    sheet = np.stack(scenes).reshape(ROWS, COLUMNS, size, size, 3)
    sheet = sheet.transpose(0, 2, 1, 3, 4).reshape(ROWS * size, COLUMNS * size, 3)
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "tabletop.png"), sheet[:, :, ::-1])
    scene = tabletop.render(FIRST_SEED + 4)
    result = vpd.load("vpd-mini-refer")(scene.image, "the striped red cube")
    figure(result, folder / "demo.png")
    result = vpd.load("vpd-mini-panoptic")(tabletop.render(FIRST_SEED + 3).image)
    figure(result, folder / "panoptic.png")
    result = vpd.load("vpd-mini-depth")(tabletop.render(FIRST_SEED + 3).image)
    figure(result, folder / "depth.png")
    clusters(folder)
    edits(folder)
    vocabularies(folder)
    told(folder)


def figure(result: Any, path: Path) -> None:
    """A task's figure: what it saves under a name that ends in .figure.png."""
    result.save(path.with_suffix(".figure.png")).replace(path)


def told(folder: Path) -> None:
    """What the U-Net is told and what comes of it: figure 1 of the tagging adapter's paper, with
    the conditions of its table 5."""
    results = DOCS / "results" / "tagging_contest.jsonl"
    bars = read_bars(results, metric="mIoU", bar="condition", group="variant")[""]
    shown = {name.removesuffix(" (VPD)").removesuffix(" (ODISE)"): bars[name] for name in TOLD}
    figure = bars_figure({"U-Net and head trained": shown}, y_label="mIoU, Tabletop val")
    figure.save(folder / "told.png")


def clusters(folder: Path) -> None:
    """Clusters of vpd-mini's features beside the true segments of a scene."""
    scene = tabletop.panoptic(tabletop.load_split("val", limit=5, progress=False))[4]
    image, label = scene.read()
    classes = label.semantic()
    truth = PanopticResult(
        image, label.ids, label.segments, classes, tabletop.CLASSES, tabletop.THINGS
    )
    found = vpd.cluster_features(image, 6, K=8)
    found.show(truth).save(folder / "clusters.png", dpi=100)


def edits(folder: Path) -> None:
    """One edit of each kind, beside the true edited pictures."""
    pairs = tabletop.edits(tabletop.load_split("val", limit=19, progress=False))
    chosen = [pairs.pair(index) for index in (6, 4, 2, 18)]
    results = vpd.load("vpd-mini-edit").edit(
        [pair.before for pair in chosen],
        [pair.triplet.edit for pair in chosen],
        steps=20,
        seed=[0, 1, 2, 3],
    )
    edit_figure(results, [pair.after for pair in chosen]).save(folder / "edits.png", dpi=90)


def vocabularies(folder: Path) -> None:
    """One scene in two vocabularies typed at run time."""
    asked = {text: vpd.Vocabulary.parse(text, stuff="floor, wall") for text in VOCABULARIES}
    image = tabletop.render(FIRST_SEED + 4).image
    found = vpd.load("vpd-mini-odise").each(image, list(asked.values()))
    figure = vocabularies_figure(dict(zip(asked, found, strict=True)))
    figure.save(folder / "vocabularies.png", dpi=90)


if __name__ == "__main__":
    main()
