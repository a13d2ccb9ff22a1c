"""The tasks that trainings and sweeps know by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dense_toys import recipe, write_foundation

import vpd
from vpd.cli.parser import read

pytest.importorskip("lightning")
from vpd.train.dense.config import DepthTrainConfig, SemanticTrainConfig
from vpd.train.open.config import OpenTrainConfig
from vpd.train.panoptic.config import PanopticTrainConfig
from vpd.train.refer import ReferTrainConfig
from vpd.train.sweep import cell as sweep_cell
from vpd.train.sweep.grid import SweepConfig, cells_of
from vpd.train.sweep.inference import Inference
from vpd.train.sweep.run import sweep
from vpd.train.tasks import config_type, train

pytestmark = pytest.mark.usefixtures("few_scenes")


@pytest.fixture
def grid(tmp_path) -> SweepConfig:
    fields = recipe(write_foundation(tmp_path / "foundation"), tmp_path / "cache")
    fields = {k: v for k, v in fields.items() if k != "progress"}
    return SweepConfig(
        out=str(tmp_path / "sweep"),
        task="depth",
        set={**fields, "embed_dim": 4, "num_filters": 8, "norm_groups": 4, "text_adapter": False},
        axes={"freeze": ["unet", "none"]},
        columns=("rmse", "delta1"),
    )


def test_every_task_has_its_config(tmp_path):
    assert config_type("refer") is ReferTrainConfig
    assert config_type("semantic") is SemanticTrainConfig
    assert config_type("panoptic") is PanopticTrainConfig
    assert config_type("open-panoptic") is OpenTrainConfig
    assert config_type("depth") is DepthTrainConfig
    with pytest.raises(
        ValueError, match="one of refer, semantic, panoptic, open-panoptic, depth, got 'edit'"
    ):
        config_type("edit")
    with pytest.raises(TypeError, match="expected a config of vpd train, got dict"):
        train({})
    config = read(DepthTrainConfig, {"out": str(tmp_path), "foundation": "nowhere"})
    with pytest.raises(FileNotFoundError, match="no model 'nowhere'"):
        train(config)


def test_a_sweep_of_depth(grid):
    report = sweep(grid)
    assert report.cells == {"unet-s0": "finished", "none-s0": "finished"}
    assert report.steps == {"unet-s0": "4 steps x 2", "none-s0": "4 steps x 2"}
    assert isinstance(vpd.load(f"{grid.out}/unet-s0/model"), vpd.DepthEstimator)
    row = report.rows[0]
    assert f"| unet | {row['rmse']:.4f} | {row['delta1']:.4f} | 1 |" in report.table
    assert sweep(grid, run=False).rows == report.rows  # nothing is trained again


def test_mistakes_in_a_sweep_of_another_task(grid, monkeypatch):
    monkeypatch.setattr(sweep_cell, "train", lambda config: {})
    with pytest.raises(ValueError, match="inference is for the task refer alone, got task=depth"):
        cells_of(replace(grid, inference={"a": Inference()}))
    with pytest.raises(ValueError, match="'embed_dim' is not accepted"):
        cells_of(replace(grid, task="semantic"))
