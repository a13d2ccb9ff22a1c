"""ADE20K's panoptic and instance labels, made from small maps in the official layout."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import trees

from vpd.data import ade20k_panoptic, prepare_ade20k

# ADE20K: class ids plus one in the semantic map, category and number in the map of instances.
TABLE = "Instances\tScene\tFull\n1\t2\t9\n2\t3\t 7\n2\t3\t8\n\n"  # wall is stuff


def ade(root, semantic, categories, numbers):
    base = trees.ade(root, {"validation": [semantic]})
    (base / "classes.txt").write_text("wall\nbed\ndoor\n")
    (base / "ade20k_instance_catid_mapping.txt").write_text(TABLE)
    stored = np.stack([categories, numbers, np.zeros_like(numbers)], -1).astype(np.uint8)
    trees.write(base / "annotations_instance/validation/ADE_valid_00000001.png", stored)
    return base


def ade_maps():
    semantic = np.ones(trees.SIZE, np.uint8)
    semantic[0], semantic[4:8, :6], semantic[4:8, 10:] = 0, 2, 3  # none, bed, door
    categories, numbers = np.zeros((2, *trees.SIZE), np.uint8)
    categories[4:8, :3], numbers[4:8, :3] = 1, 1
    categories[5:10, 4:6], numbers[5:10, 4:6] = 1, 200  # over the wall too
    categories[4:8, 12:], numbers[4:8, 12:] = 2, 3
    return semantic, categories, numbers


def test_ade20k(tmp_path):
    semantic, categories, numbers = ade_maps()
    base = ade(tmp_path, semantic, categories, numbers)
    prepare_ade20k(tmp_path, progress=False)
    data = ade20k_panoptic(tmp_path)
    assert (data.names, data.things) == (("wall", "bed", "door"), (False, True, True))
    label = data[0].read()[1]
    instance = numbers > 0
    np.testing.assert_array_equal(
        label.semantic(), np.where(instance, categories, np.where(semantic == 1, 0, 255))
    )
    things = [s for s in label.segments if data.things[s.category]]
    assert sorted(
        (s.category, tuple(np.unique(numbers[label.ids == s.id]))) for s in things
    ) == [(1, (1,)), (1, (200,)), (2, (3,))]  # fmt: skip
    own = {i.area: i for i in data[0].read_instances()}
    assert set(own) == {12, 10, 16}
    for number, area in ((1, 12), (200, 10), (3, 16)):
        np.testing.assert_array_equal(own[area].decode(), numbers == number)
    tables = json.loads((base / "ade20k_instance_val.json").read_text())
    assert tables["categories"] == [
        {"id": i, "name": name, "isthing": 1, "supercategory": name}
        for i, name in ((1, "bed"), (2, "door"))
    ]
    assert [a["id"] for a in tables["annotations"]] == [1, 2, 3]
    for row in tables["annotations"]:
        x, y, width, height = (int(v) for v in row["bbox"])
        mask = own[row["area"]].decode()
        assert mask[y : y + height, x : x + width].sum() == row["area"]
    times = {p: p.stat().st_mtime_ns for p in base.rglob("ade20k_panoptic_val/*.png")}
    prepare_ade20k(base, ["val"], progress=False)
    assert {p: p.stat().st_mtime_ns for p in times} == times


def test_ade20k_without_instances_and_with_stuff_hidden(tmp_path):
    semantic, categories, numbers = ade_maps()
    semantic[:], categories[:], numbers[:] = 1, 0, 0
    ade(tmp_path / "a", semantic, categories, numbers)
    prepare_ade20k(tmp_path / "a", progress=False)
    label = ade20k_panoptic(tmp_path / "a")[0].read_label()
    assert [(s.category, area) for s, area in zip(label.segments, label.areas(), strict=True)] == [
        (0, 192)
    ]
    categories[:], numbers[:] = 1, 9  # over all of the wall, which is then not listed
    ade(tmp_path / "b", semantic, categories, numbers)
    prepare_ade20k(tmp_path / "b", progress=False)
    label = ade20k_panoptic(tmp_path / "b")[0].read_label()
    assert [s.category for s in label.segments] == [1]


def test_ade20k_faults(tmp_path):
    semantic, categories, numbers = ade_maps()
    base = ade(tmp_path, semantic, categories, numbers)
    path = base / "annotations_instance/validation/ADE_valid_00000001.png"
    for change, message in (
        ((slice(4, 5), 2), r"00001.png: expected one category of instance 1, got several"),
        ((slice(4, 8), 5), r"00001.png: instance 1 has category 5, not in the table"),
    ):
        stored = np.stack([categories, numbers, numbers], -1)
        stored[change[0], :3, 0] = change[1]
        trees.write(path, stored)
        with pytest.raises(ValueError, match=message):
            prepare_ade20k(base, progress=False)
    assert not list(base.glob("*.json"))
    cv2.imwrite(str(path), np.zeros((5, 5, 3), np.uint8))
    with pytest.raises(ValueError, match=r"00001.png: .* uint8 \[12, 16, 3\], .* got uint8 \[5, 5"):
        prepare_ade20k(base, progress=False)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="expected a map of instances here, found no file"):
        prepare_ade20k(base, progress=False)
    table = tmp_path / "table.txt"
    for text, message in (
        ("head\n1 0 x\n", "line 2: expected an instance category, .* got '1 0 x'"),
        ("head\n1 2 x\n1 3 y\n", "line 3: expected an instance category, always with the same"),
        ("head\n1\n", "line 2"),
        ("head\n", "expected instance categories, got none"),
        ("head\n1 4 x\n", "expected class ids up to 3, got 4"),
    ):
        table.write_text(text)
        with pytest.raises(ValueError, match=message):
            prepare_ade20k(base, table=table, progress=False)
    (base / "ade20k_instance_catid_mapping.txt").unlink()
    with pytest.raises(FileNotFoundError, match="expected the table of instance categories here"):
        prepare_ade20k(base, progress=False)
