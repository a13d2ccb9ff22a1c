"""Readers of depth on small hand-made copies of the official layouts."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
import trees

from vpd.data import class_names, image_depth_folder, nyuv2
from vpd.data.depth import scene_type


def same_depth(sample, seed):
    image, depth_m = sample.read()
    stored = trees.depth_mm(seed)
    assert depth_m.dtype == np.float32
    for y, x in np.ndindex(stored.shape):
        assert depth_m[y, x] == pytest.approx(int(stored[y, x]) / 1000, rel=1e-6)
    assert (depth_m[0, :3] == 0).all()
    assert np.abs(image.astype(int) - trees.picture(seed)).max() < 12


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("kitchen_0028b/rgb_00045.jpg", "kitchen"),
        ("office_kitchen_0001/rgb_00045.jpg", "kitchen"),  # the earlier name wins
        ("study_room_0004/rgb_00001.jpg", "study"),
        ("official_splits/test/conference_room/rgb_00001.jpg", "conference room"),
        ("bookstore/rgb_00083.jpg", "bookstore"),
        ("a/home_office/rgb_00001.jpg", "home office"),
        ("excercise_room/rgb_00001.jpg", "excercise room"),
        ("kitchen/office_0001/rgb_1.jpg", "office"),  # of the path only the last folder counts
    ],
)
def test_scene_type(path, name):
    names = class_names("nyuv2")
    assert names[scene_type(path, names)] == name


def test_unknown_scene_type():
    with pytest.raises(ValueError, match=r"attic/rgb_1.jpg: expected a scene type .* got none"):
        scene_type("attic/rgb_1.jpg", class_names("nyuv2"))


def test_official_splits(tmp_path):
    folder = tmp_path / "nyu_depth_v2" / "official_splits"
    trees.nyu(folder / "test", {"bathroom/00045": 1, "office_kitchen/00410": 2})
    trees.nyu(folder / "train", {"cafe/00002": 3}, ending=".png")
    (folder / "test" / "bathroom" / "dense").mkdir()
    trees.write(folder / "test/bathroom/dense/sync_depth_dense_00045.png", trees.depth_mm(9))
    for root in (tmp_path, tmp_path / "nyu_depth_v2"):
        data = nyuv2(root)
        assert (data.variant, data.published, data.split) == ("official_splits", 654, "test")
        assert [s.id for s in data] == ["bathroom/00045", "office_kitchen/00410"]
    assert [data.scenes[s.scene] for s in data] == ["bathroom", "kitchen"]
    for sample, seed in zip(data, (1, 2), strict=True):
        same_depth(sample, seed)
    assert nyuv2(tmp_path, "train")[0].id == "cafe/00002"
    assert data[1:][0].scene == data[1].scene
    assert pickle.loads(pickle.dumps(data))[0].read()[1].shape == trees.SIZE


def test_lists(tmp_path):
    base = tmp_path / "nyu_depth_v2"
    frames = {"study_room_0004/00010": 1, "cafe_0001a/00002": 2, "cafe_0001a/00003": 3}
    trees.nyu(base / "sync", frames)
    trees.nyu(base / "official_splits/test", {"cafe/00005": 4, "office/00006": 5})
    everything = nyuv2(tmp_path, "train")
    assert (everything.variant, len(everything)) == ("sync", 3)
    line = "/{0}/rgb_{1}.jpg /{0}/sync_depth_{1}.png"
    names = [("cafe_0001a", "00003"), ("study_room_0004", "00010")]
    (base / "train_list.txt").write_text("\n".join(line.format(*n) for n in names) + "\n\n")
    data = nyuv2(tmp_path, "train")
    assert (data.variant, data.published) == ("sync, train_list.txt", 24231)
    assert [s.id for s in data] == ["cafe_0001a/00003", "study_room_0004/00010"]  # of the list
    assert [data.scenes[s.scene] for s in data] == ["cafe", "study"]
    for sample, seed in zip(data, (3, 1), strict=True):
        same_depth(sample, seed)
    # BTS's own lists: no slash in front, focal length behind; for test another folder.
    bts = tmp_path / "bts.txt"
    bts.write_text("office/rgb_00006.jpg office/sync_depth_00006.png 518.8579\n")
    data = nyuv2(tmp_path, "test", list_file=bts)
    assert (data.variant, len(data)) == ("official_splits, bts.txt", 1)
    same_depth(data[0], 5)


def test_damaged_lists(tmp_path):
    base = tmp_path / "nyu_depth_v2"
    trees.nyu(base / "sync", {"cafe_0001a/00002": 2})
    path = base / "train_list.txt"
    path.write_text("/cafe_0001a/rgb_00002.jpg\n")
    with pytest.raises(ValueError, match=r"train_list.txt, line 1: .* two names, got 1: '/cafe"):
        nyuv2(tmp_path, "train")
    good = "/cafe_0001a/rgb_00002.jpg /cafe_0001a/sync_depth_00002.png\n"
    path.write_text(good + "a b c d\n")
    with pytest.raises(ValueError, match=r"line 2: .* got 4"):
        nyuv2(tmp_path, "train")
    path.write_text(good + good.replace("00002", "00007"))
    with pytest.raises(
        FileNotFoundError, match=r"sync: .* none for cafe_0001a/rgb_00007.jpg \(and 1 more\)"
    ):
        nyuv2(tmp_path, "train")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"train_list.txt: expected a text file"):
        nyuv2(tmp_path, "train")
    path.write_text("\n")
    with pytest.raises(FileNotFoundError, match="expected pictures here, found none"):
        nyuv2(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"official_splits/test: expected a folder"):
        nyuv2(tmp_path, "test")
    with pytest.raises(FileNotFoundError, match=r"no_list.txt"):
        nyuv2(tmp_path, "train", list_file=tmp_path / "no_list.txt")


def test_unknown_scene_in_the_tree(tmp_path):
    trees.nyu(tmp_path / "official_splits/test", {"attic/00001": 1})
    with pytest.raises(ValueError, match=r"attic/rgb_00001.jpg: expected a scene type"):
        nyuv2(tmp_path)
    (tmp_path / "scenes.txt").write_text("attic\n")
    data = nyuv2(tmp_path)
    assert (data.scenes, data[0].scene, data.published) == (("attic",), 0, None)


def test_image_depth_folder(tmp_path):
    values = np.array([[0.0, 1.5, np.nan], [-1.0, np.inf, 2.25]], np.float32)
    expected = np.array([[0, 1.5, 0], [0, 0, 2.25]], np.float32)
    for name in ("a", "b", "c/d"):
        trees.write(tmp_path / "images" / f"{name}.png", trees.picture(size=(2, 3)))
    (tmp_path / "depths" / "c").mkdir(parents=True)
    trees.write(tmp_path / "depths" / "a.tiff", values)
    np.save(tmp_path / "depths" / "b.npy", values)
    np.save(tmp_path / "depths" / "c" / "d.npy", values.astype(np.float64))
    data = image_depth_folder(tmp_path / "images", tmp_path / "depths", scale=1, scene="street")
    assert [s.id for s in data] == ["a", "b", "c/d"]
    assert data.scenes == ("street",)
    for sample in data:
        np.testing.assert_array_equal(sample.read()[1], expected)

    kitti = np.array([[0, 256, 300]], np.uint16)
    trees.write(tmp_path / "k" / "x.jpg", trees.picture(size=(1, 3)))
    trees.write(tmp_path / "kd" / "x.png", kitti)
    data = image_depth_folder(tmp_path / "k", tmp_path / "kd", scale=1 / 256)
    np.testing.assert_allclose(data[0].read()[1], [[0, 1, 300 / 256]], rtol=1e-6)
    with pytest.raises(ValueError, match=r"scale must be a positive number .* got 0"):
        image_depth_folder(tmp_path / "k", tmp_path / "kd", scale=0)


def test_wrong_depth_files(tmp_path):
    folder = tmp_path / "official_splits/test"
    trees.nyu(folder, {"cafe/00001": 1})
    data = nyuv2(tmp_path)
    path = folder / "cafe/sync_depth_00001.png"
    whole = path.read_bytes()
    for wrong, message in (
        (trees.depth_mm(1).astype(np.uint8), r"16-bit integers or floats, got uint8 \[12, 16\]"),
        (trees.picture(), r"one channel .* got uint8 \[12, 16, 3\]"),
        (trees.depth_mm(1, (12, 15)), r"depth of 12 x 16 pixels like .* got 12 x 15"),
    ):
        trees.write(path, wrong)
        with pytest.raises(ValueError, match=message) as error:
            data[0].read()
        assert str(error.value).startswith(str(path))
    for size in (0, 30, len(whole) - 20):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"expected a depth picture, got {size} bytes"):
            data[0].read()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="expected a depth picture here"):
        data[0].read_depth()


def test_hostile_npy(tmp_path):
    trees.write(tmp_path / "images" / "a.png", trees.picture())
    path = tmp_path / "depths" / "a.npy"
    path.parent.mkdir()
    np.save(path, np.ones(trees.SIZE, np.float32))
    data = image_depth_folder(path.parents[1] / "images", path.parent)
    whole = path.read_bytes()
    promise = whole.replace(b"(12, 16)", b"(1200000, 16000000)"[:8])
    for content in (b"", whole[:100], promise[:200], pickle.dumps([1, 2])):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.npy: expected a depth picture, got"):
            data[0].read()
    np.savez(path.with_suffix(".npz"), np.ones(3))
    path.with_suffix(".npz").rename(path)
    with pytest.raises(ValueError, match="expected a depth picture"):
        data[0].read()


def test_png_of_opencv_keeps_16_bits():
    """What the readers rely on: one channel of 16 bits stays that."""
    data = cv2.imencode(".png", trees.depth_mm(0))[1]
    assert cv2.imdecode(data, cv2.IMREAD_UNCHANGED).dtype == np.uint16
