"""``vpd evaluate edit``."""

from __future__ import annotations

import json

import cv2
import pytest
import tiny
import torch
from toys import few_scenes

from vpd.data.tabletop.edit_layouts import write_ip2p
from vpd.tasks import store
from vpd.tasks.editor import Editor

WORDS = ("--steps", 1, "--limit", 1, "--image-guidance", 1, 1.5)


@pytest.fixture(scope="module", autouse=True)
def _six_scenes():
    with few_scenes():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random models: ``editor``, and ``foundation`` with a CLIP."""
    base = tmp_path_factory.mktemp("editors")
    foundation = tiny.foundation(1, clip=True)
    store.save(foundation, base / "foundation")
    store.save(Editor.from_foundation(foundation), base / "editor")
    return base


def test_rows_curve_and_grid(run_json, folder, tmp_path):
    words = ["evaluate", "edit", "--model", folder / "editor", *WORDS, "--out", tmp_path]
    words += ["--foundation", folder / "foundation", "--sdedit", 0.5, "--text-guidance", 3]
    found = run_json(*words, "--grid", 1)
    rows = found["rows"]
    assert [(r["method"], r["scale_txt"], r["scale_img"], r["strength"]) for r in rows] == [
        ("truth", None, None, None),
        ("editor", 3, 1, None), ("editor", 3, 1.5, None), ("sdedit", 3, None, 0.5),
    ]  # fmt: skip
    assert all({"sim_direction", "sim_image"} <= row.keys() for row in rows)
    assert {(row["data"], row["split"], row["num_samples"]) for row in rows} == {
        ("tabletop", "val", 1)
    }
    lines = (tmp_path / "edits.jsonl").read_text().splitlines()
    assert [json.loads(line)["method"] for line in lines] == [row["method"] for row in rows]
    assert len(found["files"]) == 3
    for path in found["files"][1:]:
        assert cv2.imread(path) is not None
    assert run_json(*words)["rows"] == rows  # seconds too: nothing was computed


def test_official_tree(run, folder, tmp_path):
    write_ip2p(tmp_path, ["val"], {"val": 1}, workers=1, progress=False)
    words = ["evaluate", "edit", "--model", folder / "editor", *WORDS, "--data", "ip2p"]
    words += ["--root", tmp_path / "tabletop-ip2p" / "val", "--split", "all", "--out", tmp_path]
    code, out, err = run(*words)
    assert code == 0, err
    assert "editor on 1 edits of ip2p all, 1 steps" in out
    assert "sim_" not in out
    assert f"wrote {tmp_path / 'edits.jsonl'}" in out


def test_mistakes_are_named(refused, folder, models):
    words = ["evaluate", "edit", "--model", folder / "editor"]
    assert "give its folder with --root" in refused(*words, "--data", "ip2p")
    assert "with --layout ip2p it is --data ip2p" in refused(*words, "--root", folder)
    assert "split must be one of train, " in refused(*words, "--split", "valid")
    assert "limit must be at least 1, got 0" in refused(*words, "--limit", 0)
    wrong = refused("evaluate", "edit", "--model", models / "refer")
    assert "expected an editor" in wrong
    assert "ReferSegmenter" in wrong
    message = refused(*words, "--sdedit", 0.5, "--foundation", folder / "editor")
    assert "foundation: expected one" in message
    other = refused("evaluate", "--model", folder / "editor")
    assert f"is an editor: vpd evaluate edit --model {folder / 'editor'}" in other


def test_editor_in_bfloat16(run_json, folder, tmp_path):
    words = ["evaluate", "edit", "--model", folder / "editor", *WORDS, "--dtype", "bfloat16"]
    words += ["--foundation", folder / "foundation", "--sdedit", 0.5, "--out", tmp_path]
    rows = run_json(*words)["rows"]
    assert all(torch.isfinite(torch.tensor(row["sim_image"])) for row in rows)
