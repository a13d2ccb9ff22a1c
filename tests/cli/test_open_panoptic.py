"""Open vocabularies on the command line: train, predict, evaluate, sweep."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from dense_toys import recipe, write_foundation
from odise_checkpoints import CONFIG, official, published, segmenter
from PIL import Image

import vpd
from vpd.data import tabletop
from vpd.tasks import sources, store
from vpd.tasks.evaluate_open import evaluate_open
from vpd.vocabulary import label_set

pytestmark = pytest.mark.usefixtures("few_scenes")
WORDS = "cube, box; ring; floor"
HEAD = {
    "projection_dim": 16, "channels": 16, "embedding_dim": 12, "num_queries": 8, "heads": 2,
    "encoder_layers": 1, "decoder_layers": 2, "norm_groups": 4, "points": 64, "crop": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("open") / "model"
    return str(store.save(segmenter(), folder, dtype=torch.float32))


def test_predict(run_json, run, desk, model):
    words = ["predict", "image.png", "--task", "panoptic", "--model", model]
    (row,) = run_json(*words, "--vocabulary", WORDS, "--stuff", "floor", "--npz")["results"]
    endings = ("segments.png", "segments.json", "figure.png", "npz")
    assert row["files"] == [f"vpd-out/image.{ending}" for ending in endings]
    wanted = vpd.Vocabulary.parse(WORDS, stuff="floor")
    expected = vpd.load(model)("image.png", wanted)
    colors = np.array(Image.open("vpd-out/image.segments.ids.png"), np.int64)
    assert np.array_equal(colors @ [1, 256, 65536], expected.ids)
    tables = json.loads((desk / row["files"][1]).read_text())
    assert [own["name"] for own in tables["categories"]] == ["cube", "ring", "floor"]
    assert [own["isthing"] for own in tables["categories"]] == [1, 1, 0]
    assert [own["pixels"] for own in row["segments"]] == expected.label.areas()
    code, said, _ = run(*words, "--caption", "a cube", "--no-figure")
    assert code == 0
    assert "-> vpd-out/image.segments.png" in said


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ("thing",)),
        (["--vocabulary", "tabletop_shapes"], label_set("tabletop_shapes").names),
        (["--vocabulary", "own.txt"], ("box", "sky")),
        (["--caption", "a red cube behind a ball"], ("red cube", "ball")),
        (["--caption", "a cat", "--label-sets", "own.txt", "pascal_voc_21"], ("cat", "box", "sky")),
        (["--vocabulary", "moon; Box", "--label-sets", "own.txt"], ("moon", "Box", "sky")),
    ],
)
def test_ways_to_say_it(run_json, desk, tmp_path_factory, options, names):
    own = segmenter(CONFIG.__class__(**{**CONFIG.__dict__, "categories": (("thing",),)}))
    folder = store.save(own, tmp_path_factory.mktemp("own") / "model")
    (desk / "own.txt").write_text("# stuff: 2\n1:box\n2:sky\n")
    words = ["predict", "image.png", "--task", "panoptic", "--model", folder, "--npz", *options]
    run_json(*words, "--no-figure")
    with np.load("vpd-out/image.npz") as found:
        assert tuple(found["names"])[: len(names)] == names
        if "sky" in names:
            assert not found["things"][names.index("sky")]


def test_what_is_refused(refused, desk, model):
    words = ["predict", "image.png", "--task", "panoptic", "--model", model]
    assert "expected names such as" in refused(*words, "--vocabulary", " ; ")
    assert "each name in one category" in refused(*words, "--vocabulary", "a; b, a")
    assert "a caption with nouns" in refused(*words, "--caption", "on the")
    assert "stuff needs categories" in refused(*words, "--stuff", "floor")
    assert "stuff must be names" in refused(*words, "--vocabulary", "a", "--stuff", "floor")
    assert "at least one category" in refused(*words)
    assert "takes no text" in refused("predict", "image.png", "a ball", *words[2:])
    message = refused("predict", "image.png", "--task", "depth", "--vocabulary", "a")
    assert "vocabulary is an option of panoptic, the task is depth" in message
    closed = ["--model", "vpd-mini-panoptic", "--caption", "a cat"]
    assert "caption needs an open-vocabulary model" in refused(*words[:4], *closed)
    words = ["evaluate", "--model", model]
    assert "mode is an option of semantic" in refused(*words, "--mode", "whole")
    assert "protocol is no option of an open" in refused(*words, "--protocol", "pixel")
    assert "expected names and things of 8 classes" in refused(
        *words, "--vocabulary", "pascal_voc_21", "--limit", 1
    )
    message = refused("evaluate", "--model", "vpd-mini-panoptic", "--shuffled", "true")
    assert "shuffled is an option of open-panoptic" in message


@pytest.mark.parametrize("by", ["shape", "color"])
def test_evaluate(run_json, run, model, by):
    words = ["evaluate", "--model", model, "--limit", 2, "--by", by]
    options = ["--shuffled", "true", "--without-clip", "true"]
    found = run_json(*words, *options)
    samples = tabletop.panoptic(tabletop.load_split("val", limit=2), by)
    expected = evaluate_open(
        vpd.load(model), samples, label_set(f"tabletop_{by}s"), shuffled=True, without_clip=True,
        progress=False,
    )  # fmt: skip
    own = {k: v for k, v in found["metrics"].items() if not k.startswith("floor/")}
    assert own == pytest.approx(expected.metrics)
    kinds = {"held_out/", "shuffled/held_out/", "no_clip/held_out/", "no_clip/shuffled/held_out/"}
    assert {f"{kind}{name}" for kind in kinds for name in ("PQ", "mAP", "mIoU")} <= set(own)
    assert {"floor/PQ", "no_clip/PQ", "no_clip/mAP", "no_clip/mIoU"} <= set(found["metrics"])
    assert found["protocol"] == {"model": model, **expected.protocol}
    trained = run_json(*words, "--alpha", "0", "--beta", "0")["metrics"]["PQ"]
    assert trained == pytest.approx(own["no_clip/PQ"])
    code, said, _ = run(*words)
    assert (code, "held_out/PQ" in said, "shuffled" in said) == (0, True, False)


def test_weights_of_others(run_json, desk, monkeypatch):
    source = segmenter(seed=3)
    files = published(source, desk)
    torch.save({"model": official(source)}, desk / "odise.pth")
    monkeypatch.setattr(sources, "_odise_config", lambda checkpoint: CONFIG)
    weights = ["--weights", *files, "odise.pth"]
    words = ["predict", "image.png", "--task", "panoptic", "--vocabulary", WORDS, "--no-figure"]
    (row,) = run_json(*words, *weights)["results"]
    source.empty_states.copy_(sources.build_open_panoptic(weights[1:]).empty_states)
    assert [own["pixels"] for own in row["segments"]] == source("image.png", WORDS).label.areas()
    found = run_json("evaluate", *weights, "--limit", 1)
    assert found["protocol"]["model"] == weights[1:]


def test_train_and_sweep(run, run_json, desk):
    fields = recipe(write_foundation(desk / "foundation", clip=True), desk / "cache") | HEAD
    del fields["templates"]
    fields["schedule"] = {"kind": "poly"}
    (desk / "own.yaml").write_text(json.dumps(fields | {"out": "run", "held_out": ["ring"]}))
    words = ["train", "open-panoptic", "--config", "own.yaml"]
    code, said, _ = run(*words)
    assert code == 0
    assert "held_out/PQ" in said
    assert "wrote run/model" in said
    fields = {k: v for k, v in fields.items() if k != "progress"}
    sweep = {
        "task": "open-panoptic", "out": "sweep", "set": fields, "columns": ["seen/PQ", "mIoU"],
        "axes": {"unet_init": ["pretrained", "random"]},
    }  # fmt: skip
    (desk / "sweep.yaml").write_text(json.dumps(sweep))
    found = run_json("sweep", "--config", "sweep.yaml")
    assert found["cells"] == {"pretrained-s0": "finished", "random-s0": "finished"}
    assert "| unet_init | seen/PQ | mIoU | seeds | minutes |" in found["table"]
    assert isinstance(vpd.load("sweep/random-s0/model"), vpd.OpenPanopticSegmenter)
