"""Training of depth at toy scale: it learns, it can be interrupted, pictures are padded as VPD's,
augmented ones come again."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import trees
from dense_toys import (
    SIZE,
    cached_as_uncached,
    curve,
    interrupted_and_whole,
    recipe,
    weights,
    write_foundation,
)

import vpd
from vpd.cli.parser import read
from vpd.data.augment import DepthAugmentation, sample_generator
from vpd.images import to_network

pytest.importorskip("lightning")
from vpd.train.dense.depth import RECIPE, DepthTrainConfig, DepthTraining, train
from vpd.train.dense.model import build_depth
from vpd.train.dense.run import samples
from vpd.train.dense.stream import StreamedTable, augmented_depth
from vpd.train.dense.table import ResidentTable, depth_target
from vpd.train.dense.training import DenseRun
from vpd.train.loop.optimizer import matrix_rule
from vpd.train.loop.parts import Shares

pytestmark = pytest.mark.usefixtures("few_scenes")

FROZEN = {"freeze": "unet", "text_adapter": False}
PADDED = 48  # a crop that the networks, which take multiples of 32, do not


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("depth")
    fields = recipe(write_foundation(folder / "foundation"), folder / "cache")
    return {**fields, "embed_dim": 4, "num_filters": 8, "norm_groups": 4}


@pytest.fixture
def config(base, tmp_path) -> DepthTrainConfig:
    return read(DepthTrainConfig, {**base, "out": str(tmp_path / "run")})


def build(config):
    return build_depth(config, ("tabletop",))


def scenes(config):
    return samples("depth", config.data, progress=False)[0]


def test_it_learns_and_writes_a_model_that_measures(config, tmp_path):
    loop = replace(config.loop, steps=40, val_every=20)
    config = replace(config, loop=loop, **FROZEN)
    metrics = train(config)
    losses = curve(tmp_path / "run", "loss")
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert {"rmse", "abs_rel", "delta1"} <= set(metrics)
    assert metrics["n"] == 6
    result = vpd.load(tmp_path / "run" / "model")(np.random.default_rng(0).random((50, 70, 3)))
    assert result.depth_m.shape == (50, 70)
    assert 0 < result.depth_m.min() <= result.depth_m.max() <= 10


@pytest.mark.parametrize(
    "change", [{"crop": PADDED}, {"augment": "full"}], ids=["padded", "augmented"]
)
def test_interrupted_training_equals_uninterrupted(config, tmp_path, change):
    interrupted_and_whole(DepthTraining, train, replace(config, **change), tmp_path)


def test_training_from_cached_features_equals_training_without(config, tmp_path):
    idle = ["head.decoder.conv_layers.0.bias"]
    cached_as_uncached(train, replace(config, **FROZEN, crop=PADDED), tmp_path, idle)


def test_pictures_are_padded_and_depth_is_theirs(config):
    config = replace(config, crop=PADDED)
    model = build(config).eval()
    data = scenes(config)
    table = ResidentTable(model, data, depth_target, 2, seed=0)
    batch = table.draw(0)
    assert batch.latents.shape[-2:] == (16, 16)
    for latents, target, row in zip(batch.latents, batch.targets, batch.views, strict=True):
        image, depth_m = data[int(row)].read()
        pixels = F.pad(to_network(image, PADDED), (0, 16, 0, 16))
        torch.testing.assert_close(latents, model.encode_image(pixels)[0], rtol=0, atol=3e-3)
        places = (np.arange(PADDED) * 128 / PADDED).astype(int)  # nearest, as OpenCV takes it
        want = torch.from_numpy(depth_m[np.ix_(places, places)])
        torch.testing.assert_close(target, want, rtol=5e-4, atol=0)
    module = DepthTraining(config, DenseRun(model, table))
    loss = float(module.losses(0, slice(0, 2))["loss"].detach())
    pixels = torch.stack(
        [to_network(data[int(row)].read_image(), PADDED)[0] for row in batch.views]
    )
    with torch.no_grad():
        found = model.logits(pixels)[:, 0]  # nothing is said of scenes
    d = batch.targets.log() - found.log()
    assert loss == pytest.approx(float((d.square().mean() - 0.5 * d.mean() ** 2).sqrt()), rel=2e-3)


def test_the_loss_of_a_batch_in_parts_is_their_mean(config):
    config = replace(config, loop=replace(config.loop, batch=4, micro_batch=1))
    model = build(config)
    module = DepthTraining(
        config, DenseRun(model, ResidentTable(model, scenes(config), depth_target, 4, 0))
    )
    model.eval()

    def losses(share: Shares) -> list[float]:
        parts = (share.part(number) for number in range(share.passes))
        return [float(module.losses(0, part)["loss"].detach()) for part in parts]

    single = [4 * loss for loss in losses(Shares(4, 1))]
    (whole,) = losses(Shares(4))
    assert sum(losses(Shares(4, 1))) == pytest.approx(np.mean(single))
    assert whole != pytest.approx(np.mean(single), rel=1e-4)


def test_the_best_weights_have_the_least_error(config, tmp_path, monkeypatch):
    found = iter([3.0, 1.0, 2.0, 5.0])
    kept = []

    def evaluate(self, limit, progress=False):
        kept.append({k: v.detach().clone() for k, v in self.run.model.head.state_dict().items()})
        return {"rmse": next(found), "n": 2.0}

    monkeypatch.setattr(DepthTraining, "evaluate", evaluate)
    loop = replace(config.loop, steps=3, val_every=1, ema=None)
    train(replace(config, loop=loop, select="best"))
    end = weights(tmp_path / "run")
    for name, tensor in kept[1].items():
        torch.testing.assert_close(end[f"head.{name}"], tensor.to(end[f"head.{name}"].dtype))
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert [row["rmse"] for row in csv.DictReader(file) if row["rmse"]] == ["3.0", "1.0", "2.0"]


@pytest.fixture
def nyu(tmp_path) -> Path:
    """NYUv2's layout with two types of scenes."""
    folder = tmp_path / "data" / "nyu_depth_v2" / "official_splits"
    frames = {f"{scene}/{i:05d}": i for i, scene in enumerate(["kitchen", "office"] * 3, start=1)}
    for split in ("train", "test"):
        for frame, seed in frames.items():
            scene, number = frame.split("/")
            trees.write(folder / split / scene / f"rgb_{number}.jpg", trees.picture(seed, (70, 90)))
            depth = folder / split / scene / f"sync_depth_{number}.png"
            trees.write(depth, trees.depth_mm(seed, (70, 90)))
    return tmp_path / "data"


def test_full_augmentation_of_a_data_set_on_disk(config, nyu, tmp_path):
    data = replace(config.data, name="nyuv2", root=str(nyu), val_split="test", limit=None)
    config = replace(config, data=data, augment="full", cutdepth_cast="wrap")
    metrics = train(replace(config, windows=2))
    assert metrics["n"] == 6
    model = vpd.load(tmp_path / "run" / "model")
    assert len(model.config.scenes) == 27

    augmentation = DepthAugmentation((SIZE, SIZE), cutdepth_cast="wrap")
    found = scenes(config)
    table = StreamedTable(model, found, augmented_depth(augmentation, SIZE), 3, seed=3)
    for step in (2, 0, 3):
        batch = table.draw(step)
        assert torch.equal(batch.targets, table.draw(step).targets)
        for place, row in enumerate(batch.views.tolist()):
            number = step * 3 + place  # every fourth gets CutDepth
            generator = sample_generator(3, step, place)
            image, depth_m = augmentation(*found[row].read(), generator, number)
            assert np.array_equal(batch.targets[place], depth_m)
            want = model.encode_image(to_network(image, SIZE))[0]
            torch.testing.assert_close(batch.latents[place], want, rtol=1e-4, atol=1e-4)
            assert batch.pictures[place] == row
    table.close()

    recipe = RECIPE.augment(replace(config, crop=96), found)  # larger than the pictures
    pixels, depth_m = recipe(found[0], sample_generator(3, 0, 0), 1)
    assert (tuple(pixels.shape), tuple(depth_m.shape)) == ((3, 96, 96), (96, 96))
    assert set(depth_m.unique().tolist()) <= {0.0, *np.unique(found[0].read_depth()).tolist()}
    with pytest.raises(ValueError, match=r"/0000\d: a picture must not be smaller than the crop"):
        augmented_depth(DepthAugmentation((96, 96)), 96)(found[0], sample_generator(3, 0, 0), 1)


def test_a_scenes_type_conditions_its_picture(config, nyu):
    data = replace(config.data, name="nyuv2", root=str(nyu), limit=None)
    found = samples("depth", replace(data, val_split="test"), progress=False)[0]
    model = build_depth(config, found.scenes)
    words = RECIPE.words(config, found)
    table = ResidentTable(model, found, depth_target, 4, 0)
    run = DenseRun(model, table, said=lambda picture: words(found[picture]))
    module = DepthTraining(config, run)
    batch = module.table.draw(0)
    scenes = [found[picture].scene for picture in batch.pictures]
    assert set(scenes) == {found.scenes.index("kitchen"), found.scenes.index("office")}
    with torch.no_grad():
        out = module.features(batch)
        for row, scene in enumerate(scenes):
            states = model.class_embeddings[scene][None, None]
            want = model.features(batch.latents[row : row + 1], states)
            for got, one in zip(out.features, want.features, strict=True):
                torch.testing.assert_close(got[row], one[0], rtol=1e-3, atol=1e-4)


def test_groups_of_the_optimizer(config):
    module = DepthTraining(config, DenseRun(build(config)))
    rule = matrix_rule(0.01)
    found = {name: rule(name, p) for name, p in module.named_parameters()}
    assert found["unet.input_blocks.0.0.weight"] == (0.01, True)
    assert found["unet.input_blocks.0.0.bias"] == (0.01, False)
    assert found["unet.out.0.weight"] == (0.01, False)
    assert found["adapter.gamma"] == (1.0, False)
    assert found["head.last_layer_depth.0.weight"] == (1.0, True)
    undecayed = {name for name, (_, decays) in found.items() if not decays}
    assert undecayed == {name for name, p in module.named_parameters() if p.dim() == 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variance_focus": 1.5}, r"variance_focus must be in \[0, 1\], got 1.5"),
        ({"max_depth": 0.0}, "max_depth must be positive, got 0"),
    ],
)
def test_mistakes_are_named(config, change, message):
    with pytest.raises(ValueError, match=message):
        replace(config, **change)
