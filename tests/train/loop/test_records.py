"""Checkpoints and curves of a run that may be killed at any moment."""

from __future__ import annotations

import csv

import pytest
import torch

pytest.importorskip("lightning")
from vpd.train.loop.records import Curves, WholeCheckpoints


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def test_curves_are_whole_after_every_row(tmp_path):
    curves = Curves(tmp_path)
    curves.log_metrics({"loss": torch.tensor(0.5)}, 4)
    assert rows(tmp_path) == [{"loss": 0.5, "step": 4}]
    curves.log_metrics({"psnr": 20.0, "epoch": 0}, 4)
    assert rows(tmp_path)[1] == {"psnr": 20, "epoch": 0, "step": 4}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_resumed_run_carries_its_curves_on(tmp_path):
    first = Curves(tmp_path)
    for step in (4, 9, 14, 19):
        first.log_metrics({"loss": step}, step)
    second = Curves(tmp_path)  # from a checkpoint of step 10
    assert len(rows(tmp_path)) == 4  # nothing is lost before there is something to log
    for step in (14, 19, 24):
        second.log_metrics({"loss": -step, "rate": 1}, step)
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [4, 9, 14, 19, 24]
    assert [row["loss"] for row in found] == [4, 9, -14, -19, -24]
    assert "rate" not in found[0]


class PowerCut(Exception):
    pass


def cut(self, *args):
    raise PowerCut


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    store = WholeCheckpoints()
    store.save_checkpoint({"step": 1}, path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut)
        with pytest.raises(PowerCut):
            store.save_checkpoint({"step": 2}, path)
    assert store.load_checkpoint(path, weights_only=True) == {"step": 1}
    # What a process killed while writing leaves behind goes with the next checkpoint.
    (tmp_path / ".last.ckpt.abc.tmp").write_bytes(b"half")
    store.save_checkpoint({"step": 3}, path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    assert store.load_checkpoint(path, weights_only=True) == {"step": 3}
