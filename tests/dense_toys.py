"""What tests of training with a value for every pixel share: a few rendered scenes, a foundation of
some ten thousand weights, recipes of a few steps."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch

import vpd
from vpd.data import tabletop
from vpd.tasks import store

SIZE = 64
LOOP = {
    "steps": 4, "batch": 2, "lr": 1e-2, "warmup": 1, "ema": 0.5, "log_every": 1, "val_every": 100,
    "checkpoint_every": 2, "precision": "32",
}  # fmt: skip


class Split:
    """The first scenes of a split, rendered without a cache."""

    def __init__(self, name: str, count: int) -> None:
        first = tabletop.SPLITS[name].first_seed
        self.name, self.seeds = name, range(first, first + count)
        self._scenes = [tabletop.render(seed) for seed in self.seeds]
        self.images = np.stack([scene.image for scene in self._scenes])
        self.instances = np.stack([scene.instance for scene in self._scenes])
        depths = np.stack([scene.depth_m for scene in self._scenes])
        self.depths_mm = np.rint(depths * 1000).astype(np.uint16)

    def __len__(self) -> int:
        return len(self.seeds)

    def scene(self, i: int) -> tabletop.Scene:
        return self._scenes[i]


@contextmanager
def few_scenes() -> Iterator[None]:
    """Splits of at most six scenes; and no run works out beforehand what it needs, which would take
    most of its time."""

    @cache
    def split(name: str, count: int) -> Split:
        return Split(name, count)

    def few(name, cache_dir=None, workers=None, limit=None, **options):
        return split(name, min(limit or 6, 6))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabletop, "load_split", few)
        plain = SimpleNamespace(table=str)
        for name in ("dense.run.dense_footprint", "open.run.open_footprint"):
            patch.setattr(f"vpd.train.{name}", lambda *args, **options: plain)
        yield


def write_foundation(folder: Path, clip: bool = False) -> str:
    """A foundation, with CLIP or without, of random weights on disk, none of which is zero, as
    layers are at first: its U-Net listens to what conditions it."""
    model = tiny.foundation(5, clip)
    with torch.no_grad():
        for parameter in model.unet.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.2)
    return str(store.save(model, folder))


def recipe(foundation: str, folder: Path) -> dict[str, Any]:
    """Fields of both tasks' trainings."""
    return {
        "foundation": foundation,
        "data": {"split": "train", "limit": 4, "val_limit": 2, "cache_dir": str(folder)},
        "loop": LOOP,
        "crop": SIZE,
        "templates": "single",
        "progress": False,
    }


def weights(out: Path) -> dict[str, torch.Tensor]:
    """Of the model that a run has written."""
    return vpd.weights.read_state_dict(out / "model" / "model.safetensors")[0]


def curve(out: Path, name: str) -> list[float]:
    with (out / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def fails_at_step_3(step):
    """A training step that dies after the checkpoint of step 2."""

    def failing(self, batch):
        if self.global_step == 3:
            raise RuntimeError("power cut")
        return step(self, batch)

    return failing


def interrupted_and_whole(training: type, train: Any, config: Any, folder: Path) -> None:
    """That a run which dies on its way and is started again ends as one that is left alone."""
    train(replace(config, out=str(folder / "whole")))
    again = replace(config, out=str(folder / "parts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "training_step", fails_at_step_3(training.training_step))
        with pytest.raises(RuntimeError, match="power cut"):
            train(again)
    train(again)
    a, b = weights(folder / "whole"), weights(folder / "parts")
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-4, msg=key)
    losses = [curve(folder / name, "loss") for name in ("whole", "parts")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # the last bits of a sum may differ


def cached_as_uncached(train: Any, config: Any, folder: Path, idle: Sequence[str] = ()) -> None:
    """That training from cached outputs of the U-Net is training. ``idle`` names biases that a
    batch norm takes away again: their gradient is rounding alone, which Adam makes a step of."""
    for kind in ("none", "float32"):
        train(replace(config, out=str(folder / kind), feature_cache=kind))
    plain, cached = weights(folder / "none"), weights(folder / "float32")
    assert plain.keys() == cached.keys()
    for key in plain.keys() - set(idle):
        torch.testing.assert_close(cached[key], plain[key], rtol=1e-3, atol=1e-3, msg=key)
