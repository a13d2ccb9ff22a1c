"""Segmenters that are told something about each picture, on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import vpd
from vpd.data.tabletop.spec import CLASSES
from vpd.tasks import store


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A folder with tiny random segmenters: ``caption``, ``oracle`` and ``tagging``."""
    folder = tmp_path_factory.mktemp("told")
    torch.manual_seed(0)
    parts = {name: tiny.PARTS[name] for name in ("unet", "vae", "scale_factor")}
    adapter = vpd.TaggingAdapterConfig(
        dim=32, text_dim=32, image_dim=tiny.CLIP.image.hidden_size, queries=6, blocks=1, heads=4,
        hidden=48,
    )  # fmt: skip
    own = {
        "caption": {"text": tiny.PARTS["text"], "token_length": 16},
        "oracle": {},
        "tagging": {"image": tiny.CLIP.image, "tagging": adapter},
    }
    for name, fields in own.items():
        config = vpd.SemanticConfig(
            **parts, **fields, condition=name, classes=CLASSES, attention=(), channels=16,
            image_size=64, stride=43,
        )  # fmt: skip
        model = vpd.SemanticSegmenter(config)
        with torch.no_grad():
            for tensor in [*model.unet.parameters(), *model.own_buffers()]:
                if not tensor.any():
                    tensor.normal_(0, 0.3)
        store.save(model.eval(), folder / name)
    return folder


def test_predict(run_json, refused, desk, told):
    words = ["predict", "image.png", "--task", "semantic", "--no-figure", "--model"]
    for text, said in ((("a red cube",), "a red cube"), ((), None)):
        (row,) = run_json(words[0], words[1], *text, *words[2:], told / "caption")["results"]
        expected = vpd.load(told / "caption")("image.png", words=said).classes
        assert np.array_equal(np.array(Image.open(row["files"][0])), expected)
    (row,) = run_json(words[0], words[1], "floor | cube", *words[2:], told / "oracle")["results"]
    expected = vpd.load(told / "oracle")("image.png", words=["cube", "floor"])
    assert np.array_equal(np.array(Image.open(row["files"][0])), expected.classes)
    message = refused(*words, told / "oracle")
    assert "condition=oracle is told which classes a picture's label has" in message
    message = refused(words[0], words[1], "sofa", *words[2:], told / "oracle")
    assert "expected some of floor, wall" in message


def test_evaluate(run_json, run, refused, told, tmp_path):
    words = ["evaluate", "--limit", 2, "--model"]
    found = run_json(*words, told / "oracle")
    assert found["metrics"]["oracle"] == 1
    assert found["protocol"]["oracle"] is True
    assert found["protocol"]["words"] == "labels"
    assert "ORACLE" in run(*words, told / "oracle")[1]
    found = run_json(*words, told / "caption")
    assert "oracle" not in found["metrics"]
    assert found["protocol"]["words"] == "true captions of Tabletop"
    path = tmp_path / "captions.json"
    seeds = (3_000_000, 3_000_001)
    path.write_text(json.dumps({str(seed): {"captions": ["a ball"]} for seed in seeds}))
    assert run_json(*words, told / "caption", "--words", path)["protocol"]["words"] == str(path)
    path.write_text("{}")
    code, _, err = run(*words, told / "caption", "--words", path)
    assert code == 2
    assert "captions.json: nothing for '3000000'" in err.splitlines()[-1]
    assert "reads neither captions nor tags" in refused(*words, told / "oracle", "--words", path)


def test_curves_of_tags(run_json, refused, told, tmp_path):
    words, drawn = ["evaluate", "--limit", 2, "--model", told / "tagging"], tmp_path / "tags.png"
    found = run_json(*words, "--tag-curves", drawn)["metrics"]
    assert 0 <= found["tags/mAP"] <= 100
    assert Image.open(drawn).size[0] > 400
    assert found == run_json(*words)["metrics"]
    message = refused(*words[:-1], told / "oracle", "--tag-curves", drawn)
    assert "tag_curves are of models with condition=tagging, got one" in message
    assert "expected a name ending in .png" in refused(*words, "--tag-curves", tmp_path / "a.jpg")
