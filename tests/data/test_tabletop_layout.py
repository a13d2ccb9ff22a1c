"""Tabletop written in the REFER layout and read back: equal to the rendered scenes."""

import hashlib
import json
import os
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from vpd.data import ReferDataset, check_refer, make_tabletop, tabletop
from vpd.data import check as check_module
from vpd.data.tabletop import layout

COUNTS = {"val": 6, "train": 4, "train-10k": 3, "test": 2}
KILLED = """
import os, sys
from vpd.data.tabletop import layout
write, done = layout.write_png, []
def write_png(path, image):
    if len(done) == 5:
        os.kill(os.getpid(), 9)
    done.append(path)
    write(path, image)
layout.write_png = write_png
layout.make_tabletop(sys.argv[1], counts={"val": 6, "train": 4, "test": 2},
                     cache_dir=sys.argv[2], workers=1, progress=False)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def root(tmp_path_factory, cache):
    root = tmp_path_factory.mktemp("data")
    make_tabletop(root, counts=COUNTS, cache_dir=cache, workers=1, progress=False)
    return root


def tree(root):
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(Path(root).rglob("*"))
        if p.is_file()
    }


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_read_back_equals_the_scenes(root, cache, name):
    data = ReferDataset(root, "tabletop", split=name)
    split = tabletop.load_split(name, cache, limit=COUNTS[name], progress=False)
    said = {(split.seeds[i], e.target, e.kind, e.text) for i, e in _flat(split)}
    read = set()
    for ref in data.refs:
        scene = tabletop.render(ref.image_id)
        np.testing.assert_array_equal(data.image(ref), scene.image)
        target = ref.ann_id - 10 * ref.image_id - 1
        assert ref.category == scene.objects[target].shape
        np.testing.assert_array_equal(data.mask(ref), scene.instance == target + 1)
        instances = data.instances(ref)
        annotated = [k for k, o in enumerate(scene.objects) if o.visible_px >= 15]
        assert [a - 10 * ref.image_id - 1 for a in instances] == annotated
        for k, mask in zip(annotated, instances.values(), strict=True):
            np.testing.assert_array_equal(mask, scene.instance == k + 1)
        read |= {(ref.image_id, target, s.kind, s.text) for s in ref.sentences}
    assert read == said
    assert len(data.pairs) == len(said)
    assert len({s.id for _, s in data.pairs}) == len(data.pairs)


def _flat(split):
    per_scene = tabletop.expressions_for(split)
    return [(i, e) for i, group in enumerate(per_scene) for e in group]


def test_the_coco_api_reads_the_annotations(root, capsys):
    table = COCO(str(root / "tabletop" / "instances.json"))
    assert [c["name"] for c in table.cats.values()] == list(tabletop.SHAPES)
    for row in table.anns.values():
        scene = tabletop.render(row["image_id"])
        k = row["id"] - 10 * row["image_id"] - 1
        mask = table.annToMask(row).astype(bool)
        np.testing.assert_array_equal(mask, scene.instance == k + 1)
        assert row["area"] == mask.sum()
        x, y, w, h = (int(v) for v in row["bbox"])
        assert mask[y : y + h, x : x + w].sum() == mask.sum()
        o = scene.objects[k]
        assert row["attributes"] == {"size": o.size, "material": o.material, "color": o.color}


def test_the_pickle_is_plain_protocol_2_with_official_keys(root):
    data = (root / "tabletop" / "refs(vpd).p").read_bytes()
    used = {opcode.name for opcode, _, _ in pickletools.genops(data)}
    assert not used & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ"}
    assert data[:2] == b"\x80\x02"
    for ref in pickle.loads(data):
        assert set(ref) == {
            *("ref_id", "ann_id", "category_id", "image_id"),
            *("file_name", "split", "sent_ids", "sentences"),
        }
        assert ref["sent_ids"] == [s["sent_id"] for s in ref["sentences"]]
        for s in ref["sentences"]:
            assert set(s) == {"tokens", "raw", "sent", "sent_id", "kind"}
            assert " ".join(s["tokens"]) == s["sent"]


def test_killed_while_writing_then_resumed(root, cache, tmp_path):
    package_root = str(Path(tabletop.__file__).parents[3])
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(cache)],
        env={**os.environ, "PYTHONPATH": package_root},
        capture_output=True,
        check=False,
    )
    assert run.returncode == -9, run.stderr
    written = tree(tmp_path)
    assert len(written) == 5
    assert not (tmp_path / "tabletop").exists()
    kept = {p: (tmp_path / p).stat().st_mtime_ns for p in written}
    make_tabletop(tmp_path, counts=COUNTS, cache_dir=cache, workers=1, progress=False)
    assert tree(tmp_path) == tree(root)
    assert {p: (tmp_path / p).stat().st_mtime_ns for p in written} == kept


def test_a_failing_write_leaves_the_old_tables(root, cache, tmp_path, monkeypatch):
    options = {"cache_dir": cache, "workers": 1, "progress": False}
    layout.write_refer(tmp_path, ["val"], {"val": 2}, **options)
    before = tree(tmp_path / "tabletop")

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layout.pickle, "dump", full_disk)
    with pytest.raises(OSError, match="No space left"):
        layout.write_refer(tmp_path, ["val"], {"val": 2}, **options)
    assert tree(tmp_path / "tabletop") == before


def test_splits_are_added_to_earlier_ones(root, cache, tmp_path):
    options = {"cache_dir": cache, "workers": 1, "progress": False}
    for name in ("val", "test", "train"):
        layout.write_refer(tmp_path, [name], COUNTS, **options)
    assert tree(tmp_path) == tree(root)
    assert len(ReferDataset(tmp_path, "tabletop", split="train").refs) > 0


def test_check_of_a_whole_and_a_partial_data_set(root, tmp_path):
    report = check_refer(root, "tabletop")
    assert report.ok
    assert not report.recognised  # six scenes are not the validation split
    assert {s.split for s in report.splits} == {"train", "val", "test", "train-10k"}
    assert "absent; 36984 / 54783" in report.table()


def test_published_counts_of_tabletop_val(cache):
    split = tabletop.load_split("val", cache, workers=2, progress=False)
    targets = {(i, e.target) for i, e in _flat(split)}
    known = check_module.PUBLISHED["tabletop", "vpd"]["val"]
    assert (len(targets), len(_flat(split))) == (known.refs, known.sentences)


def test_floors_of_a_data_set_read_from_disk(root, cache):
    """`attributes` and categories are enough to say what a head phrase fits."""
    tables = json.loads((root / "tabletop" / "instances.json").read_text())
    names = {c["id"]: c["name"] for c in tables["categories"]}
    split = tabletop.load_split("val", cache, limit=COUNTS["val"], progress=False)
    for i, e in _flat(split):
        said = tabletop.head_attributes(e.text)
        fitting = [
            a["id"]
            for a in tables["annotations"]
            if a["image_id"] == split.seeds[i]
            and said.items() <= {**a["attributes"], "shape": names[a["category_id"]]}.items()
        ]
        assert 10 * split.seeds[i] + e.target + 1 in fitting
        assert (len(fitting) == 1) == (e.kind == "attribute")


def test_bad_requests(cache, tmp_path):
    with pytest.raises(ValueError, match=r"split must be one of train, .* got 'pretrain'"):
        layout.write_refer(tmp_path, ["pretrain"], cache_dir=cache)
    with pytest.raises(ValueError, match=r"limit of val must be within 1..500, got 0"):
        layout.write_refer(tmp_path, ["val"], {"val": 0}, cache_dir=cache)
    (tmp_path / "tabletop").mkdir()
    path = tmp_path / "tabletop" / "instances.json"
    path.write_text('{"info": {"version": "0", "splits": {}}}')
    with pytest.raises(ValueError, match="expected Tabletop version '1', got '0'"):
        layout.write_refer(tmp_path, ["val"], {"val": 1}, cache_dir=cache)
    path.write_text("{}")
    with pytest.raises(ValueError, match="expected a Tabletop data set or no file"):
        layout.write_refer(tmp_path, ["val"], {"val": 1}, cache_dir=cache)
