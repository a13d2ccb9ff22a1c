"""``vpd tags``: make, check and score files of tags."""

from __future__ import annotations

import json
import shutil

import cv2
import dense_toys
import numpy as np
import pytest
import tiny
import torch
import trees

import vpd
from vpd.data import tabletop
from vpd.models.clip import CLIP, CLIPConfig
from vpd.tags import CachedTagger, ClipTagger, TabletopTagger, TagSet, write_tags
from vpd.tasks import store
from vpd.tasks.foundation import Foundation, FoundationConfig

CLIP_SMALL = CLIPConfig(
    vpd.CLIPTextConfig(
        hidden_size=64, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
        projection_dim=8,
    ),
    vpd.CLIPImageConfig(
        hidden_size=64, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
        image_size=16, patch_size=8, projection_dim=8,
    ),
    token_length=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """A tiny foundation with CLIP."""
    torch.manual_seed(0)
    model = Foundation(FoundationConfig(**tiny.PARTS, clip=CLIP_SMALL))
    return store.save(model.eval(), tmp_path_factory.mktemp("eyes"))


def test_make_and_check(run, run_json, refused, desk, eyes):
    folder = desk / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(desk / "image.png", folder / name)
    (desk / "names.txt").write_text("cube\nball; sphere\nring\n")
    words = ["tags", "make", "t.json", "--images", folder, "--names", "names.txt"]
    found = run_json(*words, "--model", eyes, "--top", 2)
    assert found == {"path": "t.json", "pictures": 2, "tags": 3, "failed": []}
    tagger = CachedTagger("t.json")
    tags = TagSet(["cube", "ball; sphere", "ring"])
    expected = ClipTagger(vpd.load(eyes).clip, tags, top=2).tags(desk / "image.png")
    assert [name for name, _ in tagger.tags("a.png")] == [name for name, _ in expected]
    scores = [score for _, score in tagger.tags("b.png")]
    assert scores == pytest.approx([score for _, score in expected], abs=1e-6)

    (folder / "broken.png").write_bytes(b"no picture")
    code, out, _ = run(*words, "--model", eyes, "--threshold", -1)
    assert code == 1
    assert "broken.png" in out
    assert len(CachedTagger("t.json").tags("a.png")) == 3
    code, out, _ = run(
        "tags", "check", "t.json", "--images", folder, "--words", "tabletop", "--json"
    )
    found = json.loads(out)
    assert code == 1
    assert found["missing"] == [str(folder / "broken.png")]
    assert found["unknown"] == []
    assert (found["pictures"], found["words"], found["mean_tags"]) == (2, 3, 3)
    code, out, _ = run("tags", "check", "t.json", "--words", "cityscapes")
    assert code == 0
    assert "3 words that are no tags: ball, cube, ring" in out

    assert "give either names" in refused("tags", "make", "t.json", "--images", folder)
    assert "subset must be" in refused(*words, "--model", eyes, "--subset", "x")
    assert ".json" in refused("tags", "make", "t.txt", *words[3:], "--model", eyes)


def test_rendered_splits(run_json, refused, desk, eyes):
    words = ["tags", "make", "t.json", "--words", "tabletop", "--model", eyes, "--top", 3]
    with dense_toys.few_scenes():
        assert run_json(*words, "--splits", "train", "val")["pictures"] == 12
        samples = tabletop.semantic(tabletop.load_split("val"))
        tagger = CachedTagger("t.json")
        assert list(tagger.table) == [str(n + i) for n in (1_000_000, 3_000_000) for i in range(6)]
        expected = ClipTagger(vpd.load(eyes).clip, TagSet(tabletop.TAGS), top=3).tags(samples[4])
        assert [tag for tag, _ in tagger.tags(samples[4])] == [tag for tag, _ in expected]
    assert "either images" in refused(*words)
    assert "split must be" in refused(*words, "--splits", "vale")


def test_true_tags_with_errors(run_json, run, refused, desk):
    words = ["tags", "make", "t.json", "--splits", "val", "--miss", 0.5]
    with dense_toys.few_scenes():
        found = run_json(*words, "--false-alarm", 0.05)
    noisy = TabletopTagger(miss=0.5, false_alarm=0.05)
    assert (found["pictures"], found["tags"]) == (6, len(tabletop.TAGS))
    read = CachedTagger("t.json")
    assert list(read.table) == [str(3_000_000 + i) for i in range(6)]
    assert all(read.tags(name) == noisy.tags(name) for name in read.table)
    assert "leave out names" in refused(*words, "--top", 3)
    assert "leave out names" in refused(*words, "--words", "tabletop")
    assert "miss must be in [0, 1]" in refused(*words[:-1], 2)
    code, out, _ = run(*words[:3], "--images", ".", "--miss", 0)  # image.png
    assert code == 1
    assert "number of a scene, got 'image.png'" in out


def test_a_model_without_image_encoder(refused, desk, models):
    words = ["tags", "make", "t.json", "--images", ".", "--words", "tabletop"]
    message = refused(*words, "--model", models / "foundation")
    assert "has no image encoder" in message
    assert "--clip" in message


def test_clip_of_a_file(run_json, desk, eyes):
    clip = CLIP(CLIP_SMALL)
    state = {**clip.text.state_dict(), **clip.image.state_dict()}
    vpd.save_weights(state, "clip.safetensors")
    words = ["tags", "make", "t.json", "--images", ".", "--words", "tabletop"]
    assert run_json(*words, "--clip", "clip.safetensors", "--templates", "bare")["pictures"] == 1
    tags = TagSet(tabletop.TAGS, templates_="bare")
    expected = ClipTagger(clip, tags).tags("image.png")
    scores = [score for _, score in CachedTagger("t.json").tags("image.png")]
    assert scores == pytest.approx([score for _, score in expected], abs=1e-5)


def test_score_on_tabletop(run_json, run, refused, desk):
    tagger = TabletopTagger(miss=0.2, false_alarm=0.05)
    files = [f"ADE_val_0{3_000_000 + i}.png" for i in range(6)]
    write_tags("t.json", {name: tagger.tags(name) for name in files})
    found = run_json("tags", "score", "t.json", "--figure", "pr.png")["metrics"]
    said = {name: {word for word, _ in tagger.tags(name)} for name in files}
    true = {name: set(TabletopTagger().truth(name)) for name in files}
    right = sum(len(said[name] & true[name]) for name in files)
    assert found["n"] == 6
    assert found["OP"] == pytest.approx(100 * right / sum(map(len, said.values())))
    assert found["OR"] == pytest.approx(100 * right / sum(map(len, true.values())))
    assert found["floor/mAP"] < found["mAP"]
    assert cv2.imread("pr.png") is not None
    assert run_json("tags", "score", "t.json", "--limit", 2)["metrics"]["n"] == 2
    code, out, _ = run("tags", "score", "t.json", "--per-class")
    assert code == 0
    assert "AP/cube" in out
    assert "limit must be" in refused("tags", "score", "t.json", "--limit", 0)
    assert "Tabletop's tags" in refused("tags", "score", "t.json", "--root", ".")


def test_score_on_labels(run_json, desk):
    base = trees.ade(desk, {"validation": [np.uint8([[1, 2], [2, 2]]), np.uint8([[4, 0], [0, 0]])]})
    (base / "classes.txt").write_text("floor\nwall\nball\ncube\n")
    tags = {"ADE_valid_00000001.jpg": [("floor", -0.5), ("cube", -0.75)]}
    write_tags("t.json", tags | {"ADE_valid_00000002.jpg": [("cube", 0.5)]})
    found = run_json("tags", "score", "t.json", "--data", "ade20k", "--root", desk)["metrics"]
    assert found["OP"] == pytest.approx(100 * 2 / 3)  # first a floor and a wall, then a cube
    assert found["OR"] == pytest.approx(100 * 2 / 3)
    assert found["mAP"] == pytest.approx(100 * (1 + 0.5 + 1) / 3)  # no word of the wall: a tie
