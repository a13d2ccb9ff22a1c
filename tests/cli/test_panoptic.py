"""Segments on the command line: predict (files, folders), evaluate, sweep."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from dense_toys import recipe, write_foundation
from panoptic_toys import HEAD, segmenter
from PIL import Image

import vpd
from vpd.data import tabletop
from vpd.tasks import store
from vpd.tasks.evaluate_panoptic import evaluate_panoptic

pytestmark = pytest.mark.usefixtures("few_scenes")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(store.save(segmenter(), tmp_path_factory.mktemp("panoptic") / "model"))


def test_predict(run_json, run, desk, model):
    words = ["predict", "image.png", "--task", "panoptic", "--model", model]
    (row,) = run_json(*words, "--npz", "--min-score", 0.1)["results"]
    endings = ("segments.png", "segments.json", "figure.png", "npz")
    assert row["files"] == [f"vpd-out/image.{ending}" for ending in endings]
    expected = vpd.load(model)("image.png", min_score=0.1)
    colors = np.array(Image.open("vpd-out/image.segments.ids.png"), np.int64)
    assert np.array_equal(colors @ [1, 256, 65536], expected.ids)
    assert np.array(Image.open(row["files"][0])).shape == (*expected.ids.shape, 3)
    tables = json.loads((desk / row["files"][1]).read_text())
    (annotation,) = tables["annotations"]
    assert annotation["file_name"] == "image.segments.ids.png"
    found = {own["id"]: own["category_id"] for own in annotation["segments_info"]}
    assert found == {s.id: s.category + 1 for s in expected.segments}
    assert len(tables["instances"]) == len(expected.instances)
    assert [own["pixels"] for own in row["segments"]] == expected.label.areas()
    assert [own["id"] for own in row["segments"]] == list(found)
    code, said, _ = run(*words, "--min-score", 1, "--no-figure")
    assert code == 0
    assert "no segment -> vpd-out/image.segments.png" in said


def test_a_folder_with_a_broken_image(run, desk, model):
    folder = desk / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(desk / "image.png", folder / name)
    (folder / "broken.png").write_bytes((desk / "image.png").read_bytes()[:200])
    for _ in range(2):  # results in a folder are no pictures of it
        words = ["predict", folder, "--task", "panoptic", "--model", model, "--out", folder]
        code, _, err = run(*words)
        assert code == 1
        assert "broken.png" in err
        made = sorted(path.name for path in folder.glob("*.segments*"))
        kinds = ("segments.ids.png", "segments.json", "segments.png")
        assert made == [f"{name}.{kind}" for name in "ab" for kind in kinds]


def test_options_of_other_tasks(refused, desk, model):
    words = ["predict", "image.png", "--task", "panoptic", "--model", model]
    assert "flip is an option of semantic and depth, the task is panoptic" in refused(
        *words, "--flip", "true"
    )
    assert "min_score must be within" in refused(*words, "--min-score", 3)
    message = refused("predict", "image.png", "--task", "depth", "--min-score", 0.5)
    assert "min_score is an option of panoptic, the task is depth" in message
    assert "takes no words" in refused("predict", "image.png", "a ball", *words[2:])
    words = ["evaluate", "--model", model]
    assert "mode is an option of semantic" in refused(*words, "--mode", "whole")
    assert "batch is no option of panoptic" in refused(*words, "--batch", 2)
    assert "data set for panoptic must be one of" in refused(*words, "--data", "nyuv2")
    message = refused(*words, "--data", "coco-panoptic")
    assert "coco-panoptic is read from disk" in message


def test_evaluate(run_json, run, model, tmp_path):
    words = ["evaluate", "--model", model, "--limit", 2, "--min-overlap", 0.5]
    found = run_json(*words, "--per-class", "true")
    samples = tabletop.panoptic(tabletop.load_split("val", limit=2))
    expected = evaluate_panoptic(
        vpd.load(model), samples, min_overlap=0.5, per_class=True, progress=False
    )
    own = {k: v for k, v in found["metrics"].items() if not k.startswith("floor/")}
    assert own == pytest.approx(expected.metrics)
    assert {"floor/PQ", "floor/mIoU"} <= set(found["metrics"])
    assert found["protocol"] == {"model": model, **expected.protocol}


def test_a_sweep(run_json, desk):
    fields = recipe(write_foundation(desk / "foundation"), desk / "cache") | HEAD
    fields = {k: v for k, v in fields.items() if k != "progress"} | {"points": 64}
    frozen = {"freeze": "unet", "text_adapter": False}
    sweep = {
        "task": "panoptic", "out": "sweep", "set": fields | frozen,
        "axes": {"unet_init": ["pretrained", "random"]}, "columns": ["PQ", "mAP", "mIoU"],
    }  # fmt: skip
    (desk / "sweep.yaml").write_text(json.dumps(sweep))
    found = run_json("sweep", "--config", "sweep.yaml")
    assert found["cells"] == {"pretrained-s0": "finished", "random-s0": "finished"}
    assert "| unet_init | PQ | mAP | mIoU | seeds | minutes |" in found["table"]
    assert isinstance(vpd.load("sweep/random-s0/model"), vpd.PanopticSegmenter)
