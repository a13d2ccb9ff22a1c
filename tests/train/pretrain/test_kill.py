"""``vpd pretrain`` killed with SIGKILL in each stage and started again ends with the very weights,
metrics and curves of a run that was left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from vpd.weights import read_state_dict

pytest.importorskip("lightning")
ROOT = Path(__file__).parents[3]
STAGES = ("vae", "contrastive", "denoiser")
LOOP = {
    "steps": 40, "batch": 2, "warmup": 2, "log_every": 5, "val_every": 25, "checkpoint_every": 10,
}  # fmt: skip
# Small enough that a step takes milliseconds; from a checkpoint to the end there are many of them.
TOY = {
    "scenes": 16,
    "captions_per_scene": 2,
    "workers": 1,
    "progress": False,
    "model": {
        "unet": {
            "model_channels": 8, "channel_mult": [1, 2], "num_res_blocks": 1, "num_heads": 2,
            "attention_resolutions": [2], "context_dim": 16, "norm_groups": 4,
        },
        "vae": {
            "ch": 4, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "norm_groups": 4,
            "mid_attention": False,
        },
        "text": {
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        "clip": {
            "text": {
                "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
                "num_attention_heads": 2, "projection_dim": 8,
            },
            "image": {
                "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
                "num_attention_heads": 2, "image_size": 128, "patch_size": 32, "projection_dim": 8,
            },
            "token_length": 64,
        },
        "image_size": 128,
        "token_length": 64,
    },
    "vae": {"loop": LOOP},
    "denoiser": {"loop": {**LOOP, "ema": 0.9}, "val_scenes": 8},
    "contrastive": {"loop": LOOP},
}  # fmt: skip


def start(out: Path) -> subprocess.Popen:
    out.mkdir(exist_ok=True)
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(TOY))
    words = ["pretrain", "--config", str(config), "--out", str(out)]
    with (out.with_suffix(".log")).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "vpd.cli", *words],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )


def run_to_the_end(out: Path) -> None:
    assert start(out).wait(timeout=300) == 0, out.with_suffix(".log").read_text()


def kill_within(out: Path, stage: str) -> None:
    """Runs until the stage has written a checkpoint, then ends the process without warning."""
    process = start(out)
    deadline = time.monotonic() + 300
    try:
        while not (out / stage / "last.ckpt").exists():
            assert process.poll() is None, out.with_suffix(".log").read_text()
            assert time.monotonic() < deadline, f"no checkpoint of stage {stage}"
            time.sleep(0.002)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (out / stage / "weights.safetensors").exists(), "killed too late to test anything"


def assert_same_run(one: Path, other: Path) -> None:
    files = [Path("model/model.safetensors")]
    files += [Path(stage) / "weights.safetensors" for stage in STAGES]
    for file in files:
        a, b = (read_state_dict(folder / file)[0] for folder in (one, other))
        assert a.keys() == b.keys()
        different = [key for key in a if not torch.equal(a[key], b[key])]
        assert not different, f"{file}: {different[:3]}"
    cards = [json.loads((folder / "model" / "config.json").read_text()) for folder in (one, other)]
    assert cards[0] == cards[1]
    for stage in STAGES:
        rows, others = (
            (folder / stage / "metrics.csv").read_text().split() for folder in (one, other)
        )
        # Killed right behind a checkpoint, a run may not have logged that step yet.
        lacking = [int(row.rsplit(",", 1)[1]) + 1 for row in rows if row not in others]
        assert others == [row for row in rows if row in others]
        assert len(lacking) <= 1
        assert all(step % LOOP["checkpoint_every"] == 0 for step in lacking)


def forget_results(out: Path, stage: str) -> None:
    """Makes a finished stage one that was killed behind its last step: all steps are done and
    checkpointed, what follows from them is not on disk yet."""
    for name in ("weights.safetensors", "metrics.json"):
        (out / stage / name).unlink()
    (out / stage / "latents.safetensors").unlink(missing_ok=True)


def test_killed_in_every_stage(tmp_path):
    """Within each stage, and between its last step and its results."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_to_the_end(whole)
    for stage in STAGES:
        kill_within(killed, stage)
    for stage in STAGES[:-1]:
        forget_results(killed, stage)
    run_to_the_end(killed)
    assert_same_run(whole, killed)
