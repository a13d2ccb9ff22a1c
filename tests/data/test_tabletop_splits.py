"""The cache of rendered scenes: seeds apart, resumable, indexed like one array."""

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vpd.data import tabletop
from vpd.data.tabletop import chunks, splits

KILLED = """
import os, sys
from vpd.data.tabletop import chunks, splits
write = chunks.np.save
saved = []
def save(file, array):
    if len(saved) == 3:  # in the middle of a chunk, a temporary file open
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), 9)
    saved.append(1)
    write(file, array)
chunks.np.save = save
splits.load_split("val", sys.argv[1], workers=1, limit=200, progress=False)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def split(cache):
    return tabletop.load_split("val", cache, workers=2, limit=150, depth=True, progress=False)


def test_seeds_of_splits_never_overlap():
    ranges = sorted((s.first_seed, s.first_seed + s.capacity) for s in tabletop.SPLITS.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ranges))
    assert {n: s.count for n, s in tabletop.SPLITS.items()} == {
        "pretrain": 24_000,
        "train": 1_000,
        "train-10k": 10_000,
        "val": 500,
        "test": 500,
    }
    assert all(s.count <= s.capacity for s in tabletop.SPLITS.values())


def test_split_equals_its_rendered_scenes(split):
    assert len(split) == 150
    assert split.images.shape == (150, 128, 128, 3)
    for i in (0, 99, 100, 149, -1):
        scene = tabletop.render(split.seeds[i])
        np.testing.assert_array_equal(split.images[i], scene.image)
        np.testing.assert_array_equal(split.instances[i], scene.instance)
        assert np.abs(split.depths_mm[i] / 1000 - scene.depth_m).max() < 5.1e-4
        assert split.scene(i).objects == scene.objects
        assert split.scene(i).spec == scene.spec


def test_indexing_is_that_of_an_array(split):
    whole = np.asarray(split.instances)
    assert whole.shape == (150, 128, 128)
    rng = np.random.default_rng(0)
    for index in (
        slice(95, 105),
        slice(None, None, 40),
        slice(20, 5, -3),
        rng.integers(-150, 150, 20),
        rng.integers(0, 150, (2, 3)),
        [3, 120, 3],
        [],
        7,
        np.int64(-2),
    ):
        np.testing.assert_array_equal(split.instances[index], whole[index])
    for index in (150, -151, [0, 150]):
        with pytest.raises(IndexError):
            split.instances[index]
    with pytest.raises(TypeError, match="integers or a slice, got an array of float64"):
        split.instances[[0.5]]


def test_worker_count_does_not_matter(split, cache, tmp_path):
    alone = tabletop.load_split("val", tmp_path, workers=1, limit=1, depth=True, progress=False)
    for path in alone.folder.iterdir():
        assert path.read_bytes() == (split.folder / path.name).read_bytes()


def test_killed_in_a_chunk_then_resumed(split, tmp_path):
    root = str(Path(tabletop.__file__).parents[3])
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        check=False,
    )
    assert run.returncode == -9, run.stderr
    folder = splits.cache_folder(tmp_path) / "val"
    assert chunks.is_finished(folder, 0, ("images", "instances"))
    assert not chunks.is_finished(folder, 1, ("images", "instances"))
    before = chunks.chunk_path(folder, "images", 0).stat().st_mtime_ns
    again = tabletop.load_split("val", tmp_path, workers=1, limit=150, progress=False)
    assert chunks.chunk_path(folder, "images", 0).stat().st_mtime_ns == before
    np.testing.assert_array_equal(again.images[:], split.images[:])


def test_a_finished_cache_is_only_read(split, cache, monkeypatch):
    monkeypatch.setattr(splits, "render_chunks", None)
    again = tabletop.load_split("val", cache, limit=120, progress=False)
    assert len(again) == 120
    assert again.depths_mm is None


def test_environment_names_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VPD_CACHE", str(tmp_path))
    assert splits.cache_folder() == tmp_path / f"tabletop-{tabletop.VERSION}"
    assert splits.cache_folder(tmp_path / "x").parent == tmp_path / "x"
    monkeypatch.delenv("VPD_CACHE")
    assert splits.cache_folder().parent == Path.home() / ".cache" / "vpd"


def test_expressions_for_are_those_of_each_seed(split, cache):
    sentences = tabletop.expressions_for(split)
    assert len(sentences) == 150
    part = tabletop.load_split("val", cache, limit=40, progress=False)
    assert tabletop.expressions_for(part) == sentences[:40]
    scene = tabletop.render(split.seeds[17])
    rng = random.Random(7 * split.seeds[17] + 11)
    assert tabletop.expressions(scene, rng, 1) == sentences[17]


def test_bad_requests(tmp_path):
    with pytest.raises(ValueError, match=r"split must be one of train, .* got 'vall'"):
        tabletop.load_split("vall", tmp_path)
    with pytest.raises(ValueError, match=r"limit of val must be within 1..500, got 501"):
        tabletop.load_split("val", tmp_path, limit=501)
    with pytest.raises(ValueError, match=r"within 1..1000, got 0"):
        tabletop.load_split("train", tmp_path, limit=0)


def test_damaged_chunk_is_named(split, tmp_path):
    path = tmp_path / "images-00000.npy"
    np.save(path, np.zeros((3, 128, 128, 3), np.uint8))
    with pytest.raises(ValueError, match=r"images-00000.npy must hold shape .*delete it"):
        splits.ChunkedArray([path], 3)
    path.write_bytes(b"\x93NUMPY half a file")
    with pytest.raises(ValueError, match=r"images-00000.npy .*delete it"):
        splits.ChunkedArray([path], 3)


def test_failing_worker_is_reported(tmp_path):
    """A file stands where the cache folder should be."""
    blocked = splits.cache_folder(tmp_path)
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("not a folder")
    with pytest.raises(RuntimeError, match="rendering failed: NotADirectoryError"):
        tabletop.load_split("val", tmp_path, workers=2, limit=200, progress=False)
