"""Clusters of features as pictures and files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vpd.data.files import write_npz, write_png
from vpd.viz.dense import blend, class_colors
from vpd.viz.overlay import RGB, shrink
from vpd.viz.page import Band, Panel, Picture, page
from vpd.viz.panoptic import panoptic_overlay

if TYPE_CHECKING:
    from vpd.tasks.clusters import ClusterResult
    from vpd.tasks.panoptic_results import PanopticResult

__all__ = ["clusters_figure", "clusters_overlay", "save_clusters"]


def clusters_overlay(result: ClusterResult) -> RGB:
    """The picture, uint8 [H, W, 3], with its clusters in colour."""
    return blend(result.image, _colors(result))


def clusters_figure(result: ClusterResult, panoptic: PanopticResult | None = None) -> Picture:
    """Image, clusters, and the segments of a panoptic result beside them; without one, the clusters
    over the image."""
    last = ("clusters over it", clusters_overlay(result))
    if panoptic is not None:
        last = ("segments", panoptic_overlay(panoptic))
    panels = [
        Panel(shrink(result.image), "image"),
        Panel(shrink(_colors(result)), f"{len(result.centroids)} clusters"),
        Panel(shrink(last[1]), last[0]),
    ]
    return page([Band(panels)], columns=3)


def save_clusters(
    result: ClusterResult, path: Path, panoptic: PanopticResult | None = None
) -> Path:
    """Writes a result in the form that the file name asks for.

    ``.figure.png``: the figure; ``.png``: the clusters over the image; ``.npz``: ``image``,
    ``labels``, ``grid``, ``centroids``, ``inertia``, ``blocks``.

    Raises:
        ValueError: Another extension. OSError: the file cannot be written.
    """
    name = path.name.lower()
    if name.endswith(".figure.png"):
        return clusters_figure(result, panoptic).save(path)
    if name.endswith(".png"):
        write_png(path, clusters_overlay(result))
        return path
    if name.endswith(".npz"):
        write_npz(
            path,
            image=result.image,
            labels=result.labels,
            grid=result.grid,
            centroids=result.centroids,
            inertia=np.array(result.inertia),
            blocks=np.array(result.blocks, dtype=str),
        )
        return path
    raise ValueError(f"{path}: expected a name ending in .png, .figure.png or .npz")


def _colors(result: ClusterResult) -> RGB:
    return class_colors(result.labels, len(result.centroids))
