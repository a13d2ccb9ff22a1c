"""What a run's folder is kept to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import pytest

from vpd.train.loop.config import LoopConfig
from vpd.train.loop.recipe import CHANGEABLE, check_recipe, flat, keep_recipe, recipe


@dataclass(frozen=True)
class Data:
    name: str = "tabletop"
    sizes: tuple[int, int] = (8, 16)
    cache_dir: str | None = None


@dataclass(frozen=True)
class Config:
    out: str
    progress: bool = True
    workers: int | None = None
    seed: int = 0
    data: Data = field(default_factory=Data)
    loop: LoopConfig = field(default_factory=LoopConfig)


@pytest.fixture
def config(tmp_path):
    return Config(str(tmp_path / "run"))


def test_fields_of_where_and_how_fast_are_left_out(config):
    found = recipe(config)
    assert set(found) == {"seed", "data", "loop"}
    assert set(found["data"]) == {"name", "sizes"}
    assert flat(found)["loop.lr"] == config.loop.lr


def test_a_folder_without_a_recipe_takes_any(config):
    check_recipe(config)


def test_the_same_elsewhere_computed_is_the_same(config):
    keep_recipe(config)
    check_recipe(replace(config, progress=False, workers=3, data=Data(cache_dir="other")))


def test_another_recipe_is_refused_and_named(config, tmp_path):
    keep_recipe(config)
    kept = (tmp_path / "run" / "recipe.json").read_bytes()
    other = replace(config, data=Data(sizes=(8, 32)))
    message = r"run holds a run with data.sizes = \[8, 16\], expected \[8, 32\]; choose another"
    with pytest.raises(ValueError, match=message):
        check_recipe(other, CHANGEABLE)
    assert (tmp_path / "run" / "recipe.json").read_bytes() == kept


def test_length_and_watching_may_change_where_that_is_said(config):
    keep_recipe(config)
    longer = replace(config, loop=LoopConfig(steps=2000, val_every=7, precision="32"))
    check_recipe(longer, CHANGEABLE)
    with pytest.raises(ValueError, match=r"loop\."):
        check_recipe(longer)


def test_fields_of_one_version_alone_are_not_compared(config, tmp_path):
    keep_recipe(config)
    path = tmp_path / "run" / "recipe.json"
    there = json.loads(path.read_text())
    del there["loop"]["optimizer"]
    path.write_text(json.dumps(there | {"no_longer": 1}))
    check_recipe(config)
