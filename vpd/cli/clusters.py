"""Clusters of features: ``vpd maps --clusters``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpd.cli.answer import Answer

if TYPE_CHECKING:
    from vpd.protocol import NoiseSpec
    from vpd.tasks.clusters import ClusterResult

__all__ = ["OWNERS", "clusters_answer"]

_OWN = ("block", "pca", "upsample", "seed", "panoptic")
_ATTENTION = (
    "strides", "mode", "markers", "overlay", "average", "fusion", "shares", "layers", "head",
)  # fmt: skip
OWNERS = dict.fromkeys(_OWN, ("clusters",)) | dict.fromkeys(_ATTENTION, ("attention",))
"""What of the two each option belongs to."""


def clusters_answer(
    network: Any,
    image: Path,
    text: str,
    clusters: int,
    noises: Sequence[NoiseSpec] | None,
    given: Mapping[str, Any],
    panoptic: Any,
    out: Path,
    arrays: bool,
) -> Answer:
    """Clusters one picture's features and writes what it found.

    Args:
        network: A foundation or a task model.
        image: A file.
        text: What the U-Net is told; "": nothing.
        clusters: How many.
        noises: Protocols of the features; the network's own if None.
        given: Options of clusters by name; None where one was not given.
        panoptic: The model whose segments stand beside the clusters, or None.
        out: Folder for the files.
        arrays: Whether to write the arrays too.
    """
    from vpd.tasks.clusters import cluster_features

    options = {key: given[key] for key in ("pca", "upsample", "seed") if given[key] is not None}
    found = cluster_features(
        image, given["block"], clusters, model=network, words=_words(network, text), noise=noises,
        **options,
    )  # fmt: skip
    segments = None if panoptic is None else panoptic(image)
    files = [found.show(segments).save(out / f"{image.stem}.clusters.png")]
    if arrays:
        files.append(found.save(out / f"{image.stem}.clusters.npz"))
    return Answer(_data(found, image, text, files), "\n".join(f"wrote {file}" for file in files))


def _words(network: Any, text: str) -> Any:
    """A text as a network takes what is said about a picture."""
    from vpd.cli.predict import words_said
    from vpd.tasks.dense import DenseModel

    if not text.strip():
        return None
    if isinstance(network, DenseModel):
        return words_said(text, getattr(network.config, "condition", ""))
    return text


def _data(found: ClusterResult, image: Path, text: str, files: Sequence[Path]) -> dict[str, Any]:
    import numpy as np

    sizes = np.bincount(found.labels.ravel(), minlength=len(found.centroids))
    return {
        "image": str(image),
        "text": text,
        "clusters": len(found.centroids),
        "pixels": sizes.tolist(),
        "grid": list(found.grid.shape),
        "inertia": found.inertia,
        "blocks": list(found.blocks),
        "noises": [noise.to_dict() for noise in found.noises],
        "files": [str(file) for file in files],
    }
