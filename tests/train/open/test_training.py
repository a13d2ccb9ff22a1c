"""Training of open-vocabulary segmentation at toy scale."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_toys import (
    SIZE,
    cached_as_uncached,
    curve,
    interrupted_and_whole,
    weights,
    write_foundation,
)
from dense_toys import recipe as dense_recipe
from odise_checkpoints import official, published, segmenter
from panoptic_toys import same_points
from tiny import CLIP, PARTS

import vpd
from vpd.cli.parser import read
from vpd.data import tabletop
from vpd.data.panoptic import coco_panoptic
from vpd.data.tabletop.panoptic_layouts import write_coco_panoptic
from vpd.tasks.foundation import FoundationConfig
from vpd.vocabulary import label_set

pytest.importorskip("lightning")
from vpd.train.loop.parts import Shares
from vpd.train.open import model as open_model
from vpd.train.open import run as open_run
from vpd.train.open.captions import captions_of
from vpd.train.open.config import OpenTrainConfig
from vpd.train.open.footprint import open_footprint
from vpd.train.open.model import build_open, names_of
from vpd.train.open.run import train
from vpd.train.open.stream import OpenStream
from vpd.train.open.table import OpenTable
from vpd.train.open.training import OpenRun, OpenTraining
from vpd.train.panoptic import criterion

pytestmark = pytest.mark.usefixtures("few_scenes")

HEAD = {
    "projection_dim": 16, "channels": 16, "embedding_dim": 12, "num_queries": 8, "heads": 2,
    "encoder_layers": 1, "decoder_layers": 2, "norm_groups": 4, "points": 64,
    "schedule": {"kind": "poly"},
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("open")
    fields = dense_recipe(write_foundation(folder / "foundation", clip=True), folder / "cache")
    del fields["templates"]
    return {**fields, **HEAD, "crop": SIZE}


@pytest.fixture
def config_of(base, tmp_path):
    def make(**changes) -> OpenTrainConfig:
        return read(OpenTrainConfig, {**base, "out": str(tmp_path / "run"), **changes})

    return make


def training(config, **options) -> OpenTraining:
    """One on four scenes."""
    data = tabletop.panoptic(tabletop.load_split("train", limit=4), by=config.by)
    names = names_of(config, data.names, data.things)
    model = build_open(config, names)
    table = OpenTable(model, data, config.loop.batch, config.seed, flip=True, **options)
    captions = captions_of(data) if config.supervision == "captions" else None
    places = {i: i for i in range(len(names))}
    return OpenTraining(config, OpenRun(model, table, names, places, captions, names=names))


@pytest.mark.parametrize("supervision", ["labels", "captions"])
def test_it_learns_and_writes_a_model_that_segments(config_of, tmp_path, supervision):
    config = config_of(supervision=supervision)
    loop = replace(config.loop, steps=40, lr=1e-2, val_every=40, clip=1.0)
    metrics = train(replace(config, loop=loop))
    run = tmp_path / "run"
    losses = curve(run, "loss")
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert ("grounding" in (run / "metrics.csv").read_text()) == (supervision == "captions")
    assert {"PQ", "mAP", "mIoU", "seen/PQ", "shuffled/seen/PQ", "no_clip/PQ"} <= set(metrics)
    assert not any("held_out" in name for name in metrics)
    model = vpd.load(run / "model")
    assert isinstance(model, vpd.OpenPanopticSegmenter)
    assert model.config.supervision == supervision
    assert model(np.zeros((50, 70, 3), np.uint8), "cube; sky").names == ("cube", "sky")
    kept = {key.split(".")[0] for key in weights(run)}
    assert {"adapter", "backbone", "head", "words"} <= kept


@pytest.mark.parametrize("supervision", ["labels", "captions"])
def test_interrupted_training_equals_uninterrupted(config_of, tmp_path, supervision):
    interrupted_and_whole(OpenTraining, train, config_of(supervision=supervision), tmp_path)


def test_training_from_what_was_kept_equals_training_without(config_of, tmp_path):
    cached_as_uncached(train, config_of(), tmp_path)


def test_parts_of_a_batch_add_up_to_it(config_of, monkeypatch):
    monkeypatch.setattr(criterion, "mask2former_loss", same_points)
    module = training(config_of(loop={"batch": 4, "precision": "32"}))
    whole = module.losses(0, slice(0, 4))
    module.shares = Shares(4, 2)
    parts = [module.losses(0, module.shares.part(k)) for k in range(2)]
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts), value, msg=name)


@pytest.mark.parametrize(("by", "held"), [("shape", "ring"), ("color", "red")])
def test_what_is_held_out_is_not_seen(config_of, tmp_path, monkeypatch, by, held):
    trained = []
    plain = open_run.OpenTable
    monkeypatch.setattr(
        open_run, "OpenTable",
        lambda model, samples, *args, **options: trained.append(samples)
        or plain(model, samples, *args, **options),
    )  # fmt: skip
    data = {**config_of().data.__dict__, "limit": 6}
    config = config_of(by=by, held_out=[held], data=data, loop={"steps": 2, "batch": 1})
    metrics = train(config)
    (samples,) = trained
    place = tabletop.panoptic(tabletop.load_split("train"), by=by).names.index(held)
    assert 0 < len(samples) < 6
    for sample in samples:
        assert all(segment.category != place for segment in sample.read_label().segments)
    model = vpd.load(tmp_path / "run" / "model")
    assert held not in model.vocabulary.words
    assert {"held_out/PQ", "held_out/mAP", "shuffled/held_out/PQ", "seen/PQ"} <= set(metrics)


@pytest.fixture
def on_disk(few_scenes, tmp_path):
    """Fields of a data set in COCO's layout with captions, whose pictures are changed at random and
    seen in four parts."""
    count = {"train": 4, "val": 2}
    write_coco_panoptic(tmp_path / "data", count, count, progress=False)
    seeds = [sample.id for sample in coco_panoptic(tmp_path / "data", "train")]
    said = {"images": [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate(seeds)]}
    said["annotations"] = [{"image_id": i, "caption": "a red cube"} for i in range(len(seeds))]
    (tmp_path / "captions.json").write_text(json.dumps(said))
    data = {"name": "coco-panoptic", "root": str(tmp_path / "data"), "limit": None, "workers": 1}
    return {"data": data, "augment": "full", "crop": 2 * SIZE, "image_size": SIZE}


def test_changed_pictures_are_seen_in_parts(config_of, on_disk):
    fields = config_of().data.__dict__ | on_disk["data"]
    config = config_of(**{**on_disk, "data": fields}, recompute="all")
    names = label_set("tabletop_shapes")
    model = build_open(config, names)
    samples = coco_panoptic(fields["root"], "train")
    how = (config.crop, config.scale, 2, config.seed, 1)
    table = OpenStream(model, samples, *how)
    try:
        batch, part = table.draw(1), table.draw(1, slice(1, 2))
        assert [tuple(one.shape[2:]) for one in batch.maps] == [(32, 32), (16, 16), (8, 8), (4, 4)]
        for one, other in zip(batch.maps, part.maps, strict=True):
            torch.testing.assert_close(one[1:], other, rtol=1e-4, atol=1e-4)
        assert torch.equal(batch.numbers[1:], table.numbers(1, slice(1, 2)))
        module = OpenTraining(config, OpenRun(model, table, names, {i: i for i in range(8)}))
        module.losses(0, slice(0, 2))["loss"].backward()
        assert model.adapter.get_parameter("alpha_cond").grad.abs().max() > 0
    finally:
        table.close()


@pytest.mark.parametrize("supervision", ["labels", "captions"])
def test_training_from_disk(config_of, on_disk, tmp_path, supervision):
    captions = {"captions": str(tmp_path / "captions.json")} if supervision == "captions" else {}
    data = config_of().data.__dict__ | on_disk["data"]
    metrics = train(config_of(**{**on_disk, "data": data}, supervision=supervision, **captions))
    assert "PQ" in metrics
    model = vpd.load(tmp_path / "run" / "model")
    assert (model.config.image_size, model.config.test_size) == (SIZE, 2 * SIZE)
    assert model.vocabulary == label_set("tabletop_shapes")


def test_weights_of_others(config_of, tmp_path, monkeypatch):
    parts = FoundationConfig(**PARTS, clip=CLIP)
    monkeypatch.setattr(open_model, "_full_size", lambda: parts)
    names = label_set("tabletop_shapes")
    config = config_of(weights=["sd", "clip"])
    source = segmenter(open_model._shape(config, parts, names))
    files = published(source, tmp_path)
    built = build_open(replace(config, weights=tuple(files[:2])), names)
    for part in ("vae", "unet", "clip"):
        for name, tensor in getattr(source, part).state_dict().items():
            torch.testing.assert_close(getattr(built, part).state_dict()[name], tensor, msg=name)
    empty = built.texts([""])
    torch.testing.assert_close(built.words.get_parameter("null_embed").data, empty)
    torch.save({"model": official(source)}, tmp_path / "odise.pth")
    on = build_open(replace(config, weights=(*files, str(tmp_path / "odise.pth"))), names)
    for name, tensor in source.head.state_dict().items():
        torch.testing.assert_close(on.head.state_dict()[name], tensor, msg=name)
    null = source.words.get_parameter("null_embed")
    torch.testing.assert_close(on.words.get_parameter("null_embed"), null)
    random = build_open(replace(config, weights=tuple(files), unet_init="random"), names)
    one = next(iter(source.unet.state_dict()))
    assert not torch.equal(random.unet.state_dict()[one], source.unet.state_dict()[one])


@pytest.mark.parametrize(
    "changes",
    [
        {"supervision": "labels"},
        pytest.param(
            {"supervision": "captions", "augment": "full", "crop": 2 * SIZE, "image_size": SIZE},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_a_run_needs(config_of, changes):
    config = config_of(**changes)
    found = open_footprint(config)
    model = build_open(config, label_set("tabletop_shapes"))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(part.in_optimizer for part in found.parts) == trained
    assert sum(part.total for part in found.parts) == sum(p.numel() for p in model.parameters())
    assert found.step > config.loop.batch * 3 * config.crop**2


def test_words_of_captions(config_of):
    module = training(config_of(supervision="captions", words=6))
    one, again = module.said(3, 1, 0), module.said(3, 1, 0)
    assert one == again != module.said(4, 1, 0)
    assert all(text.startswith("a photo of a ") for text in one.sentences)
    shapes = {shape for shape in tabletop.SHAPES if any(shape in text for text in one.sentences)}
    module.config = replace(module.config, held_out=tuple(shapes))
    hidden = module.said(3, 1, 0)
    for text, valid in zip(hidden.sentences, hidden.valid, strict=True):
        assert valid == (text != "a photo of a .")
        assert not any(shape in text for shape in shapes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"supervision": "both"}, "supervision"),
        ({"data": {"name": "nyuv2"}}, "data.name"),
        ({"by": "color", "data": {"name": "coco-panoptic", "root": "x"}}, "by=color"),
        ({"supervision": "captions", "loop": {"batch": 4, "micro_batch": 2}}, "micro_batch"),
        ({"supervision": "captions", "data": {"root": "x"}}, "captions, a JSON file"),
        ({"captions": "x.json"}, "captions needs supervision=captions"),
        ({"image_size": 48, "augment": "full"}, "multiple of image_size=48"),
        ({"image_size": 32}, "needs augment=full, got 32"),
        ({"held_out": ["sofa"]}, "held_out must be of"),
        ({"held_out": list(tabletop.CLASSES)}, "left to train on"),
        ({"vocabulary": "coco_panoptic"}, "8 classes"),
        ({"words": 0}, "words must be at least 1"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"no_object": -1.0}, "no_object must not be negative, got -1"),
        ({"grounding_weight": -1.0}, "grounding_weight must not be negative, got -1"),
        ({"min_overlap": 1.5}, "min_overlap"),
        ({"alpha": 2.0}, "alpha"),
    ],
)
def test_what_cannot_be_trained(config_of, change, message):
    with pytest.raises(ValueError, match=message):
        train(config_of(**change))
