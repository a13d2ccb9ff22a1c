"""What `check_pairs` says of whole, partial and damaged trees."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import trees

from vpd.data import check_pairs, semantic
from vpd.data.pair_check import LAYOUTS, PairsReport, PairsSplit, layouts_in

ONES = np.ones(trees.SIZE, np.uint8)


def whole(root, layout):
    if layout == "ade20k":
        trees.ade(root, {"training": [ONES] * 3, "validation": [ONES]})
    elif layout == "coco-stuff":
        trees.coco(root / "coco_stuff164k", [ONES], ".png")
    elif layout == "cityscapes":
        trees.cityscapes(root, [ONES, ONES], "labelIds")
    elif layout == "nyuv2":
        trees.nyu(root / "nyu_depth_v2/official_splits/test", {"cafe/00001": 1, "study/00002": 2})
    elif layout.endswith("panoptic"):
        categories = [(1, "dog", 1), (2, "sky", 0)]
        trees.coco_panoptic(root, [ONES.astype(int)], [[(1, 2, 0)]], categories)
        if layout == "ade20k-panoptic":
            base = root / "ADEChallengeData2016"
            (root / "coco").rename(base)
            (base / "images").mkdir()
            (base / "val2017").rename(base / "images/validation")
            (base / "panoptic_val2017").rename(base / "ade20k_panoptic_val")
            (base / "annotations/panoptic_val2017.json").rename(base / "ade20k_panoptic_val.json")
    else:
        for name in ("a", "b"):
            trees.write(root / "images" / f"{name}.jpg", trees.picture())
            trees.write(root / "masks" / f"{name}.png", ONES)
        (root / "classes.txt").write_text("x\ny\n")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_whole(tmp_path, layout):
    with pytest.raises(FileNotFoundError, match=f"expected {layout} here .* found nothing of it"):
        check_pairs(tmp_path, layout)
    whole(tmp_path, layout)
    beside = ["ade20k"] if layout == "ade20k-panoptic" else []  # whose pictures it uses
    assert layouts_in(tmp_path) == [*beside, layout]
    report = check_pairs(tmp_path, layout)
    assert report.ok
    assert not report.recognised
    found = {s.split: (s.pairs, s.published, s.variant) for s in report.splits}
    assert (
        found
        == {
            "ade20k": {"train": (3, 20210, "150 classes"), "val": (1, 2000, "150 classes")},
            "coco-stuff": {"val": (1, 5000, "stuffthingmaps")},
            "cityscapes": {"train": (2, 2975, "labelIds")},
            "nyuv2": {"test": (2, 654, "official_splits")},
            "coco-panoptic": {"val": (1, None, "1 things, 1 stuffs")},
            "ade20k-panoptic": {"val": (1, None, "1 things, 1 stuffs")},
            "folder": {"all": (2, None, "masks")},
        }[layout]
    )
    assert len(report.scenes if layout == "nyuv2" else report.classes) in (150, 171, 19, 27, 2)
    assert "not a published variant" in report.table()


def test_folder_of_depth(tmp_path):
    trees.write(tmp_path / "images" / "a.jpg", trees.picture())
    trees.write(tmp_path / "depths" / "a.png", trees.depth_mm(1))
    report = check_pairs(tmp_path, "folder")
    assert report.ok
    assert report.scenes == ("room",)
    assert [s.variant for s in report.splits] == ["depths"]
    (tmp_path / "depths" / "a.png").unlink()
    (split,) = check_pairs(tmp_path, "folder").splits
    assert (split.pairs, split.missing) == (0, ("a.jpg",))


def test_missing_unused_and_damaged(tmp_path):
    base = trees.ade(tmp_path, {"training": [ONES] * 6})
    labels, images = base / "annotations/training", base / "images/training"
    for i in (1, 2, 3):
        (labels / f"ADE_train_{i:08d}.png").unlink()
    (images / "ADE_train_00000004.jpg").unlink()
    trees.write(labels / "ADE_train_00000005.png", ONES * 200)
    report = check_pairs(tmp_path, "ade20k")
    (split,) = report.splits
    assert not report.ok
    assert (split.pairs, split.read) == (2, 2)
    assert split.missing == tuple(f"ADE_train_{i:08d}.jpg" for i in (1, 2, 3))
    assert split.unused == ("ADE_train_00000004.png",)
    assert len(split.problems) == 1
    text = report.table(names=2)
    assert "train, missing (3): ADE_train_00000001.jpg; ADE_train_00000002.jpg and 1 more\n" in text
    assert "train, without a picture (1): ADE_train_00000004.png\n" in text
    assert "train, problems (1): " in text
    assert "00000005.png: expected labels 1..150 or 0 (none), got 200" in text


def test_all_or_some_are_read(tmp_path):
    base = trees.ade(tmp_path, {"validation": [ONES] * 9})
    for i in range(1, 10):
        (base / f"images/validation/ADE_valid_{i:08d}.jpg").write_bytes(b"")
    for sample, expected in ((None, 9), (3, 3), (20, 9), (0, 0)):
        (split,) = check_pairs(tmp_path, "ade20k", sample=sample).splits
        assert (split.read, len(split.problems)) == (expected, expected)
    (split,) = check_pairs(tmp_path, "ade20k", sample=3).splits
    assert [p.split("valid_")[1][:8] for p in split.problems] == [
        "00000001",
        "00000004",
        "00000007",
    ]


def test_a_split_that_cannot_be_opened(tmp_path):
    base = trees.ade(tmp_path, {"training": [ONES], "validation": [ONES]})
    (base / "annotations/validation").rename(base / "annotations/elsewhere")
    report = check_pairs(tmp_path, "ade20k")
    train, val = report.splits
    assert (train.pairs, val.pairs) == (1, 0)
    assert "annotations/validation: expected a folder" in val.problems[0]
    assert not report.ok


def test_missing_files_of_a_list(tmp_path):
    base = tmp_path / "nyu_depth_v2"
    trees.nyu(base / "sync", {"cafe_0001a/00002": 2})
    line = "/cafe_0001a/rgb_{0}.jpg /cafe_0001a/sync_depth_{0}.png\n"
    (base / "train_list.txt").write_text(line.format("00002") + line.format("00003"))
    (split,) = check_pairs(tmp_path, "nyuv2").splits
    assert (split.pairs, split.published, split.variant) == (1, 24231, "sync, train_list.txt")
    assert split.missing == ("cafe_0001a/rgb_00003.jpg", "cafe_0001a/sync_depth_00003.png")


def test_published_counts_are_recognised(tmp_path, monkeypatch):
    monkeypatch.setitem(semantic.ADE_COUNTS, "val", 1)
    trees.ade(tmp_path, {"validation": [ONES]})
    report = check_pairs(tmp_path, "ade20k")
    assert report.recognised
    assert "counts as published" in report.table()
    assert "same" in report.table()
    other = dataclasses.replace(report.splits[0], split="train", pairs=5, published=7)
    assert not dataclasses.replace(report, splits=(*report.splits, other)).recognised
    unknown = PairsSplit("all", "masks", 5, None)
    assert not PairsReport("folder", tmp_path, ("x",), (), (unknown,)).recognised


def test_unknown_layout(tmp_path):
    with pytest.raises(ValueError, match=r"layout must be one of ade20k, .*, got 'voc'"):
        check_pairs(tmp_path, "voc")
    assert layouts_in(tmp_path) == []
