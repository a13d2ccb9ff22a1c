"""Training of segmenters under each condition at toy scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
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
from vpd.data import tabletop
from vpd.images import to_network
from vpd.tasks import store
from vpd.tasks.words import present, words_of

pytest.importorskip("lightning")
from vpd.train.dense.cache import cached_outputs, caches_outputs
from vpd.train.dense.condition_fields import TaggingOptions
from vpd.train.dense.footprint import dense_footprint
from vpd.train.dense.model import build_semantic
from vpd.train.dense.run import samples
from vpd.train.dense.semantic import RECIPE, SemanticTrainConfig, SemanticTraining, train
from vpd.train.dense.table import DenseBatch, ResidentTable, label
from vpd.train.dense.training import DenseRun
from vpd.train.loop.optimizer import semantic_rule
from vpd.train.loop.parts import Shares

pytestmark = pytest.mark.usefixtures("few_scenes")

FROZEN = {"freeze": "unet", "text_adapter": False}
TAGGING = {"queries": 4, "blocks": 1, "heads": 4, "mlp_ratio": 2.0}
CONDITIONS = {
    "uncond": {},
    "caption": {},
    "classes": {},
    "implicit": {},
    "tagging": {"tagging": TAGGING},
    "tagging by tags": {"tagging": {**TAGGING, "text": "tags"}},
    "oracle": {"attention": []},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("conditions")
    own = write_foundation(folder / "foundation", clip=True)
    return {**recipe(own, folder / "cache"), "channels": 8}


@pytest.fixture
def config_of(base, tmp_path):
    def make(name: str, **changes) -> SemanticTrainConfig:
        fields = {**base, "condition": name.split(" ")[0], **CONDITIONS[name], **changes}
        return read(SemanticTrainConfig, {**fields, "out": str(tmp_path / "run")})

    return make


def build(config):
    return build_semantic(config, tabletop.CLASSES)


def training(config, model, **options) -> tuple[SemanticTraining, ResidentTable]:
    """One on four scenes, and what it draws from."""
    data = samples("semantic", config.data, progress=False)[0]
    table = ResidentTable(model, data, label, config.loop.batch, config.seed, flip=True, **options)
    words = words_of(config.condition, config.tagging.text, data, config.words)
    said = None if words is None else lambda picture: words(data[picture])
    run = DenseRun(model, table, said=said, present=lambda picture: present(data[picture], 255))
    return SemanticTraining(config, run), table


@pytest.mark.parametrize("name", CONDITIONS)
def test_it_trains_and_writes_a_model_that_segments(config_of, tmp_path, name):
    config = config_of(name)
    metrics = train(config)
    assert metrics.get("oracle", 0.0) == float(name == "oracle")
    assert ("tags/shuffled/mAP" in metrics) == ("tagging" in name)
    model = vpd.load(tmp_path / "run" / "model")
    assert model.config.condition == config.condition
    words = {"oracle": ["ball"], "caption": "a ball"}.get(name)
    assert model(np.zeros((40, 50, 3), np.uint8), words=words).classes.shape == (40, 50)
    end, start = weights(tmp_path / "run"), build(config).state_dict()
    moved = {key.split(".")[0] for key in end if not torch.equal(end[key], start[key].half())}
    adapter = {"adapter"} if config.trains_adapter else set()
    assert moved == {"unet", "neck", "head", *adapter}


def test_interrupted_training_equals_uninterrupted(config_of, tmp_path):
    interrupted_and_whole(SemanticTraining, train, config_of("tagging"), tmp_path)
    assert len(curve(tmp_path / "whole", "tag_loss")) == 4
    assert len(curve(tmp_path / "whole", "tag_f1")) == 4


def test_training_from_cached_features_equals_training_without(config_of, tmp_path):
    cached_as_uncached(train, config_of("oracle", **FROZEN), tmp_path)


def test_caches_know_what_was_said(config_of, tmp_path):
    """Features of the same pictures under another condition lie elsewhere, under other words beside
    them; what comes back is what the U-Net says."""
    names = ("uncond", "caption", "oracle", "classes")
    for count, name in enumerate(names, start=1):
        config = config_of(name, **{**FROZEN, "attention": []})
        assert caches_outputs(config)
        model = build(config).eval()
        module, table = training(config, model)
        run = module.run
        options = {"dtype": torch.float32, "progress": False}
        cached = cached_outputs(model, table, run.said, 2, tmp_path, **options)
        assert len(list(tmp_path.iterdir())) == count
        batch = table.draw(1)
        with torch.no_grad():
            want = module.features(batch)
        for got, one in zip(cached(batch.views).features, want.features, strict=True):
            torch.testing.assert_close(got, one, rtol=1e-4, atol=1e-4)
        before = len(cached.store)
        if name in ("caption", "oracle"):
            word = "a cube" if name == "caption" else (0,)
            other = cached_outputs(model, table, lambda picture, w=word: w, 2, tmp_path, **options)
            assert len(other.store) > before
            found, old = other(batch.views).features[0], cached(batch.views).features[0]
            assert not torch.equal(found, old)  # this U-Net listens a little


def test_an_adapter_that_trains_is_never_cached(config_of, tmp_path):
    for name in ("tagging", "implicit"):
        config = config_of(name, **FROZEN)
        assert not caches_outputs(config)
        model = build(config).eval()
        _, table = training(config, model)
        with pytest.raises(ValueError, match="without an adapter before the U-Net"):
            cached_outputs(model, table, None, 2, tmp_path)
    assert caches_outputs(config_of("uncond", freeze="unet"))  # it has none, whatever text_adapter


@pytest.mark.parametrize("name", ["implicit", "tagging"])
@pytest.mark.parametrize("cached", [False, True])
def test_pictures_and_mirror_images_are_seen_once(config_of, tmp_path, name, cached):
    config = config_of(name)
    model = build(config).eval()
    cache = tmp_path if cached else None
    _, table = training(config, model, cache=cache)
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        if cached:  # a second run finds what the first one saw
            patch.setattr(type(model), "look", lambda self, pixels: 1 / 0)
            _, table = training(config, model, cache=cache)
        for step in range(6):
            batch = table.draw(step)
            seen |= zip(batch.views.tolist(), batch.seen, strict=True)
    data = samples("semantic", config.data, progress=False)[0]
    for view, found in seen.items():
        image = data[view // 2].read_image()
        image = np.ascontiguousarray(image[:, ::-1]) if view % 2 else image
        want = model.look(to_network(image, SIZE))[0]
        torch.testing.assert_close(found, want, rtol=1e-2, atol=5e-3)
    assert len(seen) > 4


@pytest.fixture
def ade(tmp_path):
    rng = np.random.default_rng(0)
    stored = [rng.integers(1, 2 + i, (70, 90)).astype(np.uint8) for i in range(1, 5)]
    folder = trees.ade(tmp_path / "data", {"training": stored, "validation": stored[:2]}, ".png")
    (folder / "classes.txt").write_text("".join(f"{n}\n" for n in "abcde"))
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["tagging", "oracle"])
def test_augmented_pictures_are_seen_and_told_anew(config_of, ade, tmp_path, name):
    data = {"name": "ade20k", "root": str(ade), "split": "train", "val_split": "val",
            "val_limit": 2, "workers": 1}  # fmt: skip
    config = config_of(name, data=data, augment="full")
    told: list[DenseBatch] = []
    keep = SemanticTraining.context

    def context(self, batch):
        told.append((batch, found := keep(self, batch)))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SemanticTraining, "context", context)
        train(config)
    assert len(told) == 4
    for batch, context in told:
        if name == "tagging":
            assert batch.seen.shape[0] == 2
            continue
        # Picture i has the classes 0 ... i, whatever its crop shows.
        counts = [picture + 2 for picture in batch.pictures]
        mask = context.mask
        found = torch.full((2,), context.states.shape[1]) if mask is None else mask.sum(1)
        assert found.tolist() == counts


@pytest.mark.parametrize("targets", ["crop", "image"])
def test_the_multi_label_loss(config_of, targets):
    config = config_of("tagging", tag_weight=2.5, dropout=0.0)
    own = replace(config.tagging, targets=targets, gamma_neg=3.0, gamma_pos=1.0, clip=0.1)
    config = replace(config, tagging=own, loop=replace(config.loop, batch=4, micro_batch=2))
    model = build(config)
    module, table = training(config, model)
    table._data["targets"][:, : SIZE // 2] = 255
    model.eval()

    def step(shares, weight):
        module.config = replace(config, tag_weight=weight)
        found = [module.losses(0, shares.part(number)) for number in range(shares.passes)]
        return {key: sum(float(one[key].detach()) for one in found) for key in found[0]}

    whole = step(Shares(4), 2.5)
    batch = table.draw(0)
    data = samples("semantic", config.data, progress=False)[0]
    want, found, said, true = 0.0, 0, 0, 0
    context = module.context(batch)
    for row, (classes, logits) in enumerate(zip(batch.targets, context.tags, strict=True)):
        there = set(classes.flatten().tolist()) - {255}
        if targets == "image":
            there = set(present(data[batch.pictures[row]], 255))
        for k, logit in enumerate(logits.detach().double()):
            p = torch.sigmoid(logit)
            q = (p - 0.1).clamp(min=0)
            one = (1 - p) * p.log() if k in there else q**3 * (1 - q).log()
            want -= float(one) / 4
            found += int(k in there and logit > 0)
            said += int(logit > 0)
            true += int(k in there)
    assert whole["tag_loss"] == pytest.approx(want, rel=1e-4)
    assert (whole["tag_found"], whole["tag_said"], whole["tag_true"]) == (found, said, true)
    assert whole["loss"] == pytest.approx(step(Shares(4), 0.0)["loss"] + 2.5 * want, rel=1e-4)
    assert step(Shares(4, 2), 2.5)["loss"] == pytest.approx(whole["loss"], rel=1e-4)
    sums = {key: torch.tensor(value) for key, value in whole.items()}
    f1 = 200 * found / max(said + true, 1)
    assert float(module.logged(sums)["tag_f1"]) == pytest.approx(f1)


def test_parts_come_from_the_foundation(config_of):
    base = store.load_foundation(config_of("uncond").foundation)
    empty = base.encode_text([""])[0]
    assert torch.equal(build(config_of("uncond")).empty_states, empty)
    assert torch.equal(build(config_of("implicit")).empty_states, empty)
    oracle, classes = build(config_of("oracle")), build(config_of("classes"))
    assert torch.equal(oracle.class_embeddings, classes.class_embeddings)
    pooled = base.text(vpd.tokenize([""], length=64).ids).pooled
    torch.testing.assert_close(oracle.empty_embedding, pooled)
    tagging = build(config_of("tagging by tags"))
    for own, theirs in ((tagging.text, base.text), (tagging.clip["image"], base.clip.image)):
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(own.state_dict()[name], tensor)
    shape = tagging.adapter.config
    assert (shape.dim, shape.text_dim, shape.image_dim, shape.hidden) == (32, 32, 24, 64)
    assert tagging.config.map_scale == 4
    assert build(config_of("uncond")).config.map_scale == 16
    assert oracle.config.map_scale == 1


def test_frozen_encoders_in_half_precision(config_of, tmp_path):
    config = config_of("tagging by tags", frozen_dtype="bfloat16", freeze="unet")
    assert config.frozen == ("vae", "unet", "clip", "text")
    start = build(config).state_dict()
    train(config)
    for name, tensor in weights(tmp_path / "run").items():
        if name.startswith(("unet.", "clip.", "text.")):
            assert torch.equal(tensor, start[name].half()), name


def test_a_scale_does_not_decay(config_of):
    model = build(config_of("tagging", tagging={**TAGGING, "head_norm": "cosine"}))
    named = dict(model.named_parameters())
    rule = semantic_rule(named.items(), 0.1, False)
    assert rule("adapter.head.scale", named["adapter.head.scale"]) == (1.0, False)
    assert rule("adapter.norm.weight", named["adapter.norm.weight"]) == (1.0, False)
    assert rule("adapter.queries", named["adapter.queries"]) == (1.0, True)


@pytest.mark.parametrize("name", CONDITIONS)
def test_memory_is_foretold(config_of, name):
    config = config_of(name)
    found = dense_footprint(config, RECIPE.empty, RECIPE.training, tabletop.CLASSES)
    model = build(config)
    assert sum(part.total for part in found.parts) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("uncond", {"condition": "nothing"}, "condition"),
        ("oracle", {"attention": [2]}, r"attention must be \(\) with condition=oracle"),
        ("tagging", {"tag_weight": -1.0}, "tag_weight must not be negative"),
        ("tagging", {"tagging": {"text": "none", "image": False}}, "leave nothing to read"),
        ("tagging", {"weights": "sd.safetensors"}, "needs image_weights with weights"),
        ("implicit", {"image_weights": "clip.pt"}, "no others with a foundation"),
        ("tagging", {"frozen_dtype": "float16", "freeze": "unet"}, "to condition or lora"),
    ],
)
def test_mistakes_are_named(config_of, name, changes, message):
    with pytest.raises(ValueError, match=message):
        config_of(name, **changes)


def test_a_foundation_without_an_image_encoder_is_refused(config_of, tmp_path):
    config = config_of("tagging", foundation=write_foundation(tmp_path / "plain"))
    with pytest.raises(ValueError, match="needs a foundation with an image encoder"):
        build(config)
    with pytest.raises(ValueError, match="reads neither captions nor tags"):
        train(config_of("uncond", words="captions.json"))
    assert TaggingOptions().queries == 32
