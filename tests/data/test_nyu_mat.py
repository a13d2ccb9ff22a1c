"""Extraction of a small file of the official form, compared with what was put in."""

from __future__ import annotations

import builtins
import os

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from vpd.data import extract_nyu_mat, nyu_mat, nyuv2

h5py = pytest.importorskip("h5py")
SCENES = ("kitchen", "home_office", "kitchen", "cafe")
TRAIN, TEST = [4, 1], [3, 2]


@pytest.fixture(scope="module")
def content():
    """Pictures [N, 480, 640, 3], depth in metres [N, 480, 640], as people think of them."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (4, 6, 8, 3), np.uint8)
    images = np.stack([cv2.resize(s, (640, 480), interpolation=cv2.INTER_CUBIC) for s in small])
    return images, rng.uniform(0, 9.99, (4, 480, 640)).astype(np.float32)


@pytest.fixture(scope="module")
def download(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("download")
    images, depths = content
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = images.transpose(0, 3, 2, 1)
        file["rawDepths"] = depths.transpose(0, 2, 1)
        references = file.create_dataset("sceneTypes", (1, 4), h5py.ref_dtype)
        for i, scene in enumerate(SCENES):
            text = file.create_dataset(
                f"#refs#/{i}", data=np.array([[ord(c)] for c in scene], "u2")
            )
            references[0, i] = text.ref
    numbers = {"trainNdxs": np.array([TRAIN]).T, "testNdxs": np.array([TEST]).T}
    savemat(folder / "splits.mat", {k: v.astype(np.uint16) for k, v in numbers.items()})
    return folder / "nyu_depth_v2_labeled.mat", folder / "splits.mat"


def tree(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_extracted_tree(download, content, tmp_path):
    assert extract_nyu_mat(*download, tmp_path, progress=False) == {"train": 2, "test": 2}
    train, test = nyuv2(tmp_path, "train"), nyuv2(tmp_path, "test")
    # Numbers count from 0, unlike those of splits.mat.
    assert [s.id for s in train] == ["cafe/00003", "kitchen/00000"]
    assert [s.id for s in test] == ["home_office/00001", "kitchen/00002"]
    images, depths = content
    for sample in [*train, *test]:
        i = int(sample.id[-5:])
        image, depth_m = sample.read()
        assert train.scenes[sample.scene] == SCENES[i].replace("_", " ")
        cut = np.floor(depths[i] * np.float32(1000))
        np.testing.assert_array_equal(np.rint(depth_m * 1000), cut)
        inside = np.zeros((480, 640), bool)
        inside[7:474, 7:632] = True
        error = np.abs(image.astype(int) - np.where(inside[..., None], images[i], 0))
        assert error[12:469, 12:627].mean() < 3  # JPEG
        assert image[:4].max() < 25
        assert image[478:].max() < 25
        assert image[:, :4].max() < 25
        assert image[:, 636:].max() < 25


def test_killed_and_resumed(download, tmp_path, monkeypatch):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    extract_nyu_mat(*download, whole, progress=False)
    write, left = nyu_mat.write_jpeg, [1]

    def fail(path, image):
        if not left:
            raise OSError(28, "No space left on device")
        left.pop()
        write(path, image)

    monkeypatch.setattr(nyu_mat, "write_jpeg", fail)
    with pytest.raises(OSError, match="No space left"):
        extract_nyu_mat(*download, resumed, progress=False)
    before = tree(resumed)
    assert 0 < len(before) < len(tree(whole))
    kept = {p: (resumed / p).stat().st_mtime_ns for p in before}
    monkeypatch.undo()
    extract_nyu_mat(*download, resumed, progress=False)
    assert tree(resumed) == tree(whole)
    assert {p: (resumed / p).stat().st_mtime_ns for p in before} == kept


def test_raw_depth_outside_16_bits():
    stored = np.full((640, 480), 1.0, np.float32)
    stored[:4, 0] = np.nan, np.inf, -1, 70
    found = nyu_mat._millimetres(stored)
    assert found[0, :5].tolist() == [0, 0, 0, 65535, 1000]


def test_without_h5py(download, tmp_path, monkeypatch):
    imported = builtins.__import__

    def refuse(name, *rest):
        if name == "h5py":
            raise ModuleNotFoundError("No module named 'h5py'", name="h5py")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"needs h5py, .*: pip install 'vpd\[nyu\]'"):
        extract_nyu_mat(*download, tmp_path, progress=False)


def altered(path, folder, change):
    copy = folder / path.name
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        change(file)
    return copy


def test_bad_files(download, tmp_path):
    mat, splits = download
    broken = tmp_path / "broken.mat"
    broken.write_bytes(b"MATLAB 5.0 MAT-file, not really")
    with pytest.raises(ValueError, match=r"broken.mat: expected nyu_depth_v2_labeled.mat, an HDF5"):
        extract_nyu_mat(broken, splits, tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"broken.mat: expected a MATLAB 5 file with trainNdxs"):
        extract_nyu_mat(mat, broken, tmp_path, progress=False)
    with pytest.raises(FileNotFoundError, match=r"absent.mat"):
        extract_nyu_mat(tmp_path / "absent.mat", splits, tmp_path, progress=False)
    with pytest.raises(FileNotFoundError, match=r"absent.mat"):
        extract_nyu_mat(mat, tmp_path / "absent.mat", tmp_path, progress=False)
    for train, test, message in (
        ([1, 2], [2, 3], "each in one split"),
        ([0, 1], [2, 3], "numbers from 1"),
        ([1, 2], [3, 5], r"numbers of the 4 pictures of .*labeled.mat, got 5"),
    ):
        savemat(broken, {"trainNdxs": np.array([train]).T, "testNdxs": np.array([test]).T})
        with pytest.raises(ValueError, match=message):
            extract_nyu_mat(mat, broken, tmp_path, progress=False)

    def no_depth(file):
        del file["rawDepths"]

    with pytest.raises(ValueError, match="expected images, rawDepths and sceneTypes"):
        extract_nyu_mat(altered(mat, tmp_path, no_depth), splits, tmp_path, progress=False)

    def turned(file):
        del file["rawDepths"]
        file["rawDepths"] = np.zeros((4, 480, 640), np.float32)

    with pytest.raises(ValueError, match=r"rawDepths \(4, 640, 480\), got .* \(4, 480, 640\)"):
        extract_nyu_mat(altered(mat, tmp_path, turned), splits, tmp_path, progress=False)

    def escaping(file):
        file["#refs#/evil"] = np.array([[ord(c)] for c in "../evil"], "u2")
        file["sceneTypes"][0, 0] = file["#refs#/evil"].ref

    with pytest.raises(ValueError, match=r"scene type '../evil' is no plain name"):
        extract_nyu_mat(altered(mat, tmp_path, escaping), splits, tmp_path, progress=False)
    assert not os.path.exists(tmp_path / "nyu_depth_v2")
