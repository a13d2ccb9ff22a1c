"""``vpd evaluate --timesteps`` and ``vpd probe``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import tiny

import vpd
from vpd.cli.parser import parse
from vpd.protocol import NoiseSpec
from vpd.tasks.maps import own_noise
from vpd.tasks.similarity import similarity
from vpd.tasks.timesteps import evaluate_timesteps

ROOT = Path(__file__).parents[2]


def test_evaluate_at_timesteps(run_json, run, desk, refer):
    words = ["evaluate", "--model", refer, "--limit", 2, "--protocol", "latent_match"]
    words += ["--timesteps", "0,300", "500"]
    found = run_json(*words, "--out", "there")
    noises = [NoiseSpec.preset("latent_match", noise_t=t) for t in (0, 300, 500)]
    want = evaluate_timesteps(vpd.load(refer), tiny.val_scenes(2), noises, progress=False)
    for row, one, result in zip(found["rows"], want, found["results"], strict=True):
        assert row["t"] == one.protocol["noise"]["noise_t"]
        assert row["mIoU"] == pytest.approx(one.metrics["mIoU"])
        assert row["peak_bytes"] > 1e6
        assert result["metrics"] == pytest.approx(one.metrics)
    assert found["files"] == [f"there/timesteps.{end}" for end in ("jsonl", "md", "png")]
    lines = (desk / "there/timesteps.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == found["rows"]
    code, out, _ = run(*words)
    assert code == 0
    assert "|   t | P@0.5 | P@0.6 | P@0.7 | P@0.8 | P@0.9 | " in out
    assert sorted(path.name for path in desk.iterdir()) == ["image.png", "there"]


def test_several_processes_answer_once(run_json, refer, tmp_path):
    words = ["evaluate", "--model", refer, "--limit", "6", "--batch", "8", "--text-blind"]
    words += ["--protocol", "latent_match", "--timesteps", "0,300", "--json"]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, "-m", "vpd.cli", *words, "--out", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found, want = json.loads(done.stdout), run_json(*words[:-1])
    for one, other in zip(found["results"], want["results"], strict=True):
        assert one["metrics"] == pytest.approx(other["metrics"], abs=1e-6)
        assert one["protocol"] == other["protocol"]
    assert len((tmp_path / "timesteps.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--timesteps", "5"], "timesteps needs a protocol"),
        (["--timesteps", "5", "--t", "3", "--protocol", "pixel"], "leave them or timesteps out"),
        (["--timesteps", "5,1000", "--protocol", "pixel"], "0..999"),
        (["--timesteps", "5,x", "--protocol", "pixel"], "timesteps"),
    ],
)
def test_requests_that_contradict_themselves(refused, refer, words, message):
    assert message in refused("evaluate", "--model", refer, "--limit", "1", *words)


def test_an_empty_list_of_timesteps(refused, desk, refer):
    (desk / "a.yaml").write_text(f"model: {refer}\nprotocol: pixel\ntimesteps: []\n")
    assert "one at least, got none" in refused("evaluate", "--config", "a.yaml")


def test_probe(run_json, run, desk, models):
    model = str(models / "foundation")
    words = ["probe", "--model", model, "--limit", 2, "--timesteps", "100,500"]
    found = run_json(*words)
    network = vpd.load(model)
    noises = [
        NoiseSpec.preset("latent_match", noise_t=t, latent_scale=own_noise(network).latent_scale)
        for t in (100, 500)
    ]
    want = similarity(network, tiny.val_scenes(2), noises, progress=False)
    for row, one in zip(found["rows"], want.records(), strict=True):
        assert row == pytest.approx(one)
    assert found["protocol"]["model"] == model
    assert all((desk / path).exists() for path in found["files"])
    assert cv2.imread("vpd-out/similarity.cosine.png") is not None
    code, out, _ = run(*words, "--strides", "2")
    assert code == 0
    assert "relative L2" in out
    assert "words, stride 2" in out


def test_lists_of_numbers_may_have_commas():
    def look(text: str, *, steps: list[int] | None = None, names: list[str] | None = None) -> None:
        """Looks."""

    values, _ = parse("look", look, ["3,4", "--steps=1,2", "3", "--names", "a,b", "c"])
    assert values == {"text": "3,4", "steps": [1, 2, 3], "names": ["a,b", "c"]}
