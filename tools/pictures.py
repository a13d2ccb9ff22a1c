"""Draws the pictures of the documentation: docs/images/tabletop.png, demo.png,
panoptic.png and clusters.png."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

import vpd
from vpd.data import tabletop
from vpd.tasks.panoptic_results import PanopticResult

IMAGES = Path(__file__).parent.parent / "docs" / "images"
ROWS, COLUMNS = 2, 6
FIRST_SEED = 3_000_000  # the validation split's


def main() -> None:
    scenes = [tabletop.render(FIRST_SEED + i).image for i in range(ROWS * COLUMNS)]
    size = tabletop.IMAGE_SIZE
    sheet = np.stack(scenes).reshape(ROWS, COLUMNS, size, size, 3)
    sheet = sheet.transpose(0, 2, 1, 3, 4).reshape(ROWS * size, COLUMNS * size, 3)
    IMAGES.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(IMAGES / "tabletop.png"), sheet[:, :, ::-1])
    scene = tabletop.render(FIRST_SEED + 4)
    result = vpd.load("vpd-mini-refer")(scene.image, "the striped red cube")
    result.save(IMAGES / "demo.figure.png").replace(IMAGES / "demo.png")
    result = vpd.load("vpd-mini-panoptic")(tabletop.render(FIRST_SEED + 3).image)
    result.save(IMAGES / "panoptic.figure.png").replace(IMAGES / "panoptic.png")
    clusters()


def clusters() -> None:
    """Clusters of vpd-mini's features beside the true segments of a scene."""
    scene = tabletop.panoptic(tabletop.load_split("val", limit=5, progress=False))[4]
    image, label = scene.read()
    classes = label.semantic()
    truth = PanopticResult(
        image, label.ids, label.segments, classes, tabletop.CLASSES, tabletop.THINGS
    )
    found = vpd.cluster_features(image, 6, K=8)
    found.show(truth).save(IMAGES / "clusters.png", dpi=100)


if __name__ == "__main__":
    main()
