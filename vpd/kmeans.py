"""Clusters of points by k-means, in the core: float64, on the CPU, the same for any number of
threads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vpd._load import core

__all__ = [
    "KMeans",
    "kmeans",
    "kmeans_plus_plus",
    "principal_components",
    "squared_distances",
]


@dataclass(frozen=True)
class KMeans:
    """What :func:`kmeans` found."""

    labels: Tensor
    """int64 [n]: the nearest centroid of each point."""
    centroids: Tensor
    """float64 [k, d]."""
    inertia: float
    """Sum of the squared distances between points and their centroids."""
    iterations: int
    """How often the centroids were moved."""


def kmeans(
    points: Tensor,
    clusters: int | Tensor,
    *,
    seed: int = 0,
    restarts: int = 10,
    iterations: int = 100,
) -> KMeans:
    """Lloyd's algorithm (1982) from k-means++ (Arthur & Vassilvitskii 2007).

    It ends when no point changes its cluster. A cluster that loses its last point gets the one
    farthest from its centroid.

    Args:
        points: [n, d] of any floating dtype.
        clusters: How many, 1 ... n; where fewer points differ, there are only as many centroids as
            these. Or the centroids to start from, floating [k, d]: then seed and restarts play no
            part.
        seed: 0 ... 2**64 - 1.
        restarts: Runs from other seeds; the one with the least inertia is returned.
        iterations: How often centroids are moved at most.

    Raises:
        ValueError: Values that are not finite, or a number or shape out of range.
    """
    if isinstance(clusters, Tensor):
        found = core.kmeans_from(points, clusters, iterations)
    else:
        found = core.kmeans(points, clusters, _checked(seed), restarts, iterations)
    return KMeans(found.labels, found.centroids, found.inertia, found.iterations)


def kmeans_plus_plus(points: Tensor, clusters: int, *, seed: int = 0) -> Tensor:
    """Points that :func:`kmeans` starts its first run from: int64 [k].

    The first one is any point, with equal chances; each other is drawn in proportion to its squared
    distance from the nearest one before.

    Args:
        points, clusters, seed: As :func:`kmeans` takes them.
    """
    return core.kmeans_seeds(points, clusters, _checked(seed), 0)


def principal_components(points: Tensor, dims: int) -> Tensor:
    """Points less their mean, along their directions of largest variance.

    Args:
        points: [n, d] of any floating dtype.
        dims: How many directions, 1 ... min(n, d).

    Returns:
        float64 [n, dims]; of each direction, the value of largest size is positive.
    """
    return core.principal_components(points, dims)


def _checked(seed: int) -> int:
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be in 0..2**64 - 1, got {seed}")
    return seed


def squared_distances(points: Tensor, centroids: Tensor) -> Tensor:
    """[n, k] between points [n, d] and centroids [k, d], without loss where they nearly agree."""
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(points.double(), centroids.double(), compute_mode=mode).square()
