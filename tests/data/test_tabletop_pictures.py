"""Tabletop's labels and depth, rendered and written in other data sets' layouts."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vpd.data import ade20k, check_pairs, make_tabletop, nyuv2, tabletop
from vpd.data.tabletop import picture_layouts

COUNTS = {"val": 4, "train": 3}
KILLED = """
import os, sys
from vpd.data import tabletop
from vpd.data.tabletop import picture_layouts
write, done = picture_layouts.write_png, []
def write_png(path, image):
    if len(done) == 5:
        os.kill(os.getpid(), 9)
    done.append(path)
    write(path, image)
picture_layouts.write_png = write_png
writer = getattr(picture_layouts, "write_" + sys.argv[1])
writer(sys.argv[2], ["val"], {"val": 4}, cache_dir=sys.argv[3], workers=1, progress=False)
"""


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return {"cache_dir": tmp_path_factory.mktemp("cache"), "workers": 1, "progress": False}


@pytest.fixture(scope="module")
def root(tmp_path_factory, options):
    root = tmp_path_factory.mktemp("data")
    for layout in ("nyuv2", "ade20k"):  # with depth first, so that scenes are rendered once
        make_tabletop(root, COUNTS, COUNTS, layout=layout, **options)
    return root


def load(name, options, depth=False):
    cache = options["cache_dir"]
    return tabletop.load_split(name, cache, limit=COUNTS[name], depth=depth, progress=False)


def tree(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file()
    }


def test_rendered_samples(options):
    split = load("val", options, depth=True)
    labels, depths = tabletop.semantic(split), tabletop.depth(split)
    assert len(labels) == len(depths) == 4
    assert labels.names == tabletop.CLASSES
    assert depths.scenes == tabletop.SCENES
    assert (labels.name, labels.split, labels.ignore_index) == ("tabletop", "val", 255)
    for a, b, seed in zip(labels, depths, split.seeds, strict=True):
        scene = tabletop.render(seed)
        assert a.id == b.id == str(seed)
        assert b.scene == 0
        image, label = a.read()
        np.testing.assert_array_equal(image, scene.image)
        np.testing.assert_array_equal(label, scene.semantic)
        assert label.dtype == np.uint8
        image, depth_m = b.read()
        np.testing.assert_array_equal(image, scene.image)
        assert depth_m.dtype == np.float32
        assert np.abs(depth_m - scene.depth_m).max() < 5.1e-4
        image[:] = 0  # a sample's own memory
    assert labels[0].read_image().any()
    assert [s.id for s in labels[1:3]] == [str(s) for s in split.seeds[1:3]]
    assert [s.id for s in depths[::2]] == [str(s) for s in split.seeds[::2]]
    assert labels[-1].id == str(split.seeds[3])
    with pytest.raises(IndexError):
        depths[4]
    for data in (labels, depths):
        copy = pickle.loads(pickle.dumps(data))
        np.testing.assert_array_equal(copy[1].read()[1], data[1].read()[1])


def test_what_has_no_labels(options, tmp_path):
    with pytest.raises(ValueError, match=r"must be loaded with depth: load_split\(..., depth=True"):
        tabletop.depth(load("val", options))
    split = tabletop.TabletopSplit("val", options["cache_dir"] / "tabletop-1" / "val", 4, False)
    split.name = "pretrain"
    with pytest.raises(ValueError, match="captions only"):
        tabletop.semantic(split)


@pytest.mark.parametrize("name", COUNTS)
def test_read_back_equals_the_rendered_samples(root, options, name):
    split = load(name, options, depth=True)
    for read, rendered in (
        (ade20k(root, name), tabletop.semantic(split)),
        (nyuv2(root, name), tabletop.depth(split)),
    ):
        assert len(read) == len(rendered) == COUNTS[name]
        for a, b in zip(read, rendered, strict=True):
            assert a.id.endswith(b.id)
            for found, expected in zip(a.read(), b.read(), strict=True):
                assert found.dtype == expected.dtype
                np.testing.assert_array_equal(found, expected)
    assert ade20k(root, name).names == tabletop.CLASSES
    assert nyuv2(root, name).scenes == tabletop.SCENES
    assert nyuv2(root, name)[0].scene == 0


def test_official_places(root):
    names = set(tree(root))
    ade, nyu = "ADEChallengeData2016", "nyu_depth_v2/official_splits"
    assert f"{ade}/images/validation/ADE_val_03000000.png" in names
    assert f"{ade}/annotations/training/ADE_train_01000002.png" in names
    assert f"{nyu}/val/tabletop/sync_depth_3000003.png" in names
    assert f"{nyu}/train/tabletop/rgb_1000000.png" in names
    note = json.loads((root / ade / "tabletop.json").read_text())
    assert note == {"version": "1", "splits": dict(sorted(COUNTS.items()))}
    assert len(names) == 2 * (2 * sum(COUNTS.values()) + 2)


def test_check(root):
    for layout, kinds in (("ade20k", 8), ("nyuv2", 1)):
        report = check_pairs(root, layout, sample=None)
        assert report.ok
        assert not report.recognised  # four scenes are not the validation split
        assert {s.split: (s.pairs, s.published) for s in report.splits} == {
            "val": (4, 500),
            "train": (3, 1000),
        }
        assert len(report.classes or report.scenes) == kinds


def test_classes_cover_the_pictures_and_depth_needs_no_more_than_millimetres(options):
    split = load("val", options, depth=True)
    seen = np.unique([s.read_label() for s in tabletop.semantic(split)])
    assert seen.max() < len(tabletop.CLASSES)
    assert {0, 1} < set(seen.tolist())
    for sample, seed in zip(tabletop.depth(split), split.seeds, strict=True):
        exact = tabletop.render(seed).depth_m
        assert exact.min() > 1.9
        assert (np.abs(sample.read_depth() - exact) / exact).max() < 3e-4


@pytest.mark.parametrize("layout", ["ade20k", "nyuv2"])
def test_killed_while_writing_then_resumed(options, tmp_path, layout):
    package_root = str(Path(tabletop.__file__).parents[3])
    run = subprocess.run(
        [sys.executable, "-c", KILLED, layout, str(tmp_path), str(options["cache_dir"])],
        env={**os.environ, "PYTHONPATH": package_root},
        capture_output=True,
        check=False,
    )
    assert run.returncode == -9, run.stderr
    written = [name for name in tree(tmp_path) if name.endswith(".png")]
    assert len(written) == 5
    kept = {p: (tmp_path / p).stat().st_mtime_ns for p in written}
    report = make_tabletop(tmp_path, ["val"], COUNTS, layout=layout, **options)
    assert [(s.split, s.pairs, s.missing) for s in report.splits] == [("val", 4, ())]
    assert {p: (tmp_path / p).stat().st_mtime_ns for p in written} == kept
    once = tmp_path / "once"
    make_tabletop(once, ["val"], COUNTS, layout=layout, **options)
    base = "ADEChallengeData2016" if layout == "ade20k" else "nyu_depth_v2"
    assert tree(tmp_path / base) == tree(once / base)


def test_bad_requests(options, tmp_path):
    with pytest.raises(
        ValueError, match=r"layout must be one of refer, ade20k, nyuv2, .* got 'voc'"
    ):
        make_tabletop(tmp_path, layout="voc", **options)
    with pytest.raises(ValueError, match=r"split must be one of train, .* got 'pretrain'"):
        picture_layouts.write_ade20k(tmp_path, ["pretrain"], **options)
    base = tmp_path / "ADEChallengeData2016"
    (base / "images" / "training").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"classes.txt: .* this is another data set"):
        picture_layouts.write_ade20k(tmp_path, ["val"], {"val": 1}, **options)
    (base / "classes.txt").write_text("\n".join(tabletop.CLASSES) + "\n")
    (base / "tabletop.json").write_text('{"version": "0", "splits": {}}')
    with pytest.raises(ValueError, match="expected Tabletop version '1', got '0'"):
        picture_layouts.write_ade20k(tmp_path, ["val"], {"val": 1}, **options)
    assert not list(base.rglob("*.png"))
