"""Editing on the command line: a picture, a folder, seeds, weights of others, training."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import edit_toys
import numpy as np
import pytest
from PIL import Image
from toys import few_scenes

import vpd
from vpd.tasks import store


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(store.save(edit_toys.editor(), tmp_path_factory.mktemp("edit") / "model"))


def test_one_picture(run_json, run, desk, model):
    words = ["edit", "image.png", "make it red", "--model", model, "--steps", 2]
    found = run_json(*words, "--seed", 7, "--text-guidance", 3, "--resolution", 96)
    (row,) = found["results"]
    assert row["files"] == ["vpd-out/image.edited.png", "vpd-out/image.figure.png"]
    assert (row["seed"], row["text_guidance"], row["image_guidance"]) == (7, 3.0, 1.5)
    expected = vpd.load(model).edit(
        "image.png", "make it red", steps=2, seed=7, text_guidance=3, resolution=96
    )
    assert np.array_equal(np.asarray(Image.open(row["files"][0])), expected.image)
    (row,) = run_json(*words, "--out", "one.png")["results"]
    assert row["files"] == ["one.png"]
    code, said, _ = run(*words)
    assert code == 0
    assert "seed " in said  # drawn, and told
    assert "guidance 7.5 of the text and 1.5 of the image -> vpd-out/image.edited.png" in said


def test_several_seeds_and_drawn_guidance(run_json, desk, model):
    words = ["edit", "image.png", "make it red", "--model", model, "--steps", 1, "--no-figure"]
    rows = run_json(*words, "--seed", 4, "--count", 2, "--random-guidance")["results"]
    assert [row["files"] for row in rows] == [
        ["vpd-out/image.4.edited.png"], ["vpd-out/image.5.edited.png"]
    ]  # fmt: skip
    assert all(6 <= row["text_guidance"] <= 9 for row in rows)
    assert all(1.2 <= row["image_guidance"] <= 1.8 for row in rows)
    (again,) = run_json(*words, "--seed", 5, "--random-guidance")["results"]
    assert again["text_guidance"] == rows[1]["text_guidance"]


def test_a_folder_with_a_broken_image(run, desk, model):
    folder = desk / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(desk / "image.png", folder / name)
    (folder / "broken.png").write_bytes((desk / "image.png").read_bytes()[:200])
    for _ in range(2):  # results in a folder are no pictures of it
        code, said, _ = run(
            "edit", folder, "make it red", "--model", model, "--steps", 1, "--out", folder
        )
        assert code == 1
        assert "failed" in said
        assert "broken.png" in said
        made = sorted(path.name for path in folder.glob("*.edited.png"))
        assert made == ["a.edited.png", "b.edited.png"]


def test_what_is_refused(refused, desk, model, models):
    words = ["edit", "image.png", "make it red"]
    assert "no model 'vpd-mini-edits'" in refused(*words, "--model", "vpd-mini-edits")
    assert "expected an editor" in refused(*words, "--model", models / "foundation")
    words += ["--model", model]
    assert "count must be at least 1" in refused(*words, "--count", 0)
    assert "a file takes one result" in refused(*words, "--count", 2, "--out", "a.png")
    assert "average is about weights of others" in refused(*words, "--average", "true")
    assert "steps" in refused(*words, "--steps", 0)
    assert "No such file" in refused("edit", "absent.png", "red", "--model", model)


def test_training(run_json, run, desk):
    fields = edit_toys.recipe(desk)
    (desk / "edit.yaml").write_text(json.dumps(fields | {"out": "run"}))
    with few_scenes() as patch:  # what it needs is asked for below
        patch.setattr("vpd.train.edit.run.edit_footprint", lambda own: SimpleNamespace(table=str))
        found = run_json("train", "edit", "--config", "edit.yaml", "--loop.steps", 2)
    assert found["out"] == "run"
    assert set(found["metrics"]) == {"val_loss", "rise/text", "rise/image"}
    assert isinstance(vpd.load("run/model"), vpd.Editor)
    code, said, _ = run("info", "memory", "edit", "--config", "edit.yaml")
    assert code == 0
    assert "unet" in said
