"""The documented commands at reduced length, from nothing: every part of the recipe learns."""

from __future__ import annotations

import csv
import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
ROOT = Path(__file__).parents[2]
# A narrower model, little data, few steps; all else is what the shipped configs say.
PRETRAIN = shlex.split("""
    --scenes 300 --captions_per_scene 4 --model.unet.model_channels 16 --model.vae.ch 16
    --vae.loop.steps 80 --vae.loop.warmup 5 --vae.loop.val_every 10
    --denoiser.loop.steps 80 --denoiser.loop.warmup 5 --denoiser.loop.log_every 5
    --denoiser.loop.val_every 80 --denoiser.loop.ema 0.9 --denoiser.val_scenes 32
    --contrastive.loop.steps 80 --contrastive.loop.batch 32 --contrastive.loop.warmup 5
    --contrastive.loop.val_every 80 --contrastive.loop.log_every 10
""")
SCENES = 4  # so few that a short training can learn them
TRAIN = shlex.split(f"""
    --data.split train --data.limit {SCENES} --data.val_limit {SCENES} --loop.lr 2e-3
    --loop.warmup 5 --loop.val_every 1000 --loop.ema 0.9
""")

pytestmark = pytest.mark.slow


def vpd(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "vpd.cli", *words, "--json"],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def curve(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The folder of a run of `vpd pretrain`, and what the command answered."""
    out = tmp_path_factory.mktemp("recipe") / "pretrain"
    config = "configs/pretrain/mini.yaml"
    found = vpd("pretrain", "--config", config, "--out", str(out), "--progress=false", *PRETRAIN)
    return out, found["metrics"]


def test_the_autoencoder_learns(pretrained):
    out, metrics = pretrained
    start = curve(out / "vae", "psnr")[0]
    assert metrics["psnr"] > start + 2  # dB


def test_the_denoiser_learns(pretrained):
    out, metrics = pretrained
    losses = curve(out / "denoiser", "loss")
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    # An untrained U-Net predicts no noise at all (its last layer is zero): its error is 1.
    assert metrics["loss/t500"] < 0.5
    assert metrics["loss/t900"] < 0.5


def test_the_image_encoder_learns(pretrained):
    out, _ = pretrained
    losses = curve(out / "contrastive", "loss")
    assert sum(losses[-3:]) / 3 < math.log(32) - 0.05  # what guessing in a batch of 32 costs


def scores(pretrained: Path, out: Path, steps: int) -> dict[str, float]:
    """Trains on a few scenes for some steps; scores on the same scenes."""
    words = ["train", "--config", "configs/refer/mini.yaml", "--out", str(out), "--progress=false"]
    vpd(*words, "--foundation", str(pretrained / "model"), "--loop.steps", str(steps), *TRAIN)
    words = ["--split", "train", "--limit", str(SCENES)]
    return vpd("evaluate", "--model", str(out / "model"), *words)["metrics"]


def test_the_segmenter_learns(pretrained, tmp_path):
    start = scores(pretrained[0], tmp_path / "start", 1)
    end = scores(pretrained[0], tmp_path / "end", 260)
    assert start["n"] == end["n"] > 10
    assert end["oIoU"] > start["oIoU"] + 10
