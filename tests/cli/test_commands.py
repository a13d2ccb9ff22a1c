"""The commands that need few tests each: evaluate, maps, data, convert, bench, demo."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import tiny
import torch

import vpd
from vpd.data.tabletop.layout import write_refer
from vpd.images import read_image
from vpd.protocol import NoiseSpec
from vpd.tasks.denoising import Denoising
from vpd.tasks.evaluate import evaluate_refer, under
from vpd.weights import read_state_dict, save_weights


def test_evaluate(run_json, run, refer):
    words = ["evaluate", "--model", refer, "--limit", 3, "--text-blind"]
    found = run_json(*words)
    expected = evaluate_refer(vpd.load(refer), tiny.val_scenes(3), text_blind=True, progress=False)
    assert found["metrics"] == pytest.approx(expected.metrics)
    assert found["protocol"] == {"model": refer, **expected.protocol}
    code, out, _ = run(*words)
    assert code == 0
    assert "floor: head phrase only" in out


def test_evaluate_from_disk_under_another_protocol(run_json, refer, tmp_path):
    write_refer(tmp_path, ["val"], {"val": 2}, workers=1, progress=False)
    words = ["--root", tmp_path, "--protocol", "latent_match", "--t", 300, "--batch", 2]
    words += ["--pictures", 1, "--out", tmp_path / "drawn"]
    found = run_json("evaluate", "--model", refer, "--data", "tabletop", *words)
    assert found["protocol"]["preset"] == "latent_match, t = 300"
    assert found["protocol"]["noise"]["noise_t"] == 300
    assert found["pictures"] == [str(tmp_path / "drawn" / "scene-000.png")]
    assert cv2.imread(found["pictures"][0]) is not None


def test_evaluate_with_switches(run_json, refused, refer):
    words = ["evaluate", "--model", refer, "--limit", 2, "--protocol", "latent_match", "--t", 50]
    own = run_json(*words)
    for options, name, value in [
        (["--image-norm", "none"], "image_norm", "none"),
        (["--text-adapter", "false"], "text_adapter", False),
        (["--attn-t-ensemble", 5, 500], "attn_t_ensemble", [5, 500]),
    ]:
        found = run_json(*words, *options)
        assert own["protocol"][name] != value
        assert found["protocol"] == {**own["protocol"], name: value}
        twin = under(vpd.load(refer), NoiseSpec(**own["protocol"]["noise"]), **{name: value})
        expected = evaluate_refer(twin, tiny.val_scenes(2), progress=False)
        assert found["metrics"] == pytest.approx(expected.metrics, abs=1e-4)
        assert f"{name}: {value}" in expected.table()
    found = run_json(*words, "--denoise-steps", 3, "--denoise-guidance", 2)
    assert found["protocol"]["denoise"] == {"steps": 3, "to": 1, "guidance": 2.0}
    noise = NoiseSpec(**own["protocol"]["noise"])
    twin = under(vpd.load(refer), noise, denoise=Denoising(3, guidance=2.0))
    expected = evaluate_refer(twin, tiny.val_scenes(2), progress=False)
    assert found["metrics"] == pytest.approx(expected.metrics, abs=1e-4)
    assert "needs denoise_steps" in refused(*words, "--denoise-guidance", 2)
    assert "as latent_match has it" in refused(*words[:5], "--denoise-steps", 3)
    assert "text_adapter" in refused(*words, "--text-adapter", "maybe")
    assert "such as latent_match" in refused(*words[:5], "--attn-t-ensemble", 5)


def test_maps_of_a_foundation(run_json, desk, models):
    found = run_json(
        *("maps", "image.png", "two giraffes", "--model", models / "foundation"),
        *("--mode", "tokens", "--strides", 2, 4, "--steps", 0, 100, "--npy"),
    )
    assert found["labels"] == ["two", "gira", "ffes"]
    assert [row["noise"]["noise_t"] for row in found["maps"]] == [0, 100]
    assert found["maps"][0]["shapes"] == {"2": [3, 8, 8], "4": [3, 4, 4]}
    assert cv2.imread("vpd-out/image.maps.png") is not None
    arrays = [np.load(name) for name in found["files"][1:]]
    assert [a.shape for a in arrays] == [(3, 8, 8), (3, 4, 4)] * 2


def test_attribution_maps_averaged_over_timesteps(run_json, refused, desk, models):
    words = ["maps", "image.png", "two giraffes", "--model", models / "foundation"]
    words += ["--fusion", "daam", "--shares", "--npy"]
    found = run_json(*words, "--steps", 5, 100, "--average")
    (row,) = found["maps"]
    assert (row["noise"]["noise_t"], row["averaged_with"][0]["noise_t"]) == (5, 100)
    assert row["shapes"] == {"1": [2, 16, 16]}
    array = np.load("vpd-out/image.maps-s1-t5+100.npy")
    np.testing.assert_allclose(array[0] + 2 * array[1], 1, atol=1e-3)  # "giraffes": two tokens
    assert "average is over steps" in refused(*words, "--average")


def test_maps_of_words_over_the_image(run, desk, refer):
    code, out, err = run("maps", "image.png", "two giraffes", "--model", refer, "--no-overlay")
    assert (code, out, err) == (0, "wrote vpd-out/image.maps.png\n", "")


def test_ground(run_json, run, refused, desk, models):
    model = str(models / "foundation")
    words = ["ground", "--model", model, "--limit", 3, "--steps", 300, "--scenes", 1]
    found = run_json(*words, "--out", "there")
    assert found["protocol"]["model"] == model
    assert [r["noise"]["noise_t"] for r in found["results"]] == [0, 300]
    assert {r["kind"] for r in found["results"][0]["rows"]} >= {"size", "color", "phrase"}
    names = ["grounding.json", "grounding.png", "grounding.maps.png"]
    assert found["files"] == [f"there/{name}" for name in names]
    assert json.loads((desk / "there/grounding.json").read_text()) == found
    assert all(cv2.imread(path) is not None for path in found["files"][1:])
    code, out, _ = run(*words, "--strides", 4)
    assert code == 0
    assert "pointing at any object" in out
    assert "split must be one of" in refused("ground", "--model", model, "--split", "all")


def test_data_check(run, tmp_path):
    write_refer(tmp_path, ["val"], {"val": 2}, workers=1, progress=False)
    code, out, _ = run("data", "check", "tabletop", "--root", tmp_path)
    assert code == 0
    assert "pictures: 2 of 2" in out
    next((tmp_path / "images" / "tabletop").iterdir()).unlink()
    code, out, _ = run("data", "check", "tabletop", "--root", tmp_path, "--json")
    assert code == 1
    assert len(json.loads(out)["missing_images"]) == 1


@pytest.mark.slow
def test_data_make(run_json, tmp_path):
    found = run_json("data", "make", "tabletop", "--root", tmp_path, "--splits", "val")
    assert {s["split"]: s["sentences"] for s in found["splits"]}["val"] == 1422


def test_convert_both_ways(run_json, tmp_path):
    state = tiny.foundation().state_dict()
    unet = {k.removeprefix("unet."): v for k, v in state.items() if k.startswith("unet.")}
    names = [tmp_path / f"{name}.safetensors" for name in ("a", "b", "c")]
    save_weights(unet, names[0])
    assert run_json("convert", *names[:2], "--to", "diffusers")["files"] == [str(names[1])]
    run_json("convert", *names[1:], "--to", "ldm")
    back = read_state_dict(names[2])[0]
    assert set(back) == set(unet)
    assert all(torch.equal(back[name], unet[name]) for name in unet)


def test_bench_lists_and_runs_scripts(run, run_json, desk):
    (desk / "benchmarks").mkdir()
    check = {"name": "speed", "value": 2, "limit": 1, "ok": True}
    script = f"import sys, json; print(json.dumps({{'argv': sys.argv[1:], 'checks': [{check}]}}))"
    (desk / "benchmarks" / "thing.py").write_text(script)
    assert run("bench") == (0, "thing\n", "")
    assert run_json("bench", "thing", "--quick")["argv"] == ["--json", "--quick"]
    assert run("bench", "thing")[1] == "speed: 2 (limit 1) ok\n"


def test_bench_draws_records(run, run_json, desk):
    results = desk / "benchmarks" / "results"
    results.mkdir(parents=True)
    assert "records of benchmarks" in run("bench", "--draw", "costs.png")[2]
    record = {"title": "a forward", "seconds": {"vpd": [2.0, 1.5], "peer": [3.0]}}
    (results / "a.json").write_text(json.dumps(record))
    (results / "b.json").write_text('{"benchmark": "without a title"}')
    assert run_json("bench", "--draw", "costs.png") == {"picture": "costs.png"}
    assert read_image(desk / "costs.png").shape[2] == 3
    assert "no --quick" in run("bench", "--draw", "costs.png", "--quick")[2]


def test_demo(run_json, desk, refer):
    found = run_json("demo", "--model", refer, "--scenes", 3, "--sweep-scenes", 2)
    assert [row["t"] for row in found["sweep"]] == [0, 100, 300, 500]
    names = ["scene-000.png", "scene-001.png", "scene-002.png", "maps.png"]
    assert found["pictures"] == [f"demo-out/{name}" for name in names]
    assert all(cv2.imread(path) is not None for path in found["pictures"])
    assert "text_blind/pick" in found["metrics"]
