"""Training of heads on a frozen vision transformer: the same recipes, one pass of it a picture."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_toys import (
    SIZE,
    cached_as_uncached,
    curve,
    interrupted_and_whole,
    recipe,
    weights,
)
from safetensors.torch import save_file

import vpd
from vpd.cli.parser import read
from vpd.images import to_network
from vpd.lora import LoraConfig
from vpd.models.vit import ViTBackbone, ViTConfig

pytest.importorskip("lightning")
from vpd.train import panoptic
from vpd.train.dense import depth, semantic
from vpd.train.dense.config import DepthTrainConfig, SemanticTrainConfig
from vpd.train.dense.footprint import dense_footprint
from vpd.train.dense.model import build_depth, build_semantic
from vpd.train.dense.run import samples
from vpd.train.dense.table import ResidentTable, label
from vpd.train.panoptic.config import PanopticTrainConfig

pytestmark = pytest.mark.usefixtures("few_scenes")

SHAPE = ViTConfig(
    hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=1,
    image_size=SIZE, patch_size=8, strides=(4, 8, 16, 32),
)  # fmt: skip
KINDS = {
    "semantic": (SemanticTrainConfig, {"channels": 8}),
    "depth": (DepthTrainConfig, {"embed_dim": 4, "num_filters": 8, "norm_groups": 4}),
}
TASKS = {"semantic": semantic, "depth": depth}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> dict:
    """A transformer on disk whose features depend on the picture, and recipes with it."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    backbone = ViTBackbone(SHAPE)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(0, 0.2)
    save_file(backbone.state_dict(), folder / "vit.safetensors")
    vit = {name: getattr(SHAPE, name) for name in SHAPE.__dataclass_fields__}
    return {
        **recipe("no-foundation", folder / "cache"),
        "backbone": "vit",
        "vit": vit,
        "vit_weights": str(folder / "vit.safetensors"),
    }


@pytest.fixture
def config(base, tmp_path, request):
    kind, own = KINDS[getattr(request, "param", "semantic")]
    return read(kind, {**base, **own, "out": str(tmp_path / "run")})


BOTH = pytest.mark.parametrize("config", ["semantic", "depth"], indirect=True)


def task_of(config):
    return TASKS["semantic" if isinstance(config, SemanticTrainConfig) else "depth"]


@BOTH
def test_it_learns_and_writes_a_model(config, tmp_path):
    loop = replace(config.loop, steps=40, lr=2e-2)
    metrics = task_of(config).train(replace(config, loop=loop))
    losses = curve(tmp_path / "run", "loss")
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert metrics["n"] == 6
    model = vpd.load(tmp_path / "run" / "model")
    assert model.config.vit == SHAPE
    there = vpd.weights.read_state_dict(config.vit_weights)[0]
    for name, tensor in weights(tmp_path / "run").items():  # of it and of the head alone, as it was
        part, _, own = name.partition(".")
        assert part in ("vit", "neck", "head")
        assert part != "vit" or torch.equal(tensor, there[own].half())
    result = model(np.random.default_rng(0).random((50, 70, 3)))
    assert result.image.shape == (50, 70, 3)


@BOTH
def test_training_from_cached_features_equals_training_without(config, tmp_path):
    cached_as_uncached(task_of(config).train, config, tmp_path)


def test_interrupted_training_equals_uninterrupted(config, tmp_path):
    config = replace(config, augment="full", frozen_dtype="bfloat16")
    interrupted_and_whole(semantic.SemanticTraining, semantic.train, config, tmp_path)


def test_it_sees_the_pictures_themselves(config):
    config = replace(config, crop=(48, SIZE))
    model = build_semantic(config, vpd.data.tabletop.CLASSES)
    data = samples("semantic", config.data, progress=False)[0]
    table = ResidentTable(model, data, label, 2, 0, flip=True)
    for step in range(4):
        batch = table.draw(step)
        assert batch.latents.shape == (2, 3, SIZE, SIZE)
        for seen, view in zip(batch.latents, batch.views, strict=True):
            image = data[int(view) // 2].read_image()
            image = np.ascontiguousarray(image[:, ::-1]) if view % 2 else image
            assert torch.equal(seen[:, :48], to_network(image, (48, SIZE))[0])
            assert not seen[:, 48:].any()
    views = table.drawn(8).tolist()
    assert len({table.key(view) for view in views}) == len(views)


def test_random_ones_say_so(config, caplog):
    config = replace(config, vit_weights="random")
    with caplog.at_level(logging.WARNING, logger="vpd"):
        one, again = (build_semantic(config, ("a", "b")) for _ in range(2))
    assert "vit_weights=random: this vision transformer has learnt nothing" in caplog.messages
    other = build_semantic(replace(config, seed=1), ("a", "b"))
    name = "blocks.0.attn.qkv.weight"
    assert torch.equal(one.vit.get_parameter(name), again.vit.get_parameter(name))
    assert not torch.equal(one.vit.get_parameter(name), other.vit.get_parameter(name))


def test_weights_that_do_not_fit(config, tmp_path):
    with pytest.raises(OSError, match=r"weights not found: neither none\.pth"):
        build_semantic(replace(config, vit_weights="none.pth"), ("a", "b"))
    other = replace(config, vit=replace(SHAPE, num_hidden_layers=5, hidden_size=128))
    with pytest.raises(ValueError, match="hidden_size: 64, num_hidden_layers: 4}"):
        build_semantic(other, ("a", "b"))
    taps = build_semantic(replace(config, vit=replace(SHAPE, blocks=(3, 3, 3, 3))), ("a", "b"))
    assert taps.vit.config.blocks == (3, 3, 3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vit_weights": None}, "backbone=vit needs vit_weights: a file .* or 'random'"),
        ({"backbone": "unet"}, "vit_weights needs backbone=vit, got"),
        ({"backbone": "resnet"}, "backbone must be one of"),
        ({"lora": LoraConfig()}, "lora is a choice about the U-Net"),
        ({"condition": "tagging"}, "condition is a choice about the U-Net.* got condition='tag"),
        ({"unet_init": "random"}, "unet_init is a choice"),
        ({"protocol": "latent_match", "t": 50}, "protocol is a choice"),
        ({"freeze": "optimizer_only"}, "freeze is a choice"),
    ],
)
def test_mistakes_are_named(config, change, message):
    with pytest.raises(ValueError, match=message):
        replace(config, **change)


def test_what_a_run_needs(config):
    """The transformer never gets gradients or moments, and its file is not read."""

    def need(config, recipe):
        return dense_footprint(config, recipe.empty, recipe.blank or recipe.training, ("a", "b"))

    config = replace(config, vit_weights="not-read.pth", loop=replace(config.loop, ema=None))
    once = need(config, semantic.RECIPE)
    every = need(replace(config, augment="full"), semantic.RECIPE)
    parts = {part.name: part for part in once.parts}
    model = build_semantic(replace(config, vit_weights="random"), ("a", "b"))
    assert parts["vit"].total == sum(p.numel() for p in model.vit.parameters())
    assert parts["vit"].in_optimizer == parts["vit"].requires_grad == 0
    trained = sum(p.numel() for part in (model.neck, model.head) for p in part.parameters())
    assert once.optimizer == every.optimizer == 8 * trained
    assert once.weights == every.weights
    wide = need(replace(config, crop=(SIZE, 2 * SIZE)), semantic.RECIPE)
    assert wide.step == pytest.approx(2 * once.step, rel=0.1)


def test_panoptic_segmentation_takes_it_too(base, tmp_path):
    own = {
        "channels": 32, "heads": 2, "num_queries": 6, "encoder_layers": 1, "decoder_layers": 1,
        "points": 32, "norm_groups": 4,
    }  # fmt: skip
    config = read(PanopticTrainConfig, {**base, **own, "out": str(tmp_path / "run")})
    metrics = panoptic.train(replace(config, loop=replace(config.loop, steps=2)))
    assert "PQ" in metrics
    assert vpd.load(tmp_path / "run" / "model").config.vit == SHAPE


def test_full_size_shapes(base):
    """Depth at the strides of Stable Diffusion's features, without reading weights."""
    config = DepthTrainConfig(backbone="vit", vit_weights="random", vit=ViTConfig.dinov2_small())
    with torch.device("meta"):
        model = build_depth(replace(config, crop=480), ("room",))
    assert model.config.num_filters == (32, 32, 32)
    assert model.config.multiple == 64
