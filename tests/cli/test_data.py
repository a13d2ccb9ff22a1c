"""`vpd data make` and `vpd data check` on data sets of labels and depth."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import trees

from vpd.data import make_tabletop, nyu_mat
from vpd.tasks import store


def test_check_finds_out_what_there_is(run, run_json, refused, tmp_path):
    assert "found none of refcoco, " in refused("data", "check", "--root", tmp_path)
    trees.ade(tmp_path, {"validation": [np.ones(trees.SIZE, np.uint8)] * 20})
    found = run_json("data", "check", "--root", tmp_path)
    assert (found["layout"], found["splits"][0]["pairs"]) == ("ade20k", 20)
    assert (found["ok"], found["recognised"]) == (True, False)
    assert found["splits"][0]["read"] == 16
    found = run_json("data", "check", "ade20k", "--root", tmp_path, "--read-all")
    assert found["splits"][0]["read"] == 20
    next(tmp_path.rglob("annotations/validation/*.png")).unlink()
    code, out, _ = run("data", "check", "--root", tmp_path)
    assert code == 1
    assert "val, missing (1): ADE_valid_000000" in out
    trees.nyu(tmp_path / "nyu_depth_v2/official_splits/test", {"cafe/00001": 1})
    message = refused("data", "check", "--root", tmp_path)
    assert "several, ade20k, nyuv2: say which" in message


def test_check_of_tabletop_in_other_layouts(run_json, tmp_path):
    for layout in ("ade20k", "nyuv2"):
        make_tabletop(tmp_path, ["val"], {"val": 2}, layout=layout, workers=1, progress=False)
        words = ["data", "check", "tabletop", "--layout", layout, "--root", tmp_path]
        assert run_json(*words)["splits"][0]["published"] == 500


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ade20k", "nyuv2"])
def test_make_tabletop(run_json, tmp_path, layout):
    words = ["data", "make", "tabletop", "--root", tmp_path, "--splits", "val"]
    found = run_json(*words, "--layout", layout)
    assert (found["ok"], found["recognised"]) == (True, True)


def test_make_nyuv2(run_json, refused, tmp_path, monkeypatch):
    words = ["data", "make", "nyuv2", "--root", tmp_path]
    assert "nyuv2 needs --mat" in refused(*words)
    both = ["--mat", tmp_path / "a.mat", "--splits-mat", tmp_path / "b.mat"]
    assert "a.mat" in refused(*words, *both) or "b.mat" in refused(*words, *both)
    assert "tabletop is rendered" in refused("data", "make", "tabletop", "--root", "x", *both)

    def extract(mat, splits, root):
        assert (mat.name, splits.name) == ("a.mat", "b.mat")
        trees.nyu(root / "nyu_depth_v2/official_splits/test", {"cafe/00001": 1})

    monkeypatch.setattr(nyu_mat, "extract_nyu_mat", extract)
    assert run_json(*words, *both)["splits"][0]["published"] == 654


def test_make_and_check_of_segments(run_json, refused, tmp_path):
    words = ["data", "make", "ade20k-panoptic", "--root", tmp_path]
    assert "table of instance categories" in refused(*words)
    assert "--mat and --splits-mat are for nyuv2" in refused(*words, "--mat", "a.mat")
    base = trees.ade(tmp_path, {"validation": [np.ones(trees.SIZE, np.uint8)]})
    (base / "classes.txt").write_text("wall\nbed\n")
    instances = np.zeros((*trees.SIZE, 3), np.uint8)
    instances[:4] = 1
    trees.write(base / "annotations_instance/validation/ADE_valid_00000001.png", instances)
    (tmp_path / "table.txt").write_text("head\n1 2 bed\n")
    found = run_json(*words, "--table", tmp_path / "table.txt")
    assert (found["ok"], found["splits"][0]["pairs"]) == (True, 1)
    assert found["splits"][0]["variant"] == "1 things, 1 stuffs, instances"
    assert "say which" in refused("data", "check", "--root", tmp_path)
    assert run_json("data", "check", "ade20k-panoptic", "--root", tmp_path)["ok"]
    message = refused("data", "make", "nyuv2", "--root", tmp_path, "--table", "a.txt")
    assert "--table is for ade20k-panoptic" in message


def test_check_of_tabletop_segments(run_json, tmp_path):
    layout = "coco-panoptic"
    make_tabletop(tmp_path, ["val"], {"val": 1}, layout=layout, workers=1, progress=False)
    words = ["data", "check", "tabletop", "--layout", layout, "--root", tmp_path]
    assert run_json(*words)["splits"][0]["published"] == 500
    assert run_json("data", "check", "--root", tmp_path)["layout"] == layout


def test_make_and_check_of_edited_pairs(run_json, tmp_path):
    make_tabletop(tmp_path, ["val"], {"val": 3}, layout="ip2p", workers=1, progress=False)
    for words in (["tabletop", "--layout", "ip2p"], ["ip2p"], []):
        found = run_json("data", "check", *words, "--root", tmp_path)
        assert (found["ok"], found["trees"][0]["pairs"]) == (True, 3)
        assert found["trees"][0]["name"] == "tabletop-ip2p/val"


def test_make_pairs_for_triplets(run_json, refused, desk, models):
    store.save(tiny.foundation(clip=True), desk / "model")
    (desk / "triplets.jsonl").write_text(
        "".join(
            json.dumps({"input": f"a {c} cube", "edit": "make it blue", "output": "a blue cube"})
            + "\n"
            for c in ("red", "gray")
        )
    )
    words = ["data", "edits", "triplets.jsonl", "--root", "pairs", "--model", desk / "model",
             "--steps", "2", "--samples", "3", "--keep", "2", "--sim-image", "0", "--sim-caption",
             "0", "--sim-direction", "0", "--guidance", "2,3"]  # fmt: skip
    first = run_json(*words, "--part", "0", "--parts", "2", "--mode", "cross")
    assert (first["ok"], first["trees"][0]["entries"]) == (True, 1)
    found = run_json(*words)
    assert (found["ok"], found["trees"][0]["pairs"]) == (True, 4)
    rows = (desk / "pairs/0000001/metadata.jsonl").read_text().splitlines()
    assert all(2 <= json.loads(row)["cfg_scale"] <= 3 for row in rows)
    assert "least and greatest, got [1.0]" in refused(*words, "--share", "1")
    assert "expected a foundation" in refused(*words, "--model", models / "refer")
    assert "give --clip" in refused(*words, "--model", models / "foundation")
