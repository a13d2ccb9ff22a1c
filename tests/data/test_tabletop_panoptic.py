"""Tabletop's segments, rendered and written in the layouts of COCO and ADE20K."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest

from vpd.data import ade20k_panoptic, check_pairs, coco_panoptic, make_tabletop, tabletop
from vpd.data.panoptic import panoptic_samples
from vpd.data.segments import instances_of
from vpd.metrics import PanopticMetrics

COUNTS = {"val": 4, "train": 3}


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return {"cache_dir": tmp_path_factory.mktemp("cache"), "workers": 1, "progress": False}


@pytest.fixture(scope="module")
def root(tmp_path_factory, options):
    root = tmp_path_factory.mktemp("data")
    for layout in ("coco-panoptic", "ade20k-panoptic"):
        report = make_tabletop(root, COUNTS, COUNTS, layout=layout, **options)
        assert report.ok, report.table()
    return root


def scenes(name, options):
    return panoptic_samples(
        "tabletop", name, limit=COUNTS[name], cache_dir=options["cache_dir"], progress=False
    )


def test_rendered_samples(options):
    data = scenes("val", options)
    assert (len(data), data.names, data.split) == (4, tabletop.CLASSES, "val")
    assert data.things == (False, False, *[True] * 6)
    for sample, seed in zip(data, data.source.seeds, strict=True):
        scene = tabletop.render(seed)
        image, label = sample.read()
        assert sample.id == str(seed)
        np.testing.assert_array_equal(image, scene.image)
        np.testing.assert_array_equal(label.semantic(), scene.semantic)
        things = [s for s in label.segments if data.things[s.category]]
        visible = [k for k in range(1, len(scene.objects) + 1) if (scene.instance == k).any()]
        assert len(things) == len(visible)
        for segment, k in zip(things, visible, strict=True):
            np.testing.assert_array_equal(label.ids == segment.id, scene.instance == k)
            assert data.names[segment.category] == scene.objects[k - 1].shape
        assert min(label.areas()) > 0
        assert sample.read_instances() == instances_of(label, data.things)
    assert [s.id for s in data[1:3]] == [str(s) for s in data.source.seeds[1:3]]
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy[1].read_label().ids, data[1].read_label().ids)
    with pytest.raises(IndexError):
        data[4]


def test_objects_by_their_colours(options):
    split = tabletop.load_split("val", limit=6, **options)
    plain, colored = tabletop.panoptic(split), tabletop.panoptic(split, by="color")
    assert colored.names == ("floor", "wall", *tabletop.COLORS)
    assert colored.things == (False, False, *[True] * len(tabletop.COLORS))
    assert colored[2:4].by == "color"
    for i, (one, other) in enumerate(zip(plain, colored, strict=True)):
        a, b = one.read_label(), other.read_label()
        np.testing.assert_array_equal(a.ids, b.ids)
        assert other.read_segments() == b.segments
        for segment in b.segments:
            if segment.id > 2:
                wanted = split.scene(i).objects[segment.id - 3].color
                assert colored.names[segment.category] == wanted
        assert [own.category for own in other.read_instances()] == [
            segment.category for segment in b.segments if segment.id > 2
        ]
    with pytest.raises(ValueError, match="by must be one of shape, color"):
        tabletop.panoptic(split, by="size")


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("reader", [coco_panoptic, ade20k_panoptic])
def test_read_back_equals_the_rendered_samples(root, options, reader, name):
    read, rendered = reader(root, name), scenes(name, options)
    assert (read.names, read.things) == (rendered.names, rendered.things)
    assert len(read) == len(rendered) == COUNTS[name]
    metrics = PanopticMetrics(read.things)
    for a, b in zip(read, rendered, strict=True):
        assert a.id.endswith(b.id)
        image, label = a.read()
        np.testing.assert_array_equal(image, b.read_image())
        want = b.read_label()
        assert len(label.segments) == len(want.segments)
        np.testing.assert_array_equal(label.semantic(), want.semantic())
        metrics.update(label, want)
        assert {(i.category, i.mask["counts"]) for i in a.read_instances()} == {
            (i.category, i.mask["counts"]) for i in b.read_instances()
        }
    assert metrics.compute()["PQ"] == 100
    if reader is coco_panoptic:  # ids too
        np.testing.assert_array_equal(label.ids, want.ids)
        assert label.segments == want.segments


def test_official_places(root):
    names = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
    assert {
        "coco/val2017/000003000000.png",
        "coco/panoptic_train2017/000001000002.png",
        "coco/annotations/panoptic_val2017.json",
        "ADEChallengeData2016/annotations_instance/training/ADE_train_01000000.png",
        "ADEChallengeData2016/ade20k_panoptic_val/ADE_val_03000003.png",
        "ADEChallengeData2016/ade20k_panoptic_train.json",
        "ADEChallengeData2016/ade20k_instance_train.json",
        "ADEChallengeData2016/ade20k_instance_catid_mapping.txt",
    } <= names
    tables = json.loads((root / "coco/annotations/panoptic_val2017.json").read_text())
    assert [(c["id"], c["isthing"]) for c in tables["categories"]] == [
        (i, int(i > 2)) for i in range(1, 9)
    ]
    for row in tables["annotations"]:
        assert sum(s["area"] for s in row["segments_info"]) == 128 * 128


@pytest.mark.parametrize("layout", ["coco-panoptic", "ade20k-panoptic"])
def test_check(root, layout):
    report = check_pairs(root, layout, sample=None)
    assert report.ok
    assert {s.split: (s.pairs, s.published) for s in report.splits} == {
        "val": (4, 500),
        "train": (3, 1000),
    }
    assert report.classes == tabletop.CLASSES


def test_written_again(root, options, tmp_path):
    """A split that was written stays, and is not cut short by a smaller wish."""
    base = shutil.copytree(root / "coco", tmp_path / "coco")
    (base / "annotations" / "panoptic_val2017.json").unlink()
    make_tabletop(tmp_path, ["val"], {"val": 2}, layout="coco-panoptic", **options)
    assert len(coco_panoptic(tmp_path)) == 4
    assert len(coco_panoptic(tmp_path, "train")) == 3
    other = tmp_path / "other" / "coco" / "val2017"
    other.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"classes.txt: .* this is another data set"):
        make_tabletop(tmp_path / "other", ["val"], {"val": 1}, layout="coco-panoptic", **options)
