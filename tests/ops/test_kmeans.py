"""K-means against SciPy's, a plain NumPy twin and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

from vpd.kmeans import kmeans, kmeans_plus_plus, principal_components, squared_distances


def random_points(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Without structure, where clusters take longest to settle."""
    return np.random.default_rng(seed).standard_normal((n, d))


def blobs(centers: np.ndarray, each: int, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Points around centres, in random order, and the centre of each."""
    rng = np.random.default_rng(3)
    truth = rng.permutation(np.repeat(np.arange(len(centers)), each))
    return centers[truth] + spread * rng.standard_normal((len(truth), centers.shape[1])), truth


def twin(points: np.ndarray, centers: np.ndarray, iterations: int = 100):
    """Lloyd's algorithm word for word: labels, centroids, inertia, number of moves."""
    centers, labels, moves = centers.copy(), np.full(len(points), -1), 0
    while True:
        far = ((points[:, None] - centers[None]) ** 2).sum(2)
        nearest = far.argmin(1)
        if (nearest == labels).all() or moves == iterations:
            return nearest, centers, far.min(1).sum(), moves
        labels = nearest
        own = far[np.arange(len(points)), labels]
        for k in range(len(centers)):
            if not (labels == k).any():
                shared = np.bincount(labels, minlength=len(centers))[labels] > 1
                labels[np.where(shared, own, -1).argmax()] = k
        centers = np.stack([points[labels == k].mean(0) for k in range(len(centers))])
        moves += 1


@pytest.mark.parametrize(("n", "d", "k"), [(40, 2, 3), (300, 5, 7), (700, 1, 4), (600, 90, 12)])
def test_matches_scipy_and_twin(n, d, k):
    points = random_points(n, d, seed=n)
    start = points[:k]
    found = kmeans(torch.tensor(points), torch.tensor(start), iterations=500)
    centroids, labels = kmeans2(points, start, iter=500, minit="matrix", missing="raise")
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.centroids, centroids, atol=1e-10)
    inertia = (cdist(points, centroids) ** 2).min(1).sum()
    assert found.inertia == pytest.approx(inertia, rel=1e-10)
    want = twin(points, start, 500)
    np.testing.assert_array_equal(found.labels, want[0])
    assert found.iterations == want[3] > 1


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_cut_short_labels_belong_to_the_centroids(iterations):
    points = random_points(200, 3)
    found = kmeans(torch.tensor(points), torch.tensor(points[:6]), iterations=iterations)
    labels, centroids, inertia, moves = twin(points, points[:6], iterations)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.centroids, centroids, atol=1e-12)
    assert (found.inertia, found.iterations) == (pytest.approx(inertia, rel=1e-12), moves)


def test_cluster_without_points_gets_the_farthest():
    points = random_points(60, 2)
    start = np.concatenate([points[:3], [[50.0, 50.0], [60.0, 0.0]]])
    found = kmeans(torch.tensor(points), torch.tensor(start))
    labels, centroids, inertia, moves = twin(points, start)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.centroids, centroids, atol=1e-12)
    assert set(labels) == set(range(5))
    assert (found.inertia, found.iterations) == (pytest.approx(inertia, rel=1e-12), moves)


def test_seeds_are_drawn_by_squared_distance():
    points = torch.tensor([[0.0], [1.0], [3.0]])
    draws = 3000
    counts = np.zeros((3, 3))
    for seed in range(draws):
        first, second = kmeans_plus_plus(points, 2, seed=seed).tolist()
        counts[first, second] += 1
    want = np.array([[0, 1 / 10, 9 / 10], [1 / 5, 0, 4 / 5], [9 / 13, 4 / 13, 0]]) / 3
    np.testing.assert_allclose(counts / draws, want, atol=0.03)  # three and a half deviations
    assert (counts[want == 0] == 0).all()


def test_third_seed_sees_the_nearest_of_the_two_before():
    points = torch.tensor([[0.0], [10.0], [1.0], [10.5]])
    counts = np.zeros(4)
    for seed in range(3000):
        seeds = kmeans_plus_plus(points, 3, seed=seed).tolist()
        if seeds[:2] == [0, 1]:
            counts[seeds[2]] += 1
    np.testing.assert_allclose(counts / counts.sum(), [0, 0, 0.8, 0.2], atol=0.06)
    assert counts.sum() > 500 / 3


def test_first_run_starts_from_the_seeds():
    points = torch.tensor(random_points(150, 4))
    once = kmeans(points, 6, seed=5, restarts=1)
    again = kmeans(points, points[kmeans_plus_plus(points, 6, seed=5)])
    torch.testing.assert_close(once.centroids, again.centroids, rtol=0, atol=0)
    inertias = [kmeans(points, 6, seed=5, restarts=n).inertia for n in (1, 3, 10)]
    assert inertias == sorted(inertias, reverse=True)
    assert inertias[2] < inertias[0]
    other = kmeans(points, 6, seed=2**64 - 1, restarts=1)
    assert not torch.equal(other.centroids, once.centroids)


def test_blobs_are_found():
    centers = np.array([[0, 0], [4, 0], [0, 4], [4, 4], [2, 9.0]])
    points, truth = blobs(centers, 40)
    found = kmeans(torch.tensor(points), 5)
    pairs = set(zip(truth, found.labels.tolist(), strict=True))
    assert len(pairs) == 5  # one to one
    for true, own in pairs:
        mean = points[truth == true].mean(0)
        np.testing.assert_allclose(found.centroids[own], mean, atol=1e-12)
    assert found.inertia == pytest.approx(200 * 2 * 0.01, rel=0.2)


def test_a_large_mean_costs_no_digits():
    points, truth = blobs(np.array([[0.0, 0.0], [1.0, 0.0]]), 50, spread=0.05)
    near, far = kmeans(torch.tensor(points), 2), kmeans(torch.tensor(points + 1e7), 2)
    assert len(set(zip(truth, far.labels.tolist(), strict=True))) == 2
    assert far.inertia == pytest.approx(near.inertia, rel=1e-4)


def test_threads_change_nothing():
    points = torch.tensor(random_points(900, 24), dtype=torch.float32)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(kmeans(points, 9, seed=1, restarts=7))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        torch.testing.assert_close(other.centroids, found[0].centroids, rtol=0, atol=0)
        assert torch.equal(other.labels, found[0].labels)
        assert other.inertia == found[0].inertia


def test_equal_points_are_one_cluster():
    same = kmeans(torch.full((20, 3), 0.3), 4)
    assert (len(same.centroids), same.inertia) == (1, 0)
    assert (same.labels == 0).all()
    three = torch.tensor([[0.0], [1.0], [5.0]])[torch.arange(30) % 3]
    found = kmeans(three, 5)
    assert sorted(found.centroids[:, 0].tolist()) == pytest.approx([0, 1, 5])
    assert found.inertia == pytest.approx(0)


def test_as_many_clusters_as_points():
    points = torch.tensor(random_points(9, 2))
    found = kmeans(points, 9)
    assert found.inertia == pytest.approx(0, abs=1e-20)
    assert sorted(found.labels.tolist()) == list(range(9))
    assert kmeans(points[:1], 1).centroids.tolist() == points[:1].tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_and_strides(dtype):
    points = torch.tensor(random_points(50, 80)).to(dtype)[:, ::2]
    want = kmeans(points.double().contiguous(), 4)
    found = kmeans(points, 4)
    assert torch.equal(found.labels, want.labels)
    assert found.centroids.dtype == torch.float64


def spoiled(value: float) -> torch.Tensor:
    points = torch.zeros(4, 3)
    points[2, 1] = value
    return points


@pytest.mark.parametrize(
    ("points", "clusters", "options", "message"),
    [
        (torch.zeros(4, 3), 5, {}, r"must be in 1\.\.4, the number of points, got 5"),
        (torch.zeros(4, 3), 0, {}, r"1\.\.4, the number of points, got 0"),
        (torch.zeros(4, 3), torch.zeros(5, 3), {}, "number of points, got 5"),
        (torch.zeros(4, 3), torch.zeros(2, 2), {}, r"\[k, 3\], as long as the points, got \[2, 2"),
        (
            torch.zeros(4, 3),
            torch.full((2, 3), torch.inf),
            {},
            r"centroids must be finite, got inf",
        ),
        (spoiled(torch.nan), 2, {}, r"points must be finite, got -?nan at \[2, 1\]"),
        (spoiled(-torch.inf), 2, {}, r"got -inf at \[2, 1\]"),
        (torch.zeros(4), 2, {}, r"floating point \[n, d\].*got float \[4\]"),
        (torch.zeros(4, 3, dtype=torch.int64), 2, {}, "got long"),
        (torch.zeros(0, 3), 1, {}, r"at least one value, got float \[0, 3\]"),
        (torch.zeros(4, 3), 2, {"restarts": 0}, "at least 1, got 0 and 100"),
        (torch.zeros(4, 3), 2, {"iterations": 0}, "at least 1, got 10 and 0"),
        (torch.zeros(4, 3), torch.zeros(2, 3), {"iterations": 0}, "at least 1, got 0"),
        (torch.zeros(4, 3), 2, {"seed": -1}, "seed must be in"),
    ],
)
def test_bad_arguments_are_named(points, clusters, options, message):
    with pytest.raises(ValueError, match=message):
        kmeans(points, clusters, **options)


@pytest.mark.parametrize(("n", "d"), [(60, 7), (12, 40), (20, 20)])
def test_principal_components_match_svd(n, d):
    points = random_points(n, d) * np.linspace(1, 3, d)
    found = principal_components(torch.tensor(points), 5).numpy()
    left, values, _ = np.linalg.svd(points - points.mean(0), full_matrices=False)
    want = (left * values)[:, :5]
    want *= np.sign(want[np.abs(want).argmax(0), np.arange(5)])
    np.testing.assert_allclose(found, want, atol=1e-9)


def test_all_principal_components_keep_distances():
    points = random_points(15, 6)
    found = principal_components(torch.tensor(points), 6)
    np.testing.assert_allclose(cdist(found, found), cdist(points, points), atol=1e-12)
    with pytest.raises(
        ValueError, match=r"dims must be in 1\.\.6 for 15 points of 6 values, got 7"
    ):
        principal_components(torch.tensor(points), 7)
    with pytest.raises(ValueError, match="got 0"):
        principal_components(torch.tensor(points), 0)
    assert principal_components(torch.ones(4, 3), 2).abs().max() == 0


def test_squared_distances():
    points, centers = random_points(30, 5), random_points(4, 5, seed=1)
    found = squared_distances(torch.tensor(points), torch.tensor(centers))
    np.testing.assert_allclose(found, cdist(points, centers) ** 2, rtol=1e-12)
