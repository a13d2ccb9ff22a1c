"""``vpd predict``: files, folders with a broken image, replacement of what is there."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

import vpd


def test_one_image(run_json, desk, refer):
    found = run_json("predict", "image.png", "the red cube", "--model", refer, "--npz")
    files = ["vpd-out/image.mask.png", "vpd-out/image.figure.png", "vpd-out/image.npz"]
    (row,) = found["results"]
    assert row["files"] == files
    expected = vpd.load(refer)("image.png", "the red cube")
    mask = cv2.imread(files[0], cv2.IMREAD_UNCHANGED)
    assert mask.shape == (40, 60)
    np.testing.assert_array_equal(mask, expected.mask * np.uint8(255))
    assert row["mask_pixels"] == expected.mask.sum()
    arrays = np.load(files[2])
    np.testing.assert_allclose(arrays["probability"], expected.probability, atol=1e-6)
    assert arrays["words"].tolist() == ["the", "red", "cube"]
    assert arrays["attention_2"].shape == (3, 8, 8)
    assert cv2.imread(files[1]) is not None


def test_text_output_and_no_figure(run, desk, refer):
    code, out, err = run(
        "predict", "image.png", "a cube", "--model", refer, "--no-figure", "--out", "a/b"
    )
    assert (code, err) == (0, "")
    assert "a/b/image.mask.png" in out
    assert [path.name for path in (desk / "a/b").iterdir()] == ["image.mask.png"]


def test_masks_under_noise_are_drawn(run_json, refused, desk, refer):
    words = ["predict", "image.png", "a cube", "--model", refer, "--no-figure"]
    (row,) = run_json(*words, "--steps", "0,300", "--protocol", "pixel")["results"]
    assert row["files"] == ["vpd-out/image.mask.png", "vpd-out/image.noise.png"]
    assert cv2.imread(row["files"][1]) is not None
    assert "protocol" in refused(*words, "--steps", 3, "--protocol", "pixels")


def test_half_precision(run_json, desk, refer):
    found = run_json("predict", "image.png", "a cube", "--model", refer, "--dtype", "bfloat16")
    assert 0 <= found["results"][0]["largest_probability"] <= 1


def test_a_long_sentence_is_cut_and_said_so(run, desk, refer):
    words = " ".join(["cube"] * 500)
    code, _, err = run("predict", "image.png", words, "--model", refer)
    assert code == 0
    assert err == "vpd: warning: the sentence is longer than the model reads\n"


@pytest.fixture
def folder(desk):
    folder = desk / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png", "b.jpg"):
        shutil.copy(desk / "image.png", folder / name)
    (folder / "broken.png").write_bytes((desk / "image.png").read_bytes()[:200])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_with_broken_images(run, desk, refer, folder):
    code, out, err = run("predict", folder, "a cube", "--model", refer, "--no-figure")
    assert code == 1
    made = sorted(path.name for path in (desk / "vpd-out").iterdir())
    assert made == ["a.mask.png", "b.jpg.mask.png", "b.png.mask.png"]
    assert sorted(line.split(":")[1].strip() for line in err.splitlines()) == ["failed", "failed"]
    for name in ("broken.png", "empty.jpg"):
        assert name in err
        assert name in out


def test_results_beside_the_images_are_not_taken_for_images(run, run_json, refer, folder):
    for name in ("broken.png", "empty.jpg"):
        (folder / name).unlink()
    for _ in range(2):
        found = run_json("predict", folder, "a cube", "--model", refer, "--out", folder)
        assert len(found["results"]) == 3


def test_one_broken_image_is_an_error(refused, refer, folder):
    assert "broken.png" in refused("predict", folder / "broken.png", "a cube", "--model", refer)


def test_what_is_there_is_replaced_whole_or_kept(run, desk, refer, monkeypatch):
    out = desk / "vpd-out"
    out.mkdir()
    (out / "image.mask.png").write_text("old")
    monkeypatch.setattr("vpd.data.files.os.replace", _disk_full)
    code, _, err = run("predict", "image.png", "a cube", "--model", refer)
    assert code == 2
    assert err == "vpd: error: vpd-out: No space left on device\n"
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("image.mask.png", "old")]
    monkeypatch.undo()
    monkeypatch.chdir(desk)
    assert run("predict", "image.png", "a cube", "--model", refer)[0] == 0
    assert (out / "image.mask.png").read_bytes().startswith(b"\x89PNG")


def _disk_full(*_):
    raise OSError(28, "No space left on device", "vpd-out")


def test_an_output_folder_that_is_a_file(refused, desk, refer):
    (desk / "taken").write_text("x")
    message = refused("predict", "image.png", "a cube", "--model", refer, "--out", "taken")
    assert "taken" in message
