"""``vpd train semantic`` and ``panoptic``, killed with SIGKILL and started again, end with the
weights and the curve of a run that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from dense_toys import curve, recipe, weights, write_foundation
from panoptic_toys import HEAD

from vpd.data.tabletop.panoptic_layouts import write_coco_panoptic
from vpd.data.tabletop.picture_layouts import write_ade20k

pytest.importorskip("lightning")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]


TASKS = {
    "semantic": ("ade20k", write_ade20k, {"channels": 8}),
    "panoptic": ("coco-panoptic", write_coco_panoptic, {**HEAD, "points": 64}),
}


@pytest.fixture(params=TASKS)
def task(request) -> str:
    return request.param


@pytest.fixture
def base(task, tmp_path) -> dict:
    name, write, own = TASKS[task]
    write(tmp_path / "data", ["train", "val"], {"train": 8, "val": 4}, progress=False)
    fields = recipe(write_foundation(tmp_path / "foundation"), tmp_path / "cache")
    data = {"name": name, "root": str(tmp_path / "data"), "limit": None}
    loop = {"steps": 40, "log_every": 5, "val_every": 25, "checkpoint_every": 10}
    changes = {"augment": "full", **own}
    return fields | changes | {"data": fields["data"] | data, "loop": fields["loop"] | loop}


def start(task: str, base: dict, out: Path) -> subprocess.Popen:
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({**base, "out": str(out)}))
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "vpd.cli", "train", task, "--config", str(config)],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )


def test_a_killed_run_ends_as_one_that_was_left_alone(task, base, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(task, base, whole).wait(timeout=300) == 0, whole.with_suffix(".log").read_text()
    process = start(task, base, killed)
    deadline = time.monotonic() + 300
    try:
        while not (killed / "last.ckpt").exists():
            assert process.poll() is None, killed.with_suffix(".log").read_text()
            assert time.monotonic() < deadline, "no checkpoint"
            time.sleep(0.002)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "model").exists(), "killed too late to test anything"
    assert start(task, base, killed).wait(timeout=300) == 0, killed.with_suffix(".log").read_text()
    one, other = weights(whole), weights(killed)
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key
    assert set(curve(killed, "loss")) <= set(curve(whole, "loss"))
    assert curve(killed, "loss")[-1] == curve(whole, "loss")[-1]
