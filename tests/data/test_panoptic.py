"""Readers of panoptic labels on small hand-made copies of the official layouts."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
import trees

from vpd.data import (
    PanopticLabel,
    Segment,
    check_pairs,
    coco_panoptic,
)
from vpd.data.masks import decode_segmentation, encode_mask
from vpd.data.panoptic import panoptic_samples
from vpd.data.panoptic_files import id_colors, read_ids, write_ids

CATEGORIES = [(1, "person", 1), (18, "dog", 1), (200, "grass", 0)]
RNG = np.random.default_rng(0)


def two_maps():
    """Ids beyond one and two bytes, a crowd, void, and a picture without anything."""
    first = np.zeros(trees.SIZE, np.int64)
    first[:6, :8], first[6:, :4], first[6:, 4:10], first[:6, 8:] = 70_000, 300, 7, 1
    segments = [(70_000, 200, 0), (300, 18, 0), (7, 1, 1), (1, 1, 0)]
    return [first, np.zeros((9, 11), np.int64)], [segments, []]


@pytest.fixture
def tree(tmp_path):
    maps, segments = two_maps()
    trees.coco_panoptic(tmp_path, maps, segments, CATEGORIES)
    return tmp_path


def test_coco(tree):
    maps, segments = two_maps()
    for root in (tree, tree / "coco"):
        data = coco_panoptic(root)
        assert (data.names, data.things) == (("person", "dog", "grass"), (True, True, False))
        assert (len(data), data.split, data.published) == (2, "val", None)
        assert data.variant == "2 things, 1 stuffs"
    classes = {1: 0, 18: 1, 200: 2}
    for i, sample in enumerate(data):
        image, label = sample.read()
        assert image.shape[:2] == label.ids.shape
        assert label.ids.dtype == np.int32
        np.testing.assert_array_equal(label.ids, maps[i])
        want = [Segment(s, classes[c], bool(crowd)) for s, c, crowd in segments[i]]
        assert list(label.segments) == want
        assert sample.read_segments() == label.segments
        assert sample.id == f"{i:012d}"
    assert [s.id for s in data[1:]] == [f"{1:012d}"]
    assert data[-1].read()[1].segments == ()
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy[0].read_label().ids, maps[0])


def test_what_labels_become(tree):
    label = coco_panoptic(tree)[0].read_label()
    assert label.areas() == [(label.ids == s.id).sum() for s in label.segments]
    semantic = label.semantic()
    assert semantic.dtype == np.uint8
    for value, category in ((0, 255), (70_000, 2), (300, 1), (7, 0), (1, 0)):
        assert (semantic[label.ids == value] == category).all()
    assert label.semantic(ignore_index=1000).dtype == np.int32
    labels, masks = label.targets()
    assert (labels.tolist(), masks.dtype) == ([2, 1, 0], torch.bool)  # without the crowd
    for mask, value in zip(masks, (70_000, 300, 1), strict=True):
        np.testing.assert_array_equal(mask.numpy(), label.ids == value)
    labels, masks = label.targets(min_pixels=40)
    assert labels.tolist() == [2, 0]
    cut = PanopticLabel(label.ids[:6], label.segments)
    assert [s.id for s in cut.seen().segments] == [70_000, 1]
    assert cut.targets()[0].tolist() == [2, 0]
    labels, masks = coco_panoptic(tree)[1].read_label().targets()
    assert (labels.shape, masks.shape) == ((0,), (0, 9, 11))


def test_instances(tree):
    sample = coco_panoptic(tree)[0]
    own = sample.read_instances()
    assert [(i.category, i.crowd) for i in own] == [(1, False), (0, True), (0, False)]
    ids = sample.read_label().ids
    for instance, value in zip(own, (300, 7, 1), strict=True):
        np.testing.assert_array_equal(instance.decode(), ids == value)
        assert instance.area == (ids == value).sum()
    polygon = [[1.0, 1.0, 9.0, 1.0, 9.0, 8.0, 1.0, 8.0]]
    annotations = [
        {"id": 5, "image_id": 0, "category_id": 18, "segmentation": polygon, "area": 56.5},
        {"id": 6, "image_id": 0, "category_id": 1, "iscrowd": 1, "area": 3.0,
         "segmentation": encode_mask(ids == 7)},
    ]  # fmt: skip
    path = tree / "coco/annotations/instances_val2017.json"
    path.write_text(json.dumps({"images": [], "annotations": annotations, "categories": []}))
    data = coco_panoptic(tree)
    assert data.variant == "2 things, 1 stuffs, instances"
    dog, crowd = data[0].read_instances()
    want = decode_segmentation(polygon, *trees.SIZE)
    np.testing.assert_array_equal(dog.decode(), want)
    assert (dog.category, dog.area, dog.crowd) == (1, 56.5, False)
    assert (crowd.category, crowd.crowd) == (0, True)
    assert data[1].read_instances() == ()
    for change, message in (
        ({"category_id": 3}, "annotation 5 has category 3, which is not listed"),
        ({"segmentation": 7}, "annotation 5: segmentation must be polygons or run lengths"),
        ({"area": "x"}, "annotation 5: could not convert"),
    ):
        wrong = [annotations[0] | change]
        path.write_text(json.dumps({"images": [], "annotations": wrong, "categories": []}))
        with pytest.raises(ValueError, match=message):
            coco_panoptic(tree)[0].read_instances()


def test_three_hundred_segments(tmp_path):
    ids = np.arange(1, 301).reshape(15, 20).repeat(4, 0).repeat(3, 1) * 17
    segments = [(int(i) * 17, 1, 0) for i in range(1, 301)]
    trees.coco_panoptic(tmp_path, [ids], [segments], CATEGORIES)
    label = coco_panoptic(tmp_path)[0].read_label()
    labels, masks = label.targets()
    assert labels.shape == (300,)
    assert (masks.sum((1, 2)) == 12).all()
    assert masks.sum(0).eq(1).all()


def test_id_colours(tmp_path):
    ids = np.array([[0, 1, 255, 256, 65_535, 65_536, 2**24 - 1]])
    colors = id_colors(ids)
    np.testing.assert_array_equal(colors, trees.colored(ids))
    write_ids(tmp_path / "a.png", ids)
    np.testing.assert_array_equal(read_ids(tmp_path / "a.png"), ids)
    for wrong in (2**24, -1):
        with pytest.raises(ValueError, match="segment ids must be in"):
            id_colors(np.array([[wrong, 0]]))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("extra pixel", r"0\.png, by .*val2017.json: .* 4 segments listed, or 0, got 9 \(1 pixels"),
        ("lost segment", r"0\.png, by .*json: expected pixels of every segment listed, .* of 300"),
        ("other size", r"0\.png, by .*json: expected 12 x 16 pixels, got 11 x 16"),
        ("grey", r"0\.png: expected segment ids in three channels of 8 bits, got 1 of uint8"),
        ("truncated", r"0\.png: expected a map of segments, got 30 bytes that are none"),
        ("other picture", r"0\.png: expected segments of 10 x 16 pixels like their picture .*jpg"),
        ("no map", r"0\.png: expected a map of segments here, found no file"),
        ("no picture", r"0\.jpg"),
    ],
)
def test_damaged_files(tree, fault, message):
    sample = coco_panoptic(tree)[0]
    ids = read_ids(sample.ids_path)
    if fault == "extra pixel":
        ids[3, 3] = 9
        write_ids(sample.ids_path, ids)
    elif fault == "lost segment":
        write_ids(sample.ids_path, np.where(ids == 300, 0, ids))
    elif fault == "other size":
        write_ids(sample.ids_path, ids[1:])
    elif fault == "grey":
        trees.write(sample.ids_path, ids.astype(np.uint8))
    elif fault == "truncated":
        sample.ids_path.write_bytes(sample.ids_path.read_bytes()[:30])
    elif fault == "other picture":
        trees.write(sample.image_path, trees.picture(0, (10, 16)))
    elif fault == "no map":
        sample.ids_path.unlink()
    else:
        sample.image_path.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        sample.read()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["annotations"][0]["segments_info"][1].update(category_id=99),
         "annotation number 0: image 0: segment 300 has category 99, which is not listed"),
        (lambda t: t["annotations"][0]["segments_info"][1].update(id=7), "got 7 again"),
        (lambda t: t["annotations"][0]["segments_info"][1].update(id=0), "from 1 to .* got 0"),
        (lambda t: t["annotations"][0]["segments_info"][1].update(id=2**24), "got 16777216"),
        (lambda t: t["annotations"][1].update(image_id=5), "number 1: its image 5 is not listed"),
        (lambda t: t["annotations"][1].update(image_id=0), "one annotation of each image"),
        (lambda t: t["annotations"][1].pop("file_name"), "number 1: it lacks or misuses 'file_na"),
        (lambda t: t["images"][1].update(id=0), "every image id once"),
        (lambda t: t["images"][1].pop("height"), "image number 1: it lacks or misuses 'height'"),
        (lambda t: t["categories"][1].update(id=1), "expected categories, each id once, got 3"),
        (lambda t: t["categories"][1].pop("isthing"), "category number 1: it lacks"),
        (lambda t: t.pop("categories"), "COCO panoptic annotations with a list 'categories'"),
    ],
)  # fmt: skip
def test_damaged_tables(tree, change, message):
    path = tree / "coco/annotations/panoptic_val2017.json"
    tables = json.loads(path.read_text())
    change(tables)
    path.write_text(json.dumps(tables))
    with pytest.raises(ValueError, match=message) as error:
        coco_panoptic(tree)
    assert str(error.value).startswith(str(path))
    path.write_bytes(b"{")
    with pytest.raises(ValueError, match="expected JSON, but"):
        coco_panoptic(tree)


def test_missing_files(tree):
    with pytest.raises(FileNotFoundError, match=r"panoptic_train2017.json: expected the annot"):
        coco_panoptic(tree, "train")
    (tree / f"coco/panoptic_val2017/{1:012d}.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"val2017.json: .*, found no 0+1.png$"):
        coco_panoptic(tree)
    trees.write(tree / "coco/panoptic_val2017/stray.png", trees.picture())
    report = check_pairs(tree, "coco-panoptic", sample=None)
    assert not report.ok
    (split,) = report.splits
    assert (split.pairs, split.missing, split.unused) == (1, (f"{1:012d}.png",), ("stray.png",))
    (tree / f"coco/val2017/{0:012d}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"found no 0+\.jpg \(and 1 more\)"):
        coco_panoptic(tree)
    assert check_pairs(tree, "coco-panoptic").splits[0].missing[0] == f"{0:012d}.jpg"


def test_check_reads(tree):
    report = check_pairs(tree, "coco-panoptic", sample=None)
    assert report.ok
    assert report.classes == ("person", "dog", "grass")
    (split,) = report.splits
    assert (split.pairs, split.read, split.problems) == (2, 2, ())
    path = tree / f"coco/panoptic_val2017/{0:012d}.png"
    ids = read_ids(path)
    write_ids(path, np.where(ids == 300, 0, ids))
    (problem,) = check_pairs(tree, "coco-panoptic").splits[0].problems
    assert "got none of 300" in problem


def test_by_name(tree):
    assert len(panoptic_samples("coco-panoptic", "val", root=tree, limit=1)) == 1
    for given, message in (
        (("coco", "val"), "must be one of tabletop, coco-panoptic, ade20k-panoptic, got 'coco'"),
        (("coco-panoptic", "val"), "coco-panoptic is read from disk: give its folder, root"),
        (("tabletop", "valid"), "split must be one of train, .* got 'valid'"),
    ):
        with pytest.raises(ValueError, match=message):
            panoptic_samples(*given)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        panoptic_samples("coco-panoptic", "val", root=tree, limit=0)
