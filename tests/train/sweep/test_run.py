"""A grid of trainings: its cells, who runs them, what is left when it is interrupted."""

from __future__ import annotations

import csv
import fcntl
import json
import re
import shlex
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import scipy.stats
import yaml
from toys import few_scenes, recipe, write_foundation

import vpd
from vpd.cli import main
from vpd.data import tabletop
from vpd.data.tabletop.layout import write_refer
from vpd.protocol import NoiseSpec
from vpd.tasks.evaluate import evaluate_refer

pytest.importorskip("lightning")
from vpd.train.refer.config import ReferTrainConfig
from vpd.train.refer.training import ReferTraining
from vpd.train.sweep import cell as sweep_cell
from vpd.train.sweep import launchers
from vpd.train.sweep.grid import Choice, Picture, SweepConfig, Variant, cells_of, chosen, values_of
from vpd.train.sweep.inference import Inference, evaluate_under
from vpd.train.sweep.results import course, table
from vpd.train.sweep.run import sweep

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module", autouse=True)
def _six_val_scenes():
    with few_scenes():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("sweep")
    return recipe(write_foundation(folder / "foundation"), folder / "cache")


@pytest.fixture
def grid(base, tmp_path) -> SweepConfig:
    return SweepConfig(
        out=str(tmp_path / "sweep"),
        set=base,
        axes={
            "training": {
                "frozen": Choice({"freeze": "unet", "text_adapter": False}),
                "tuned": Choice({}, seeds=(0, 1)),
            },
            "data.limit": [3, 4],
        },
        variants={"no-maps": Variant({"training": "tuned"}, {"attention": []}, (7,))},
        columns=("oIoU", "pick"),
        pictures={
            "scenes": Picture(("training",), x="data.limit", log_x=True),
            "steps": Picture(("training",), at={"data.limit": "4"}),
        },
    )


@pytest.fixture
def quick(monkeypatch):
    """Training replaced by a note of what was asked for."""
    asked = []

    def train(config):
        asked.append(Path(config.out).name)
        return {"oIoU": 10.0 * config.data.limit + config.seed, "pick": 1.0}

    monkeypatch.setattr(sweep_cell, "train", train)
    return asked


NAMES = [
    "frozen-3-s0", "frozen-4-s0", "tuned-3-s0", "tuned-3-s1", "tuned-4-s0", "tuned-4-s1",
    "no-maps-s7",
]  # fmt: skip


def test_cells_are_all_combinations_and_the_variants(grid):
    cells = {cell.name: cell for cell in cells_of(grid)}
    assert list(cells) == NAMES
    one = cells["frozen-4-s0"]
    assert one.choices == {"training": "frozen", "data.limit": "4"}
    assert one.overrides == {"freeze": "unet", "text_adapter": False, "data.limit": 4}
    config = one.config
    assert (config.freeze, config.text_adapter, config.data.limit) == ("unet", False, 4)
    assert (config.loop.steps, config.loop.ema, config.seed) == (4, 0.5, 0)
    other = cells["no-maps-s7"].config
    assert (other.attention, other.data.limit, other.seed) == ((), 4, 7)
    assert [c.name for c in chosen(list(cells.values()), ["tuned-*-s1", "no-*"])] == [
        "tuned-3-s1", "tuned-4-s1", "no-maps-s7",
    ]  # fmt: skip


def test_a_field_replaces_what_contains_it(base):
    config = SweepConfig(
        set={**base, "noise": None}, axes={"noise.noise_t": [0, 300]},
        variants={"plain": Variant({"noise.noise_t": "300"}, {"noise": None})},
    )  # fmt: skip
    told = [cell.config.noise for cell in cells_of(config)]
    assert [noise and noise.noise_t for noise in told] == [0, 300, None]


def test_a_base_file_lies_below_the_fields_of_the_sweep(tmp_path):
    (tmp_path / "base.yaml").write_text("hidden: 5\nloop: {steps: 7, lr: 5e-4}\n")
    config = SweepConfig(base=str(tmp_path / "base.yaml"), set={"loop.steps": 8})
    (cell,) = cells_of(config)
    assert (cell.name, cell.config.hidden, cell.config.loop.steps) == ("base-s0", 5, 8)
    assert cell.config.loop.lr == 5e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"set": {"hidde_n": 3}}, "'hidde_n' is not accepted; did you mean 'hidden'"),
        ({"axes": {"a": {"b": Choice({"loop.stps": 3})}}}, "cell b: .*did you mean 'steps'"),
        ({"axes": {"loop.steps": [1, "many"]}}, 'cell many: option "loop.steps"'),
        ({"axes": {"loop.steps": [1, 0]}}, "cell 0: steps must be at least 1"),
        ({"axes": {"hidden": ["4", 4]}, "variants": {"4": Variant()}}, "named '4-s0'"),
        ({"axes": {"seed": [1, 2]}}, "cell 1: 'seed' is decided by the sweep"),
        ({"set": {"out": "here"}}, "set: 'out' is decided by the sweep"),
        (
            {"variants": {"v": Variant({"training_": "x"})}},
            "v.at: unknown axis 'training_'; did you",
        ),
        ({"variants": {"v": Variant({"training": "frosen"})}}, "choice 'frosen'; did you mean"),
        ({"pictures": {"p": Picture(x="limit")}}, "pictures.p: unknown axis 'limit'; did you mean"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_mistakes_are_named_before_any_cell_runs(grid, quick, change, message):
    with pytest.raises((ValueError, OSError), match=message):
        sweep(replace(grid, **{"pictures": {}, "variants": {}, **change}))
    assert quick == []


def test_only_what_is_not_finished_runs(grid, quick):
    assert set(sweep(grid, dry_run=True).cells.values()) == {"waiting"}
    assert not Path(grid.out).exists()
    part = sweep(grid, cells=["tuned-3-*"])
    assert quick == ["tuned-3-s0", "tuned-3-s1"]
    assert [name for name, state in part.cells.items() if state == "finished"] == quick
    whole = sweep(grid)
    assert sorted(quick) == sorted(NAMES)
    assert set(whole.cells.values()) == {"finished"}
    sweep(grid)
    assert len(quick) == len(NAMES)


def test_results_are_rows_a_table_and_pictures(grid, quick):
    report = sweep(grid)
    rows = [json.loads(line) for line in (Path(grid.out) / "results.jsonl").open()]
    assert rows == report.rows
    with open(Path(grid.out) / "results.csv", newline="") as file:
        assert [row["cell"] for row in csv.DictReader(file)] == NAMES
    assert [row["cell"] for row in rows] == NAMES
    row = rows[3]
    assert (row["training"], row["data.limit"], row["variant"]) == ("tuned", "3", "")
    assert row["seed"] == 1
    assert (row["set.data.limit"], row["oIoU"]) == (3, 31.0)
    assert "seconds" in row
    lines = (Path(grid.out) / "table.md").read_text().splitlines()
    assert lines[0] == "| training | data.limit | variant | oIoU | pick | seeds | minutes |"
    assert lines[2].startswith("| frozen | 3 |  | 30.00 | 1.00 | 1 |")
    spread = statistics.stdev([30.0, 31.0])
    assert lines[4].startswith(f"| tuned | 3 |  | 30.50 ± {spread:.2f} | 1.00 ± 0.00 | 2 |")
    assert (Path(grid.out) / "scenes.png").read_bytes()[:4] == b"\x89PNG"
    assert "-" in table(replace(grid, columns=("oIoO",)), rows)


def test_the_confidence_interval_is_student_s(grid, quick):
    grid = replace(grid, seeds=(0, 1, 2), axes={"data.limit": [3]}, variants={}, pictures={})
    rows = sweep(grid).rows
    values = [row["oIoU"] for row in rows]
    with open(Path(grid.out) / "summary.csv", newline="") as file:
        found = next(csv.DictReader(file))
    assert (found["data.limit"], found["metric"], found["seeds"]) == ("3", "oIoU", "3")
    test = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert float(found["low"]) == pytest.approx(test.low)
    assert float(found["high"]) == pytest.approx(test.high)


def test_a_range_is_a_list(base):
    assert values_of("t", "0 to 500 by 100") == [0, 100, 200, 300, 400, 500]
    assert values_of("lr", "0.1 to 0.5 by 0.2") == pytest.approx([0.1, 0.3, 0.5])
    config = SweepConfig(set={**base, "protocol": "latent_match"}, axes={"t": "0 to 9 by 5"})
    assert [cell.config.t for cell in cells_of(config)] == [0, 5]
    for text in ("0 to 500", "0 to 500 by 0", "5 to 0 by 1", "1.2.3 to 4 by 1"):
        with pytest.raises(ValueError, match="axis t: expected '<start> to <stop> by <step>'"):
            values_of("t", text)


def test_one_failed_cell_does_not_stop_the_others(grid, quick, monkeypatch):
    train = sweep_cell.train

    def fails(config):
        if config.seed == 1:
            raise ValueError("no such luck")
        return train(config)

    monkeypatch.setattr(sweep_cell, "train", fails)
    report = sweep(grid)
    assert report.failed.keys() == {"tuned-3-s1", "tuned-4-s1"}
    assert "no such luck" in report.failed["tuned-3-s1"]
    assert len(report.rows) == 5
    monkeypatch.setattr(sweep_cell, "train", train)
    assert len(sweep(grid).rows) == 7


def test_a_cell_that_another_process_runs_is_left_to_it(grid, quick):
    folder = Path(grid.out) / "frozen-4-s0"
    folder.mkdir(parents=True)
    with open(folder / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        report = sweep(grid)
        assert report.cells["frozen-4-s0"] == "running"
        assert "frozen-4-s0" not in quick
    assert sweep(grid).cells["frozen-4-s0"] == "finished"


KILLED = """
import fcntl, os, sys
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX)
os.kill(os.getpid(), 9)
"""


def test_the_lock_of_a_killed_process_holds_nobody_up(grid, quick):
    folder = Path(grid.out) / "frozen-4-s0"
    folder.mkdir(parents=True)
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder / "lock")])
    assert done.returncode == -9
    assert sweep(grid).cells["frozen-4-s0"] == "finished"


def test_a_folder_of_another_config_is_refused(grid, quick):
    sweep(grid)
    changed = replace(grid, set={**grid.set, "hidden": 9})
    with pytest.raises(ValueError, match="holds a run with hidden = 8, expected 9"):
        sweep(changed)


def test_an_interrupted_cell_ends_as_an_uninterrupted_one(grid, tmp_path, monkeypatch):
    fields = {**grid.set, "loop.val_every": 2}
    config = replace(grid, set=fields, axes={}, variants={}, pictures={"steps": Picture()})
    sweep(replace(config, out=str(tmp_path / "whole")))
    step = ReferTraining.training_step

    def power_cut(self, batch):
        if self.global_step == 3:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(ReferTraining, "training_step", power_cut)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        sweep(config)
    assert sweep(config, dry_run=True).cells == {"base-s0": "interrupted"}
    monkeypatch.setattr(ReferTraining, "training_step", step)
    report = sweep(config)
    assert report.rows[0]["resumed"]
    path = Path("base-s0", "model", "model.safetensors")
    a = vpd.weights.read_state_dict(tmp_path / "whole" / path)[0]
    b = vpd.weights.read_state_dict(Path(config.out) / path)[0]
    for key in a:
        assert (a[key].float() - b[key].float()).abs().max() < 1e-3, key
    steps = [x for x, _ in course(Path(config.out) / "base-s0", "oIoU")]
    assert steps == [2, 4]
    assert (Path(config.out) / "steps.png").exists()


def test_the_command(base, tmp_path, capfd, quick):
    path = tmp_path / "sweep.yaml"
    axes = {"size": {"small": {"set": {"hidden": 4}}, "large": {"set": {"hidden": 8}}}}
    options = {"out": str(tmp_path / "out"), "set": base, "axes": axes, "columns": ["oIoU"]}
    path.write_text(yaml.safe_dump(options))
    words = ["sweep", "--config", str(path)]
    assert main([*words, "--dry-run"]) == 0
    assert "small-s0  4 steps x 2        waiting\n" in capfd.readouterr().out
    assert main([*words, "--cell", "small-*"]) == 0
    assert quick == ["small-s0"]
    assert "2 cells: 1 waiting, 1 finished" in capfd.readouterr().out
    assert main([*words, "--no-run", "--json"]) == 0
    assert [row["size"] for row in json.loads(capfd.readouterr().out)["rows"]] == ["small"]
    assert main([*words, "--cell", "small_s0"]) == 2
    assert "did you mean 'small-s0'?" in capfd.readouterr().err
    path.write_text(yaml.safe_dump({**options, "columns_": []}))
    assert main(words) == 2
    assert "did you mean 'columns'?" in capfd.readouterr().err


CONDITIONS = {
    "0": Inference("latent_match", 0),
    "300": Inference("latent_match", 300),
    "no-adapter": Inference(text_adapter=False),
}


def test_conditions_of_inference_equal_separate_evaluations(grid, tmp_path):
    """Protocol and timestep both at training and afterwards; conditions may come later."""
    fields = {**grid.set, "protocol": "latent_match", "loop.steps": 2}
    pictures = {"inference": Picture(("t",), x="inference")}
    config = replace(grid, set=fields, axes={"t": [0, 300]}, variants={}, pictures=pictures)
    assert {row["inference"] for row in sweep(config).rows} == {""}
    more = replace(config, inference={"0": CONDITIONS["0"], "300": CONDITIONS["300"]})
    assert set(sweep(more, dry_run=True).cells.values()) == {"interrupted"}
    report = sweep(more)
    assert set(report.cells.values()) == {"finished"}
    rows = {(row["t"], row["inference"]): row for row in report.rows}
    assert len(rows) == len(report.rows) == 6
    assert rows["300", "0"]["at.t"] == 0
    for t in ("0", "300"):  # a cell scored as it was trained
        assert rows[t, t]["oIoU"] == pytest.approx(rows[t, ""]["oIoU"], abs=1e-6)
        assert rows[t, t]["mIoU"] == pytest.approx(rows[t, ""]["mIoU"], abs=1e-6)
    assert (Path(config.out) / "inference.png").exists()
    assert "| 300 | 0 |" in report.table

    model = vpd.load(Path(config.out) / "0-s0" / "model")
    twin = vpd.load(Path(config.out) / "0-s0" / "model")
    twin.config = replace(twin.config, text_adapter=False)
    val = tabletop.load_split("val", cache_dir=grid.set["data"]["cache_dir"])
    found = evaluate_under(model, val, CONDITIONS, batch=4, progress=False)
    alone = evaluate_refer(twin, val, progress=False).metrics
    assert found["no-adapter"]["mIoU"] == pytest.approx(alone["mIoU"], abs=1e-6)
    assert list(found) == list(CONDITIONS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"t": 100}, "needs a protocol"),
        ({"protocol": "latent"}, "unknown noise protocol 'latent'"),
        ({"protocol": "latent_match", "t": 1000}, "0..999"),
        ({"protocol": "latent_match", "noise": NoiseSpec()}, "both given"),
    ],
)
def test_protocols_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        ReferTrainConfig(**fields)
    if "noise" not in fields:
        with pytest.raises(ValueError, match=message):
            Inference(**fields)


@pytest.mark.slow
def test_ray_workers_give_the_same_table(grid, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # by itself it lets everything else go first
    # On disk: workers know nothing of patched splits.
    write_refer(
        tmp_path / "data", ("train", "val"), {"train": 4, "val": 3},
        cache_dir=grid.set["data"]["cache_dir"], workers=1, progress=False,
    )  # fmt: skip
    data = {"data.root": str(tmp_path / "data"), "data.split": "train", "data.limit": None}
    fields = {**grid.set, **data, "loop.steps": 2}
    grid = replace(grid, set=fields, axes={"hidden": [4, 8]}, variants={}, pictures={})
    whole = sweep(grid)
    spread = sweep(replace(grid, out=str(tmp_path / "ray")), launcher="ray", workers=2)
    assert not spread.failed
    assert set(spread.cells.values()) == {"finished"}
    strip = re.compile(r"\| [\d.]+ \|$", re.MULTILINE)  # minutes
    assert strip.sub("", spread.table) == strip.sub("", whole.table)


def test_a_job_array_runs_the_same_command(grid, tmp_path, monkeypatch):
    """A stand-in for sbatch runs the script as SLURM would."""
    monkeypatch.setattr(launchers.shutil, "which", lambda name: None)
    with pytest.raises(OSError, match="there is no sbatch here"):
        sweep(grid, launcher="slurm", workers=3)
    script = (Path(grid.out) / "sweep.sbatch").read_text()
    assert "--array=1-3" in script
    words = shlex.split(script.splitlines()[-1])
    assert words[:5] == ["exec", sys.executable, "-m", "vpd.cli", "sweep"]
    assert words[words.index("--cell") + 1 :] == NAMES
    assert main([*words[4:], "--dry-run"]) == 0  # what was written is read again


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("prior_value", 33),
        ("debug", 9),
        ("inference", 3),
        ("fvpd", 39),
        ("ideas", 9),
        ("denoising", 5),
        ("tagging_contest", 40),
        ("tagging_ablations", 12),
        ("panoptic", 10),
        ("semantic", 15),
        ("depth", 13),
    ],
)
def test_experiments_expand(name, cells, capfd, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["sweep", "--config", f"configs/experiments/{name}.yaml", "--dry-run", "--json"]
    assert main(words) == 0
    found = json.loads(capfd.readouterr().out)
    assert len(found["cells"]) == cells


def test_the_debug_experiment_runs(base, tmp_path, capfd, monkeypatch):
    """On the toy foundation instead of vpd-mini, and two of its cells."""
    monkeypatch.chdir(ROOT)
    words = ["sweep", "--config", "configs/experiments/debug.yaml", "--json"]
    words += ["--out", str(tmp_path), "--cell", "pre-trained-*-16-s0", "--set", json.dumps({
        "foundation": base["foundation"], "hidden": 8, "attention": [2],
        "data.cache_dir": base["data"]["cache_dir"], "data.val_limit": 2,
        "loop": {"val_every": 5, "precision": "32"},
    })]  # fmt: skip
    assert main(words) == 0
    found = json.loads(capfd.readouterr().out)
    assert len(found["rows"]) == 2
    assert {"oIoU", "P@0.5", "pick", "text_blind/oIoU"} <= found["rows"][0].keys()
    assert {Path(f).name for f in found["files"]} == {
        "results.jsonl", "results.csv", "summary.csv", "table.md", "scenes.png", "steps.png",
    }  # fmt: skip
