"""What a training of segmentation or depth is said to need, against what it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from dense_toys import LOOP as LOOP_FIELDS
from dense_toys import few_scenes, recipe, write_foundation
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("lightning")
from vpd.cli.parser import read
from vpd.data.dense import dense_names
from vpd.lora import LoraConfig
from vpd.losses import segmentation_sums
from vpd.memory import LiveBytes
from vpd.models.fpn import SemanticFPNHead, SemanticFPNHeadConfig
from vpd.train.dense import depth, semantic
from vpd.train.dense.config import DepthTrainConfig, SemanticTrainConfig
from vpd.train.dense.footprint import dense_footprint
from vpd.train.loop.config import LoopConfig

LOOP = LoopConfig(batch=1, precision="32", ema=None)
FULL = {"weights": "sd.safetensors", "loop": LOOP, "scale_latents": False}
ADE = SemanticTrainConfig(**FULL, crop=512, channels=256, scale_maps=False)
NYU = DepthTrainConfig(**FULL, crop=480, embed_dim=192)
UNET, ADAPTER = 859_520_964, 1_181_952
# Four lateral convolutions and four of 3 x 3; seven of 3 x 3 with batch norm, one per class.
NECK = (320 + 790 + 1430 + 1280 + 4) * 256 + 4 * (9 * 256 + 1) * 256
FPN = 7 * (9 * 256 + 2) * 256 + 257 * 150


def needs(config):
    recipe = semantic.RECIPE if isinstance(config, SemanticTrainConfig) else depth.RECIPE
    names = dense_names(recipe.task, "ade20k" if recipe.task == "semantic" else "nyuv2")
    return dense_footprint(config, recipe.empty, recipe.training, names)


def test_parameters_of_segmentation_at_full_size():
    found = needs(ADE)
    trained = UNET + ADAPTER + NECK + FPN
    assert sum(part.in_optimizer for part in found.parts) == trained
    assert (found.gradients, found.optimizer, found.average) == (4 * trained, 8 * trained, 0)
    running = 7 * (2 * 4 * 256 + 8)  # the head's batch norms: means, variances, counts
    texts = 4 * 150 * 768
    assert found.weights == 4 * sum(part.total for part in found.parts) + running + texts
    assert found.peak > found.weights + 12 * trained + found.step
    counted = needs(replace(ADE, average="valid", freeze="optimizer_only"))
    assert sum(part.in_optimizer for part in counted.parts) == trained - UNET
    assert counted.gradients == found.gradients


def test_what_saves_memory_at_full_size():
    whole = needs(ADE).step
    frozen = needs(replace(ADE, freeze="unet")).step
    assert frozen < 0.7 * whole
    assert needs(replace(ADE, freeze="unet", recompute="all")).step < 0.4 * frozen
    once = needs(replace(ADE, freeze="unet", text_adapter=False))
    every = needs(replace(ADE, freeze="unet", text_adapter=False, feature_cache="none"))
    assert once.step < 0.6 * every.step  # neither keeps anything of the U-Net for a backward
    assert every.step < 0.4 * frozen
    assert once.weights == every.weights
    drawn = replace(ADE, freeze="unet", text_adapter=False, augment="full")
    assert needs(drawn).step > 4 * 3 * 128 * 512**2  # three of the autoencoder's widest layers


def test_depth_at_full_size():
    whole, lora = needs(NYU), needs(replace(NYU, lora=LoraConfig(rank=4)))
    unet = next(part for part in lora.parts if part.name == "unet")
    assert unet.total - UNET == unet.in_optimizer == 4 * 74_496
    assert lora.gradients < 0.02 * whole.gradients
    half = needs(replace(NYU, freeze="unet", frozen_dtype="bfloat16"))
    frozen = sum(part.total for part in half.parts if part.name in ("vae", "unet"))
    assert whole.weights - half.weights == 2 * frozen


def test_tensors_without_values_are_counted_as_those_with():
    """Kernels that keep less than PyTorch's operators do so for them too."""

    def peak(mode) -> int:
        with mode:
            config = SemanticFPNHeadConfig(in_channels=(32,) * 4, num_classes=20, channels=32)
            head = SemanticFPNHead(config)
            labels = torch.zeros(4, 128, 128, dtype=torch.uint8)
            maps = [torch.zeros(4, 32 >> i, 32 >> i, 32).movedim(3, 1) for i in range(4)]
            with LiveBytes([*head.parameters(), *head.buffers(), *maps, labels]) as live:
                segmentation_sums(head(maps), labels).cross_entropy.backward()
        return live.peak

    fake = peak(FakeTensorMode(allow_non_fake_inputs=True))
    assert fake == pytest.approx(peak(nullcontext()), rel=0.1)


def test_a_run_says_what_it_needs(tmp_path, caplog, monkeypatch):
    fields = recipe(write_foundation(tmp_path / "foundation"), tmp_path / "cache")
    fields |= {"freeze": "unet", "text_adapter": False, "loop": {**LOOP_FIELDS, "steps": 1}}
    config = read(SemanticTrainConfig, {**fields, "channels": 8, "out": str(tmp_path / "run")})
    asked = []

    def need(config, *recipe):
        asked.append(recipe)
        return SimpleNamespace(table=lambda: "what it needs")

    with few_scenes(), caplog.at_level("INFO", logger="vpd"):
        monkeypatch.setattr("vpd.train.dense.run.dense_footprint", need)
        semantic.train(config)
    names = dense_names("semantic", "tabletop")
    assert asked == [(semantic.RECIPE.empty, semantic.RECIPE.training, names)]
    assert "what it needs" in caplog.messages


MEASURE = """
import json, sys, torch
import vpd.train.dense.model as models
from vpd.memory import peak_resident, reset_peak, resident, set_freed_memory
from vpd.models.unet import UNetConfig
from vpd.tasks.foundation import FoundationConfig
import vpd.train.panoptic.model as panoptic_models
from vpd.train import panoptic
from vpd.train.dense import depth, semantic
from vpd.train.dense.config import DepthTrainConfig, SemanticTrainConfig
from vpd.train.dense.footprint import blank_run, dense_footprint
from vpd.train.loop.frozen import hold_frozen
from vpd.train.loop.config import LoopConfig

set_freed_memory("returned")
torch.set_num_threads(1)
task, changes = json.loads(sys.argv[1])
recipe = {"semantic": semantic, "panoptic": panoptic, "depth": depth}[task].RECIPE
kinds = panoptic.PanopticTrainConfig, SemanticTrainConfig, DepthTrainConfig
kind = dict(zip(("panoptic", "semantic", "depth"), kinds))[task]
width = {"depth": {"embed_dim": 192}}.get(task, {"channels": 256})
counted = recipe.blank or recipe.training
names = [f"name {i}" for i in range(20)]
rows = 24 if "text_adapter" in changes else 2  # where outputs are kept, a step takes little

def shape(channels, size):
    unet = UNetConfig(model_channels=channels, num_res_blocks=1)
    parts = FoundationConfig(unet=unet, image_size=size)
    models.parts_of = panoptic_models.parts_of = lambda config: parts
    loop = LoopConfig(batch=rows, precision="32", ema=None)
    return kind(loop=loop, crop=size, **width, **changes)

def held(config):
    model = recipe.empty(config, names)
    hold_frozen(model, config)
    return model

def steps(config, run):
    training = counted(config, run)
    optimizer = torch.optim.AdamW(training.parameters(), fused=True)
    for _ in range(2):
        loss = training.losses(0, slice(0, rows))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

small = shape(32, 64)
steps(small, blank_run(small, held(small)))  # brings the libraries' code in
large = shape(128, 256)
found = dense_footprint(large, recipe.empty, counted, names)
model = held(large)
before = resident()
run = blank_run(large, model)  # runs the U-Net, as what fills its cache does
reset_peak()
steps(large, run)
print(json.dumps([found.peak - found.weights, peak_resident() - before]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("task", "changes"),
    [
        pytest.param("semantic", {}, id="classes", marks=pytest.mark.slow),
        pytest.param("semantic", {"freeze": "unet"}, id="classes-frozen", marks=pytest.mark.slow),
        pytest.param(
            "semantic", {"freeze": "unet", "recompute": "all"}, id="classes-frozen-recomputed"
        ),
        pytest.param(
            "semantic", {"freeze": "unet", "text_adapter": False}, id="classes-cached",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "semantic", {"freeze": "unet", "augment": "full", "head": "uper", "auxiliary": True},
            id="classes-uper-augmented", marks=pytest.mark.slow,
        ),
        pytest.param(
            "panoptic", {"freeze": "unet", "text_adapter": False}, id="segments-cached",
            marks=pytest.mark.slow,
        ),
        pytest.param("depth", {}, id="depth", marks=pytest.mark.slow),
        pytest.param("depth", {"recompute": "all"}, id="depth-recomputed", marks=pytest.mark.slow),
        pytest.param(
            "depth", {"freeze": "unet", "text_adapter": False}, id="depth-cached",
            marks=pytest.mark.slow,
        ),
        pytest.param("depth", {"freeze": "unet"}, id="depth-frozen", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_the_prediction_is_what_is_measured(task, changes):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps([task, changes])],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    predicted, measured = json.loads(done.stdout.splitlines()[-1])
    assert predicted > 70e6
    assert measured == pytest.approx(predicted, rel=0.15), (predicted, measured)
