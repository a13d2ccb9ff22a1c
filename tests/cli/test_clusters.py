"""Clusters of features from the command line."""

from __future__ import annotations

import cv2
import numpy as np
import panoptic_toys
import pytest

import vpd
from vpd.protocol import NoiseSpec
from vpd.tasks import store
from vpd.tasks.maps import at_timestep


@pytest.fixture
def words(desk, models):
    return ["maps", "image.png", "--model", models / "foundation", "--clusters", 4]


def test_clusters_equal_those_of_python(run_json, words, models):
    found = run_json(*words, "--npy", "--block", "middle_block:output", 6, "--seed", 3)
    assert found["files"] == ["vpd-out/image.clusters.png", "vpd-out/image.clusters.npz"]
    assert cv2.imread(found["files"][0]) is not None
    own = vpd.cluster_features(
        "image.png", ["middle_block:output", 6], 4, model=models / "foundation", seed=3
    )
    np.testing.assert_array_equal(np.load(found["files"][1])["labels"], own.labels)
    assert found["inertia"] == pytest.approx(own.inertia)
    assert found["blocks"] == ["middle_block:output", "output_blocks.6:input"]
    assert (sum(found["pixels"]), found["grid"]) == (40 * 60, [16, 16])
    assert found["clusters"] == len(found["pixels"]) == 4


def test_text_noise_and_projection(run_json, words, models):
    words.insert(2, "two giraffes")
    options = ["--steps", "5,300", "--pca", 6, "--upsample", "bilinear"]
    found = run_json(*words, *options, "--npy")
    own = NoiseSpec(latent_scale=0.8)
    noises = [at_timestep("latent_match", t, own) for t in (5, 300)]
    assert found["noises"] == [noise.to_dict() for noise in noises]
    want = vpd.cluster_features(
        "image.png", K=4, model=models / "foundation", words="two giraffes", noise=noises, pca=6,
        upsample="bilinear",
    )  # fmt: skip
    np.testing.assert_array_equal(np.load(found["files"][1])["labels"], want.labels)


def test_segments_beside_them(run, words, tmp_path):
    store.save(panoptic_toys.segmenter(), tmp_path / "panoptic")
    code, out, err = run(*words)
    assert (code, out, err) == (0, "wrote vpd-out/image.clusters.png\n", "")
    alone = cv2.imread("vpd-out/image.clusters.png")
    assert run(*words, "--panoptic", tmp_path / "panoptic")[0] == 0
    beside = cv2.imread("vpd-out/image.clusters.png")
    assert alone.shape == beside.shape
    third = 2 * alone.shape[1] // 3
    assert (alone[:, third:] != beside[:, third:]).any()
    np.testing.assert_array_equal(alone[:, : third - 20], beside[:, : third - 20])


def test_options_of_the_other_are_refused(refused, words):
    assert "fusion is an option of attention, what is drawn is clusters" in refused(
        *words, "--fusion", "daam"
    )
    assert "overlay is an option of attention" in refused(*words, "--no-overlay")
    text = [*words[:2], "two giraffes", *words[2:4]]
    assert "block is an option of clusters, what is drawn is attention" in refused(
        *text, "--block", 3
    )
    assert "must be in 1..64" in refused(*words[:-1], 0)
    assert "sentence is empty" in refused(*words[:4])
    assert "no block 'output_blocks.99'" in refused(*words, "--block", 99)
