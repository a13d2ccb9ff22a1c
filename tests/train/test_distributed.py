"""Two processes train as one does: the same curve, the same scores; batches taken in parts have the
gradients of the whole."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from processes import TIMEOUT_SECONDS, start
from toys import TOY, recipe, write_foundation

import vpd
from vpd.cli.parser import read
from vpd.data.refer import ReferDataset
from vpd.data.tabletop.layout import write_refer
from vpd.tasks.evaluate import evaluate_refer

pytest.importorskip("lightning")
from vpd.models.autoencoder import AutoencoderKL
from vpd.tasks.foundation import Foundation
from vpd.train import refer
from vpd.train.distributed import Processes, _name_as_torchrun_does, alone, group, join, present
from vpd.train.loop.config import LoopConfig
from vpd.train.loop.fit import fit
from vpd.train.loop.parts import Shares
from vpd.train.pretrain.contrastive import ContrastiveStage
from vpd.train.pretrain.denoiser import DenoiserStage, DenoiserTraining
from vpd.train.pretrain.vae import VAEStage, VAETraining
from vpd.train.refer.footprint import _batch
from vpd.train.refer.model import empty_model
from vpd.train.refer.table import ReferTable, dataset_refs
from vpd.train.refer.training import ReferTraining

ROOT = Path(__file__).parents[2]
SPLITS = {"train": 5, "val": 5}
# Adam's first steps turn the rounding of tiny gradients into differences of the size of the rate: a
# batch whose rows change places is as far from itself after this as two processes are from one.
LOOP = {"steps": 6, "batch": 4, "lr": 2e-4, "clip": None, "val_every": 3}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> dict[str, Any]:
    """Fields of a run of a few steps on a few scenes that lie on disk."""
    folder = tmp_path_factory.mktemp("distributed")
    write_refer(folder / "data", list(SPLITS), SPLITS, workers=1, progress=False)
    fields = recipe(write_foundation(folder / "foundation"), folder / "cache")
    data = {"root": str(folder / "data"), "split": "train", "val_split": "val"}
    fields["data"] |= {**data, "limit": None}
    fields["loop"] = {**fields["loop"], **LOOP}
    return {**fields, "progress": False, "eval_batch": 6}


RUNS = ("whole", "passes", "cached", "fresh")


def run(name: str, base: dict[str, Any], out: Path) -> dict[str, float]:
    """What is run by one process, and by two."""
    accumulated = {**base["loop"], "micro_batch": 2 // present().count}
    frozen = {"freeze": "unet", "text_adapter": False, "select": "best"}
    fresh = {"protocol": "pixel", "t": 300, "fresh_noise": True}
    change = {"whole": {}, "passes": {"loop": accumulated}, "cached": frozen, "fresh": fresh}[name]
    with pytest.MonkeyPatch.context() as patch:  # takes longer than such a run
        patch.setattr(refer, "footprint", lambda config: SimpleNamespace(table=lambda: ""))
        return refer.train(read(refer.ReferTrainConfig, {**base, "out": str(out / name), **change}))


def run_score_and_fail(base: dict[str, Any], out: Path, model: Path) -> None:
    """Trains, scores a model that is there already, and begins a training that one of the
    processes does not survive."""
    found: dict[str, Any] = {name: run(name, base, out) for name in RUNS[1:]}
    found |= {"scores": score(model, base), "processes": vars(present())}
    torch.save(found, out / f"{present().rank}.pt")
    if present().rank == 1:
        ReferTraining.losses = fails_at_step_2(ReferTraining.losses)
    run("whole", base, out / "failed")


def fails_at_step_2(losses):
    def failing(self, step, rows):
        if step == 2:
            raise RuntimeError("power cut")
        return losses(self, step, rows)

    return failing


def score(model: Path, base: dict[str, Any]) -> dict[str, float]:
    data = ReferDataset(base["data"]["root"], "tabletop", split="val")
    options = {"batch": 6, "text_blind": True, "progress": False, "group": group()}
    return evaluate_refer(vpd.load(model), data, **options).metrics


@pytest.fixture(scope="module")
def by_one(base, tmp_path_factory):
    """Folder and metrics of all runs."""
    folder = tmp_path_factory.mktemp("one")
    return folder, {name: run(name, base, folder) for name in RUNS}


@pytest.fixture(scope="module")
def by_two(base, by_one, tmp_path_factory):
    """Folder and results of two processes, and how they ended."""
    folder = tmp_path_factory.mktemp("two")
    arguments = (base, folder, by_one[0] / "whole" / "model")
    processes = start(run_score_and_fail, folder, *arguments)
    for process in processes:
        process.join(TIMEOUT_SECONDS)
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return folder, found, [process.exitcode for process in processes]


def curve(folder: Path) -> dict[tuple[float, bool], dict[str, float]]:
    """Rows of the log by step and whether they are of the training, not of a validation."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return {(row["step"], "loss" in row): row for row in rows}


def gradients(folder: Path) -> torch.Tensor:
    """Adam's running mean of them; unlike Adam's steps it knows their scale."""
    state = torch.load(folder / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    return torch.cat([state[i]["exp_avg"].flatten() for i in sorted(state)])


def assert_same_training(one: Path, other: Path, killed: bool = False) -> None:
    curves = curve(one), curve(other)
    # Killed right behind a checkpoint, a run may not have logged that step yet.
    lacking = {(step, True) for step in (1, 3)} if killed else set()
    assert set(curves[0]) - lacking <= set(curves[1]) <= set(curves[0])
    for place, row in curves[1].items():
        if "loss" in row:
            assert row["loss"] == pytest.approx(curves[0][place]["loss"], rel=1e-4)
        else:  # scores of masks whose logits agree to rounding
            assert row == pytest.approx(curves[0][place], abs=0.1)
    mean, other_mean = gradients(one), gradients(other)
    assert float((mean - other_mean).norm() / mean.norm()) < 0.01
    a, b = (vpd.weights.read_state_dict(f / "model" / "model.safetensors")[0] for f in (one, other))
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key].float(), b[key].float(), rtol=2e-3, atol=1e-3, msg=key)


def files(folder: Path) -> set[Path]:
    """All but TensorBoard's, which have the time in their name."""
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if path.parts[0] != "tensorboard"}


@pytest.mark.parametrize("name", RUNS[1:])
def test_two_processes_train_as_one(by_one, by_two, name):
    (one, metrics), (two, (first, second), _) = by_one, by_two
    assert_same_training(one / name, two / name)
    assert first[name] == second[name]
    assert first[name] == pytest.approx(metrics[name], abs=0.1)
    assert files(two / name) == files(one / name) >= {Path("metrics.csv"), Path("last.ckpt")}
    assert len(list((two / name).rglob("events.out*"))) == 1


def test_one_that_fails_leaves_no_other_waiting(by_two):
    two, _, codes = by_two
    assert codes == [1, 1]
    assert (two / "failed").exists()
    assert not (two / "failed" / "whole" / "model").exists()


def test_batch_norms_see_micro_batches(by_one):
    one, _ = by_one
    whole, passes = curve(one / "whole"), curve(one / "passes")
    # Statistics of 2 rows instead of 4: another training, close by.
    losses = [(row["loss"], passes[k]["loss"]) for k, row in whole.items() if "loss" in row]
    assert any(a != pytest.approx(b, rel=1e-4) for a, b in losses)
    assert all(a == pytest.approx(b, rel=0.3) for a, b in losses)


def test_scores_of_two_processes_are_those_of_one(by_one, by_two, base):
    scores = score(by_one[0] / "whole" / "model", base)
    assert scores["n"] == scores["text_blind/n"] > 10
    assert "pick" in scores
    for rank, own in enumerate(by_two[1]):
        assert own["scores"] == pytest.approx(scores, abs=1e-6)
        assert own["processes"] == {"count": 2, "rank": rank}


def test_parts_of_a_batch_add_up_to_it(base):
    """Where no batch norm stands in between: loss and gradients of the whole batch."""
    fields = {**base, "out": "unused", "together": 2, "dice_weight": 0.3, "train_text": True}
    config = read(refer.ReferTrainConfig, fields)
    model = refer.build(config)
    data = ReferDataset(base["data"]["root"], "tabletop", split="train")
    images = sorted({ref.image_id for ref in data.refs})
    refs = list(dataset_refs(data, images))
    table = ReferTable(model, map(data.image, images), refs, 8, seed=0, together=2)
    module = ReferTraining(model, config, table)
    model.eval()

    def step(shares: list[Shares]) -> tuple[float, list[torch.Tensor]]:
        module.zero_grad()
        total = 0.0
        for share in shares:
            for number in range(share.passes):
                loss = module.losses(5, share.part(number))["loss"]
                loss.backward()
                total += float(loss)
        return total, [p.grad for p in module.parameters() if p.grad is not None]

    loss, grads = step([Shares(8)])
    batch = table.draw(5)
    logits = model.decode(module.features(batch), (128, 128))
    want = vpd.losses.weighted_cross_entropy(logits, batch.masks, config.class_weights)
    want = want + 0.3 * vpd.losses.dice_loss(logits, batch.masks)
    assert loss == pytest.approx(float(want), rel=1e-6)
    divided = [[Shares(8, 1)], [Shares(8, 2, Processes(2, rank)) for rank in range(2)]]
    for shares in divided:
        in_parts, grads_of_parts = step(shares)
        assert in_parts == pytest.approx(loss, rel=1e-5)
        for got, grad in zip(grads_of_parts, grads, strict=True):
            torch.testing.assert_close(got, grad, rtol=1e-3, atol=1e-6)


def test_parts_of_an_autoencoders_batch_add_up_to_it():
    scenes = torch.randint(256, (6, 128, 128, 3), dtype=torch.uint8).numpy()
    split: Any = SimpleNamespace(images=scenes)
    stage = VAEStage(loop=LoopConfig(batch=4, micro_batch=1), crop=32)
    module = VAETraining(AutoencoderKL(TOY.vae), stage, split, split, seed=0)
    whole = module.losses(3, slice(0, 4))
    parts = [module.losses(3, module.shares.part(number)) for number in range(4)]
    for name, value in whole.items():
        assert float(sum(part[name] for part in parts)) == pytest.approx(float(value), rel=1e-5)


def test_a_footprint_is_of_one_pass(base):
    fields = {**base, "together": 4, "loop": {**base["loop"], "batch": 8, "micro_batch": 2}}
    config = read(refer.ReferTrainConfig, fields)
    batch = _batch(config, empty_model(config).config)
    assert (len(batch.masks), len(batch.latents), batch.whole_rows) == (2, 1, 8)


def test_passes_of_a_network_without_batch_norm_change_nothing(tmp_path):
    """Through the Trainer: curves and weights of the diffusion stage."""
    found = []
    for micro_batch in (None, 2):
        torch.manual_seed(1)
        model = Foundation(TOY)
        loop = LoopConfig(
            steps=3, batch=6, micro_batch=micro_batch, warmup=1, lr=1e-3, ema=0.5, precision="32",
            log_every=1, val_every=100, checkpoint_every=2,
        )  # fmt: skip
        data = torch.randn(9, 4, 32, 32), torch.randint(256, 300, (9, 2, 24)), torch.zeros(24)
        stage = DenoiserStage(loop=loop)
        training = DenoiserTraining(model.text, model.unet, stage, *data, probe=None, seed=0)
        fit(training, loop, tmp_path / str(micro_batch), progress=False)
        found.append((curve(tmp_path / str(micro_batch)), model.unet.state_dict()))
    (rows, weights), (rows_of_passes, weights_of_passes) = found
    assert rows.keys() == rows_of_passes.keys()
    for place, row in rows.items():
        assert row == pytest.approx(rows_of_passes[place], rel=1e-4)
    for key, value in weights.items():
        torch.testing.assert_close(weights_of_passes[key], value, rtol=1e-3, atol=1e-4, msg=key)


def test_shares_cover_a_batch_once():
    for count, micro_batch in ((1, None), (1, 3), (2, None), (3, 2), (4, 3)):
        rows = []
        for rank in range(count):
            shares = Shares(12, micro_batch, Processes(count, rank))
            for number in range(shares.passes):
                part = list(range(12))[shares.part(number)]
                assert len(part) == shares.rows == (micro_batch or 12 // count)
                rows += part
        assert sorted(rows) == list(range(12))


def test_what_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="among 2 processes, got batch=5"):
        Shares(5, None, Processes(2))
    with pytest.raises(ValueError, match="among 2 processes in passes of micro_batch=2, got batch"):
        Shares(6, 2, Processes(2))
    with pytest.raises(ValueError, match="1 process in passes of micro_batch=3, got batch=16"):
        LoopConfig(micro_batch=3)
    with pytest.raises(ValueError, match="micro_batch must be at least 1, got 0"):
        LoopConfig(micro_batch=0)
    with pytest.raises(ValueError, match="takes no micro_batch"):
        ContrastiveStage(loop=LoopConfig(micro_batch=4))


def test_processes_are_found_in_the_environment(monkeypatch):
    slurm = {
        "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1",
        "SLURM_NODEID": "2", "SLURM_JOB_ID": "1234567", "SLURM_STEP_ID": "3",
    }  # fmt: skip
    for nodes, head in (
        ("gpu[03-07,12]", "gpu03"),
        ("gpu07", "gpu07"),
        ("a1,b2", "a1"),
        ("rack-1-node[9,11].site", "rack-1-node9"),
    ):
        found = {**slurm, "SLURM_STEP_NODELIST": nodes}
        _name_as_torchrun_does(found)
        assert found["MASTER_ADDR"] == head
        assert (found["RANK"], found["LOCAL_RANK"], found["WORLD_SIZE"]) == ("5", "1", "8")
        assert 20_000 <= int(found["MASTER_PORT"]) < 30_000
    with join() as processes:  # nothing of the kind here
        assert processes == Processes(1, 0)
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="pre-training runs in one process, got 8"):
        alone("pre-training")


def torchrun(config: Path, log: Path) -> subprocess.Popen:
    words = ["--standalone", "--nproc-per-node", "2", "-m", "vpd.cli", "train"]
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *words, "--config", str(config)],
            stdout=file,
            stderr=file,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_killed_and_started_again(by_one, base, tmp_path):
    """``torchrun -m vpd.cli train``, one process of which dies within the training: the same as
    one process that lives."""
    one, _ = by_one
    out, log, config = tmp_path / "run", tmp_path / "log", tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**base, "out": str(out)}))
    running = torchrun(config, log)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        while not (out / "last.ckpt").exists():
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.002)
        os.kill(children(running.pid)[-1], signal.SIGKILL)
        assert running.wait(TIMEOUT_SECONDS) != 0
    finally:
        running.kill()
    assert not (out / "model").exists(), "killed too late to test anything"
    assert torchrun(config, log).wait(TIMEOUT_SECONDS) == 0, log.read_text()
    assert_same_training(one / "whole", out, killed=True)
    assert log.read_text().count("wrote ") == 1
