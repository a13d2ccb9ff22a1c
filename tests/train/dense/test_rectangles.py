"""Training of semantic segmentation on crops that are no squares."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from dense_toys import curve, recipe, write_foundation

import vpd
from vpd.cli.parser import read
from vpd.data import tabletop
from vpd.data.augment import SemanticAugmentation, sample_generator
from vpd.images import to_network

pytest.importorskip("lightning")
from vpd.train.caching.latents import latents_name
from vpd.train.dense.footprint import dense_footprint
from vpd.train.dense.model import build_semantic
from vpd.train.dense.run import samples
from vpd.train.dense.semantic import RECIPE, SemanticTrainConfig, train
from vpd.train.dense.stream import StreamedTable
from vpd.train.dense.table import ResidentTable, label
from vpd.train.panoptic.config import PanopticTrainConfig

pytestmark = pytest.mark.usefixtures("few_scenes")

CROP = (32, 64)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("rectangles")
    fields = recipe(write_foundation(folder / "foundation"), folder / "cache")
    return {**fields, "channels": 8, "crop": list(CROP)}


@pytest.fixture
def config(base, tmp_path) -> SemanticTrainConfig:
    return read(SemanticTrainConfig, {**base, "out": str(tmp_path / "run")})


def build(config):
    return build_semantic(config, tabletop.CLASSES).eval()


def test_crop_and_windows(config):
    found = build(config).config
    assert config.crop == found.image_size == CROP
    assert found.stride == (21, 42)
    assert build(replace(config, crop=64)).config.stride == 42
    assert latents_name(build(config)) != latents_name(build(replace(config, crop=(64, 32))))


def test_pictures_are_squashed_to_the_crop(config):
    model, data = build(config), samples("semantic", config.data, progress=False)[0]
    batch = ResidentTable(model, data, label, 2, 0).draw(0)
    assert batch.latents.shape[-2:] == (8, 16)
    for latents, target, row in zip(batch.latents, batch.targets, batch.views, strict=True):
        image, labels = data[int(row)].read()
        want = model.encode_image(to_network(image, CROP))[0]
        torch.testing.assert_close(latents, want, rtol=0, atol=3e-3)
        small = cv2.resize(labels, CROP[::-1], interpolation=cv2.INTER_NEAREST)
        assert np.array_equal(target, small)


def test_pictures_are_cut_to_the_crop(config):
    """And filled up to it, as here, where random ratios make them smaller."""
    model, data = build(config), samples("semantic", config.data, progress=False)[0]
    table = StreamedTable(model, data, RECIPE.augment(config, data), 2, seed=3)
    augmentation = SemanticAugmentation((128, 32), crop=CROP, ignore_index=data.ignore_index)
    filled = 0
    for step in range(4):
        batch = table.draw(step)
        assert batch.targets.shape == (2, *CROP)
        for place, row in enumerate(batch.views.tolist()):
            image, labels = augmentation(*data[row].read(), sample_generator(3, step, place))
            height, width = labels.shape
            assert np.array_equal(batch.targets[place][:height, :width], labels)
            assert (batch.targets[place][:, width:] == data.ignore_index).all()
            pixels = torch.zeros(1, 3, *CROP)
            pixels[..., :height, :width] = to_network(image, (height, width))
            want = model.encode_image(pixels)[0]
            torch.testing.assert_close(batch.latents[place], want, rtol=1e-4, atol=1e-4)
            filled += (height, width) != CROP
    table.close()
    assert filled


@pytest.mark.parametrize(
    "change",
    [{"freeze": "unet", "text_adapter": False}, {"augment": "full", "average": "valid"}],
    ids=["cached", "augmented"],
)
def test_it_trains_and_is_scored(config, tmp_path, change):
    metrics = train(replace(config, **change))
    assert metrics["n"] == 6
    assert len(curve(tmp_path / "run", "loss")) == 4
    model = vpd.load(tmp_path / "run" / "model")
    assert (model.config.image_size, model.config.stride) == (CROP, (21, 42))
    assert model(np.random.default_rng(0).random((50, 170, 3))).classes.shape == (50, 170)


def test_memory_is_that_of_the_area(config):
    def step(crop) -> int:
        own = replace(config, crop=crop, freeze="unet", text_adapter=False)
        return dense_footprint(own, RECIPE.empty, RECIPE.training, tabletop.CLASSES).step

    assert step((32, 64)) == pytest.approx(step((64, 32)), rel=0.01)
    assert step((64, 128)) == pytest.approx(2 * step(64), rel=0.1)


def test_other_crops_are_refused(base, config):
    for crop in ((32, 0), 0):
        with pytest.raises(ValueError, match="crop must be at least 1 pixel"):
            replace(config, crop=crop)
    fields = {name: value for name, value in base.items() if name != "channels"}
    with pytest.raises(ValueError, match="crop"):
        read(PanopticTrainConfig, fields)
    with pytest.raises(ValueError, match="crop"):
        read(SemanticTrainConfig, {**base, "crop": [32, 64, 64]})
