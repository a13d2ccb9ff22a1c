"""Readers of semantic segmentation on small hand-made copies of the official layouts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import trees
from PIL import Image

from vpd.data import ade20k, cityscapes, class_names, coco_stuff, image_mask_folder, read_names

RNG = np.random.default_rng(0)


def labels(values, count=2, size=trees.SIZE) -> list[np.ndarray]:
    """Every value occurs in the first label."""
    found = [RNG.choice(values, size).astype(np.uint8) for _ in range(count)]
    found[0].flat[: len(values)] = values[: found[0].size]
    return found


def test_names():
    counts = {"ade20k": 150, "coco_stuff": 171, "cityscapes": 19, "nyuv2": 27}
    assert {name: len(class_names(name)) for name in counts} == counts
    assert class_names("ade20k")[7] == "bed"  # a trailing space elsewhere
    assert class_names("ade20k")[-1] == "flag"
    assert class_names("coco_stuff")[79:81] == ("toothbrush", "banner")
    assert class_names("nyuv2")[0] == "printer room"
    with pytest.raises(ValueError, match=r"one of ade20k, cityscapes, .* got 'ade'"):
        class_names("ade")


def test_bad_names(tmp_path):
    path = tmp_path / "names.txt"
    for text, message in (
        ("cat\n\ndog\n", "got an empty one as number 1"),
        ("cat\ncat\n", "got 'cat' again as number 1"),
        ("", "got an empty one as number 0"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_names(path)
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match="in UTF-8"):
        read_names(path)
    with pytest.raises(TypeError, match="expected names, got int as number 0"):
        image_mask_folder(tmp_path, tmp_path, [3])


def test_ade20k(tmp_path):
    values = np.arange(151, dtype=np.uint8)
    stored = labels(values, size=(12, 16))
    base = trees.ade(tmp_path, {"training": stored, "validation": stored[:1]})
    for root in (tmp_path, base):
        data = ade20k(root, "train")
        assert (len(data), data.split, data.ignore_index) == (2, "train", 255)
        assert [s.id for s in data] == ["ADE_train_00000001", "ADE_train_00000002"]
    assert data.names == class_names("ade20k")
    assert data.published == 20210
    for sample, expected in zip(data, stored, strict=True):
        image, label = sample.read()
        assert label.dtype == np.uint8
        for y, x in np.ndindex(expected.shape):
            value = int(expected[y, x])
            assert label[y, x] == (255 if value == 0 else value - 1)
        seed = int(sample.id[-1])
        assert np.abs(image.astype(int) - trees.picture(seed)).max() < 12  # JPEG
    assert len(ade20k(tmp_path)) == 1
    assert [s.id for s in data[1:]] == ["ADE_train_00000002"]
    assert pickle.loads(pickle.dumps(data))[0].read()[1].shape == trees.SIZE


def test_ade20k_layout_with_other_classes(tmp_path):
    base = trees.ade(tmp_path, {"validation": labels([0, 1, 2])})
    (base / "classes.txt").write_text("cat\ndog\n")
    data = ade20k(tmp_path)
    assert data.names == ("cat", "dog")
    assert data.published is None
    trees.write(data[0].label_path, np.full(trees.SIZE, 3, np.uint8))
    with pytest.raises(ValueError, match=r"00001.png: expected labels 1\.\.2 or 0 \(none\), got 3"):
        data[0].read()


def test_coco_stuff(tmp_path):
    gaps = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
    ids = [i for i in range(182) if i not in gaps]
    stored = labels(np.array([*ids, 255], np.uint8), size=(12, 16))
    raw = coco_stuff(trees.coco(tmp_path / "raw", stored, ".png"))
    assert raw.variant == "stuffthingmaps"
    expected = [np.vectorize(lambda v: ids.index(v) if v in ids else 255)(s) for s in stored]
    for sample, label in zip(raw, expected, strict=True):
        np.testing.assert_array_equal(sample.read()[1], label)
    assert raw.names[ids.index(0)] == "person"
    assert raw.names[ids.index(181)] == "wood"
    assert raw.names[ids.index(91)] == "banner"  # the first id after the last gap

    converted = [e.astype(np.uint8) for e in expected]
    folder = trees.coco(tmp_path / "both" / "coco_stuff164k", converted, "_labelTrainIds.png")
    trees.coco(folder, stored, ".png")  # the converter leaves the originals beside its files
    data = coco_stuff(tmp_path / "both", "val")
    assert (data.variant, len(data), data.published) == ("labelTrainIds", 2, 5000)
    for sample, label in zip(data, expected, strict=True):
        np.testing.assert_array_equal(sample.read_label(), label)

    unused = labels([11])[:1]
    data = coco_stuff(trees.coco(tmp_path / "gap", unused, ".png"))
    with pytest.raises(ValueError, match=r"without the unused ids, or 255 \(none\), got 11"):
        data[0].read_label()
    with pytest.raises(ValueError, match="split must be one of train, val, got 'test'"):
        coco_stuff(tmp_path, "test")


def test_cityscapes(tmp_path):
    # Class by id, from the benchmark's table of labels.
    table = {7: "road", 11: "building", 17: "pole", 19: "traffic light", 23: "sky", 24: "person"}
    table |= {8: "sidewalk", 12: "wall", 13: "fence", 20: "traffic sign", 21: "vegetation"}
    table |= {22: "terrain", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"}
    table |= {32: "motorcycle", 33: "bicycle"}
    stored = labels(np.arange(34, dtype=np.uint8))
    raw = cityscapes(trees.cityscapes(tmp_path / "a", stored, "labelIds"), "train")
    assert (raw.variant, raw.published, len(raw)) == ("labelIds", 2975, 2)
    assert raw[0].id == "ulm/ulm_000000_000019"
    for sample, values in zip(raw, stored, strict=True):
        label = sample.read()[1]
        for value, found in zip(values.ravel(), label.ravel(), strict=True):
            assert table.get(int(value)) == (None if found == 255 else raw.names[found])

    stored = labels([*range(19), 255])
    root = trees.cityscapes(tmp_path / "b" / "cityscapes", stored, "labelTrainIds")
    trees.cityscapes(root, labels([40]), "labelIds")
    data = cityscapes(tmp_path / "b", "train")
    assert data.variant == "labelTrainIds"
    for sample, label in zip(data, stored, strict=True):
        np.testing.assert_array_equal(sample.read()[1], label)
        assert np.array_equal(sample.read_image(), trees.picture(int(sample.id[8:14])))


def test_image_mask_folder(tmp_path):
    stored = labels([0, 1, 2, 255])
    for i, (name, label) in enumerate(zip(("b/one", "two.v2"), stored, strict=True)):
        trees.write(tmp_path / "images" / f"{name}.jpg", trees.picture(i))
        path = tmp_path / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # A palette: indices are the labels, whatever colour they show.
        palette = Image.fromarray(label).convert("P")
        palette = Image.fromarray(label, mode="P")
        palette.putpalette([(7 * i) % 256 for i in range(768)])
        palette.save(path)
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    (tmp_path / "images" / "notes.txt").write_text("not a picture")
    for names in (["x", "y", "z"], tmp_path / "classes.txt"):
        data = image_mask_folder(tmp_path / "images", tmp_path / "masks", names)
        assert [s.id for s in data] == ["b/one", "two.v2"]
        for sample, label in zip(data, stored, strict=True):
            np.testing.assert_array_equal(sample.read()[1], label)
    data = image_mask_folder(
        tmp_path / "images", tmp_path / "masks", ["y", "z"], reduce_zero_label=True
    )
    np.testing.assert_array_equal(data[0].read_label(), (stored[0] - 1) | (stored[0] == 255) * 255)


def test_many_classes_and_16_bit_masks(tmp_path):
    names = [f"class {i}" for i in range(300)]
    label = RNG.integers(0, 300, trees.SIZE).astype(np.uint16)
    label[0, 0] = 1000
    trees.write(tmp_path / "images" / "a.png", trees.picture())
    trees.write(tmp_path / "masks" / "a.png", label)
    folders = tmp_path / "images", tmp_path / "masks"
    data = image_mask_folder(*folders, names, ignore_index=1000)
    found = data[0].read()[1]
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, label)
    with pytest.raises(ValueError, match=r"ignore_index must be no class .* 300\.\.65535, got 255"):
        image_mask_folder(*folders, names)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"images/validation: expected a folder"):
        ade20k(tmp_path)
    base = trees.ade(tmp_path, {"validation": labels([1], count=3)})
    for i in (1, 3):
        (base / f"annotations/validation/ADE_valid_{i:08d}.png").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"annotations/validation: expected a label .* ADE_valid_00000001.jpg \(and 1 more\)",
    ):
        ade20k(tmp_path)
    data = ade20k(trees.ade(tmp_path / "b", {"validation": labels([1])}))
    data[0].label_path.unlink()
    with pytest.raises(FileNotFoundError, match=r"00000001.png: expected a label picture here"):
        data[0].read()
    data[1].image_path.unlink()
    with pytest.raises(FileNotFoundError, match=r"ADE_valid_00000002.jpg"):
        data[1].read()
    (tmp_path / "c/images/training").mkdir(parents=True)
    (tmp_path / "c/annotations/training").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="expected pictures here, found none"):
        ade20k(tmp_path / "c", "train")


def test_ambiguous_pictures(tmp_path):
    base = trees.ade(tmp_path, {"validation": labels([1])})
    trees.ade(tmp_path, {"validation": labels([1])}, ending=".png")
    with pytest.raises(ValueError, match=r"one file for 'ADE_valid_00000001', got .*jpg and .*png"):
        ade20k(base)


def damaged_labels():
    whole = trees.picture()
    return {
        "200 of 150 classes": np.full(trees.SIZE, 200, np.uint8),
        "colour": whole,
        "another size": np.ones((12, 15), np.uint8),
        "float": np.ones(trees.SIZE, np.float32),
    }


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("200 of 150 classes", r"expected labels 1\.\.150 .* got 200 \(192 of 192 pixels\)"),
        ("colour", "expected labels in one channel of 8 or 16 bits, got 3 of uint8"),
        ("another size", r"a label of 12 x 16 pixels like its picture .*, got 12 x 15"),
        ("float", "got 1 of float32"),
    ],
)
def test_wrong_label(tmp_path, fault, message):
    data = ade20k(trees.ade(tmp_path, {"validation": labels([1])}))
    path = data[0].label_path
    if fault == "float":
        trees.write(path.with_suffix(".tiff"), damaged_labels()[fault]).rename(path)
    else:
        trees.write(path, damaged_labels()[fault])
    with pytest.raises(ValueError, match=message) as error:
        data[0].read()
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("palette", [False, True])
def test_truncated_label(tmp_path, palette):
    data = ade20k(trees.ade(tmp_path, {"validation": labels(range(151))}))
    path = data[0].label_path
    if palette:
        Image.fromarray(labels(range(100))[0], mode="P").save(path)
    whole = path.read_bytes()
    for size in (0, 5, 26, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"expected a label picture, got {size} bytes"):
            data[0].read()
    path.write_bytes(b"not a picture at all")
    with pytest.raises(ValueError, match="expected a label picture"):
        data[0].read()
    data[1].image_path.write_bytes(whole[:40])
    with pytest.raises(ValueError, match=r"ADE_valid_00000002.jpg: expected a picture"):
        data[1].read()
