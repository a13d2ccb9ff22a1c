"""Data sets by name, and folders of anyone's with what must be said about them."""

from __future__ import annotations

import numpy as np
import pytest
import trees

from vpd.data import class_names, image_depth_folder
from vpd.data.dense import dense_names, dense_samples
from vpd.data.tabletop.spec import CLASSES

NAMES = ("x", "y", "z")


@pytest.fixture
def root(tmp_path):
    """A folder as `vpd data check folder` takes it: classes plus one, depth in KITTI's units."""
    label = np.arange(trees.SIZE[0] * trees.SIZE[1]).reshape(trees.SIZE) % 4
    trees.write(tmp_path / "images/a.png", trees.picture())
    trees.write(tmp_path / "masks/a.png", label.astype(np.uint8))
    trees.write(tmp_path / "depths/a.png", trees.depth_mm(0))
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    return tmp_path


def test_masks_of_a_folder(root):
    found = dense_samples("semantic", "folder", "val", root=root, reduce_zero_label=True)
    stored = np.arange(trees.SIZE[0] * trees.SIZE[1]).reshape(trees.SIZE) % 4
    assert found.names == NAMES
    np.testing.assert_array_equal(found[0].read()[1], np.where(stored == 0, 255, stored - 1))
    plain = dense_samples("semantic", "folder", "val", root=root, names=["w", *NAMES])
    np.testing.assert_array_equal(plain[0].read()[1], stored)
    elsewhere = {"images": root / "images", "targets": root / "masks", "names": NAMES}
    with pytest.raises(ValueError, match=r"a\.png: expected labels 0\.\.2 or 255"):
        dense_samples("semantic", "folder", "val", **elsewhere)[0].read()


@pytest.mark.parametrize(("units", "scale"), [(None, 1 / 1000), (256, 1 / 256), (1, 1)])
def test_depths_of_a_folder(root, units, scale):
    found = dense_samples("depth", "folder", "val", root=root, units_per_metre=units)
    assert found.scenes == ("room",)
    expected = trees.depth_mm(0) * np.float64(scale)
    np.testing.assert_allclose(found[0].read()[1], expected, rtol=1e-6)
    named = dense_samples("depth", "folder", "val", root=root, scene="attic")
    assert (named.scenes, named[0].scene) == (("attic",), 0)


@pytest.mark.parametrize(
    ("task", "name", "options", "said"),
    [
        (
            "semantic",
            "ade20k",
            {"reduce_zero_label": False},
            "option of data set 'folder', got 'ad",
        ),
        ("depth", "nyuv2", {"scene": "attic"}, "scene is an option of data set 'folder'"),
        ("depth", "tabletop", {"units_per_metre": 1.0}, "units_per_metre is an option of data set"),
        ("semantic", "folder", {"scene": "attic"}, "scene is an option of a folder with depths"),
        ("depth", "folder", {"names": NAMES}, "names is an option of a folder with masks"),
        ("depth", "folder", {}, "needs root, or images, targets; got no images"),
        ("semantic", "folder", {"images": "i", "targets": "t"}, "got no names"),
        ("depth", "folder", {"root": "r", "units_per_metre": 0}, "positive number, got 0"),
        ("depth", "ade20k", {}, "must be one of tabletop, nyuv2, folder, got 'ade20k'"),
    ],
)
def test_options_that_mean_nothing(task, name, options, said):
    with pytest.raises(ValueError, match=said):
        dense_samples(task, name, "val", **options)


def test_names_before_the_data_is_there(root):
    assert dense_names("semantic", "ade20k") == class_names("ade20k")
    assert len(dense_names("semantic", "coco-stuff")) == 171
    assert len(dense_names("depth", "nyuv2")) == 27
    assert dense_names("semantic", "tabletop") == CLASSES
    assert dense_names("semantic", "folder", names=root / "classes.txt") == NAMES
    assert dense_names("depth", "folder", scene="attic") == ("attic",)
    assert (
        dense_names("depth", "folder") == dense_samples("depth", "folder", "val", root=root).scenes
    )
    assert image_depth_folder(root / "images", root / "depths").scenes == ("room",)
    with pytest.raises(ValueError, match="needs names"):
        dense_names("semantic", "folder")
    with pytest.raises(ValueError, match="must be one of"):
        dense_names("semantic", "nyuv2")
