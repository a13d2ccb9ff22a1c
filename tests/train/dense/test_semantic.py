"""Training of semantic segmentation at toy scale: it learns, it can be interrupted, batches in
parts are those of the whole, augmented ones come again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import trees
from dense_toys import (
    SIZE,
    cached_as_uncached,
    curve,
    few_scenes,
    interrupted_and_whole,
    recipe,
    weights,
    write_foundation,
)
from processes import together

import vpd
from vpd.cli.parser import read
from vpd.data import tabletop
from vpd.data.augment import SemanticAugmentation, sample_generator
from vpd.images import to_network
from vpd.lora import LoraConfig
from vpd.models.unet import UNet
from vpd.protocol import NoiseSpec
from vpd.tasks.class_texts import ClassTexts

pytest.importorskip("lightning")
from vpd.train.dense.model import build_semantic
from vpd.train.dense.run import samples
from vpd.train.dense.semantic import SemanticTrainConfig, SemanticTraining, train
from vpd.train.dense.stream import StreamedTable, augmented_label
from vpd.train.dense.table import ResidentTable, label
from vpd.train.dense.training import DenseRun
from vpd.train.distributed import Processes
from vpd.train.loop.optimizer import norms, semantic_rule
from vpd.train.loop.parts import Shares

pytestmark = pytest.mark.usefixtures("few_scenes")

NAMES = ("floor", "wall", "ball", "cube", "ring")
FROZEN = {"freeze": "unet", "text_adapter": False}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("semantic")
    return {**recipe(write_foundation(folder / "foundation"), folder / "cache"), "channels": 8}


@pytest.fixture
def config(base, tmp_path) -> SemanticTrainConfig:
    return read(SemanticTrainConfig, {**base, "out": str(tmp_path / "run")})


def build(config):
    return build_semantic(config, tabletop.CLASSES)


def scenes(config):
    return samples("semantic", config.data, progress=False)[0]


def resident(config, model, **options) -> ResidentTable:
    options = {"flip": True, **options}
    return ResidentTable(model, scenes(config), label, config.loop.batch, config.seed, **options)


def test_it_learns_and_writes_a_model_that_segments(config, tmp_path):
    loop = replace(config.loop, steps=40, lr=2e-2, val_every=20)
    config = replace(config, loop=loop, **FROZEN, select="best")
    metrics = train(config)
    losses = curve(tmp_path / "run", "loss")
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert len(curve(tmp_path / "run", "mIoU")) == 2
    assert len(curve(tmp_path / "run", "accuracy")) == 40
    assert {"mIoU", "mAcc", "aAcc", "fwIoU"} <= set(metrics)
    assert metrics["n"] == 6
    model = vpd.load(tmp_path / "run" / "model")
    result = model(np.random.default_rng(0).random((50, 70, 3)))
    assert result.classes.shape == (50, 70)
    assert result.names == tabletop.CLASSES
    # The card says how it was made, and the weights that were kept are the best watched ones.
    best = torch.load(tmp_path / "run" / "best.ckpt", weights_only=True)["state_dict"]
    for name, tensor in weights(tmp_path / "run").items():
        if name in best:
            torch.testing.assert_close(tensor, best[name].to(tensor.dtype), msg=name)


@pytest.mark.parametrize(
    "change",
    [{}, {"augment": "full"}, {"lora": LoraConfig(rank=2), "head": "uper", "auxiliary": True}],
    ids=["whole", "augmented", "lora"],
)
def test_interrupted_training_equals_uninterrupted(config, tmp_path, change):
    interrupted_and_whole(SemanticTraining, train, replace(config, **change), tmp_path)
    name = "unet.input_blocks.0.0.weight"
    start, end = build(replace(config, **change)).state_dict(), weights(tmp_path / "whole")
    assert torch.equal(start[name].half(), end[name]) == ("lora" in change)


def test_training_from_cached_features_equals_training_without(config, tmp_path):
    cached_as_uncached(train, replace(config, **FROZEN), tmp_path)


def test_views_are_pictures_and_their_mirror_images(config):
    model = build(config).eval()
    table, data = resident(config, model), scenes(config)
    assert table.steps_per_epoch == 2
    seen = set()
    for step in range(40):
        batch, again = table.draw(step), table.draw(step)
        assert torch.equal(batch.latents, again.latents)
        for latents, target, view in zip(batch.latents, batch.targets, batch.views, strict=True):
            image, labels = data[int(view) // 2].read()
            if view % 2:
                image = image[:, ::-1]
            pixels = to_network(np.ascontiguousarray(image), SIZE)
            torch.testing.assert_close(latents, model.encode_image(pixels)[0], rtol=0, atol=3e-3)
            size = (SIZE, SIZE)
            small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
            want = torch.from_numpy(small)
            assert torch.equal(target, want.flip(-1) if view % 2 else want)
            seen.add(int(view))
    assert seen == set(range(8))
    epoch = torch.cat([table.draw(step).views for step in (4, 5)]) // 2
    assert sorted(epoch.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("average", ["all", "valid"])
def test_parts_of_a_batch_add_up_to_it(config, average):
    """Where no batch norm and no dropout stand in between: loss and gradients of the whole."""
    loop = replace(config.loop, batch=4, micro_batch=1)
    config = replace(
        config, loop=loop, average=average, head="uper", auxiliary=True, aux_weight=0.3
    )
    model = build(config)
    table = resident(config, model, flip=False)
    table._data["targets"][:, :20] = 255
    module = SemanticTraining(config, DenseRun(model, table))
    model.eval()

    def step(shares: list[Shares]) -> tuple[float, list[torch.Tensor]]:
        module.zero_grad()
        total = 0.0
        for share in shares:
            for number in range(share.passes):
                loss = module.losses(0, share.part(number))["loss"]
                loss.backward()
                total += float(loss.detach())
        return total, [p.grad for p in module.parameters() if p.grad is not None]

    loss, grads = step([Shares(4)])
    batch = table.draw(0)
    out = module.features(batch)
    target, size = batch.targets.long(), (SIZE, SIZE)
    want = 0.0
    for scores, weight in ((model.scores(out), 1.0), (model.aux_scores(out), 0.3)):
        logits = F.interpolate(scores, size, mode="bilinear", align_corners=False)
        total = F.cross_entropy(logits, target, ignore_index=255, reduction="sum")
        count = target.numel() if average == "all" else int((target != 255).sum())
        want = want + weight * total / count
    assert loss == pytest.approx(float(want), rel=1e-5)
    for shares in ([Shares(4, 1)], [Shares(4, 2, Processes(2, rank)) for rank in range(2)]):
        in_parts, grads_of_parts = step(shares)
        assert in_parts == pytest.approx(loss, rel=1e-5)
        for got, grad in zip(grads_of_parts, grads, strict=True):
            torch.testing.assert_close(got, grad, rtol=1e-3, atol=1e-6)


def test_dropout_depends_on_the_rows_of_a_step_alone(config):
    config = replace(config, dropout=0.5)
    model = build(config).train()
    module = SemanticTraining(config, DenseRun(model, resident(config, model)))

    def loss(step, rows):
        torch.rand(3)  # what was drawn before does not matter
        return float(module.losses(step, rows)["loss"])

    assert loss(0, slice(0, 2)) == loss(0, slice(0, 2))
    again = replace(config, seed=9)
    other = SemanticTraining(again, DenseRun(model, module.table))
    assert loss(0, slice(0, 2)) != float(other.losses(0, slice(0, 2))["loss"])


def test_groups_of_the_optimizer():
    """On the U-Net of Stable Diffusion v1, whose transformers have 128 tensors of norms."""
    with torch.device("meta"):
        unet = UNet()
        head = vpd.SemanticFPNHead(vpd.SemanticFPNHeadConfig((8,) * 4, 3, 8))
    named = [(f"unet.{name}", p) for name, p in unet.named_parameters()]
    named += [(f"head.{name}", p) for name, p in head.named_parameters()]

    def counts(quirk: bool) -> dict[tuple[float, bool], int]:
        rule = semantic_rule(named, 0.1, quirk)
        found: dict[tuple[float, bool], int] = {}
        for name, parameter in named:
            found[rule(name, parameter)] = found.get(rule(name, parameter), 0) + 1
        return found

    quirk = counts(True)
    assert quirk[1.0, False] == 128
    assert quirk[0.1, True] == 686 - 128
    assert quirk[1.0, True] == len(list(head.parameters()))
    plain = counts(False)
    # 22 residual blocks with two norms each and the one before the last convolution besides.
    assert plain[0.1, False] == 128 + 22 * 4 + 2
    assert plain[1.0, False] == 7 * 2  # batch norms of the head
    assert "head.scale_heads.0.0.bn.weight" in norms(named)
    assert "unet.out.2.bias" not in norms(named)


@pytest.fixture
def ade(tmp_path) -> Path:
    """ADE20K's layout with five classes; some pictures are smaller than a crop."""
    rng = np.random.default_rng(0)
    sizes = [(70, 90), (40, 120), (100, 60), (64, 64)]
    stored = [rng.integers(0, 6, size).astype(np.uint8) for size in sizes]
    folder = trees.ade(tmp_path / "data", {"training": stored, "validation": stored[:2]}, ".png")
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return tmp_path / "data"


def test_full_augmentation_of_a_data_set_on_disk(config, ade, tmp_path):
    data = replace(
        config.data, name="ade20k", root=str(ade), val_split="val", limit=None, workers=2
    )
    config = replace(config, data=data, augment="full", average="valid")
    train(config)
    assert vpd.load(tmp_path / "run" / "model").config.classes == NAMES

    model = build_semantic(config, NAMES).eval()
    augmentation = SemanticAugmentation((4 * SIZE, SIZE), crop=(SIZE, SIZE))
    found, _ = samples("semantic", data, progress=False)
    table = StreamedTable(model, found, augmented_label(augmentation, SIZE), 2, seed=3)
    order = {}
    for step in (1, 0, 7, 0, 1):  # whatever was asked for before
        whole, part = table.draw(step), table.draw(step, slice(1, 2))
        torch.testing.assert_close(whole.latents[1:], part.latents, rtol=1e-4, atol=1e-4)
        assert torch.equal(whole.targets[1:], part.targets)
        assert torch.equal(whole.targets, table.targets(step))
        same = order.setdefault(step, whole)
        assert torch.equal(same.latents, whole.latents)
        for place, row in enumerate(whole.views.tolist()):
            image, labels = augmentation(*found[row].read(), sample_generator(3, step, place))
            height, width = labels.shape
            seen = whole.targets[place]
            assert np.array_equal(seen[:height, :width], labels)
            assert (seen[height:] == 255).all()
            assert (seen[:, width:] == 255).all()
            pixels = torch.zeros(1, 3, SIZE, SIZE)
            pixels[..., :height, :width] = to_network(image, (height, width))
            want = model.encode_image(pixels)[0]
            torch.testing.assert_close(whole.latents[place], want, rtol=1e-4, atol=1e-4)
    assert sorted(torch.cat([order[0].views, order[1].views]).tolist()) == [0, 1, 2, 3]
    table.close()


@pytest.mark.parametrize("augment", ["flip", "full"])
def test_noise_comes_again(config, augment):
    fresh = NoiseSpec.preset("latent_match", noise_t=300, seed=None)
    sampled = NoiseSpec(latent_mode="sample")
    for noise in (fresh, sampled) if augment == "full" else (fresh,):
        model = build(replace(config, noise=noise)).eval()
        data = scenes(config)

        def table(seed, model=model, data=data):
            if augment == "flip":
                return ResidentTable(model, data, label, 2, seed)
            augmentation = SemanticAugmentation((4 * SIZE, SIZE), crop=(SIZE, SIZE))
            return StreamedTable(model, data, augmented_label(augmentation, SIZE), 2, seed)

        one, other = table(3), table(3)
        torch.rand(5)
        assert torch.equal(one.draw(1).latents, other.draw(1).latents)
        assert torch.equal(one.draw(1).latents, one.draw(1).latents)
        epoch = one.steps_per_epoch
        later = {s: one.draw(s) for s in range(epoch, 4 * epoch)}
        assert all(not torch.equal(one.draw(0).latents, b.latents) for b in later.values())
        one.close(), other.close()


def test_a_broken_label_is_named(config, ade):
    data = replace(config.data, name="ade20k", root=str(ade), limit=None)
    path = ade / "ADEChallengeData2016/annotations/training/ADE_train_00000003.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"00000003\.png: expected a label picture"):
        train(replace(config, data=data, augment="full"))


def test_texts_of_the_classes(config, tmp_path):
    embeddings = torch.randn(8, 32)
    path = ClassTexts(tabletop.CLASSES, embeddings).save(tmp_path / "texts.safetensors")
    assert torch.equal(build(replace(config, class_texts=str(path))).class_embeddings, embeddings)
    assert build(replace(config, condition="uncond")).config.map_scale == 16  # tokens of a sentence
    assert build(config).config.map_scale == 8
    assert build(replace(config, scale_maps=False)).config.map_scale == 1
    same = build(config).class_embeddings
    assert torch.equal(build(replace(config, seed=4)).class_embeddings, same)
    with pytest.raises(ValueError, match="expected 5 rows, one for each name, got 8"):
        build_semantic(replace(config, class_texts=str(path)), NAMES)
    ClassTexts(tabletop.CLASSES, torch.randn(8, 7)).save(path)
    with pytest.raises(ValueError, match="embeddings of 32 channels, as the U-Net reads, got 7"):
        build(replace(config, class_texts=str(path)))


def test_the_u_net_and_what_it_is_told(config):
    start = build(config)
    random = build(replace(config, unet_init="random"))
    name = "input_blocks.0.0.weight"
    assert not torch.equal(random.unet.get_parameter(name), start.unet.get_parameter(name))
    assert start.config.noise.latent_scale == start.config.scale_factor == 0.8
    assert build(replace(config, scale_latents=False)).config.noise.latent_scale == 1
    noisy = build(replace(config, protocol="latent_match", t=100)).config.noise
    assert (noisy.noise_t, noisy.timestep) == (100, 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"augment": "mirror"}, "augment must be one of"),
        ({"head": "sfpn"}, "head must be one of .*got 'sfpn'"),
        ({"protocol": "pixel", "noise": NoiseSpec()}, "protocol and noise were both given"),
        ({"lora": LoraConfig(), "freeze": "optimizer_only"}, "freeze=optimizer_only has no"),
        ({"frozen_dtype": "float16", "freeze": "unet"}, "to text_adapter or lora: choose bfloat16"),
        ({"crop": 0}, "crop must be at least 1 pixel, got 0"),
    ],
)
def test_mistakes_are_named(config, change, message):
    with pytest.raises(ValueError, match=message):
        replace(config, **change)


def test_data_that_does_not_fit_is_refused(config, ade, tmp_path):
    with pytest.raises(ValueError, match="ade20k is read from disk"):
        samples("semantic", replace(config.data, name="ade20k"))
    with pytest.raises(ValueError, match=r"data\.name=folder needs"):
        samples("semantic", replace(config.data, name="folder"))
    with pytest.raises(ValueError, match="at least one batch of 5 pictures, got 4"):
        train(replace(config, loop=replace(config.loop, batch=5)))


def test_frozen_networks_in_half_precision(config, tmp_path):
    config = replace(config, freeze="unet", frozen_dtype="bfloat16")
    start = build(config).state_dict()
    train(config)
    for name, tensor in weights(tmp_path / "run").items():
        if name.startswith(("unet.", "vae.")):
            assert torch.equal(tensor, start[name].half()), name


def run_in_parts(base: dict, out: Path) -> dict[str, float]:
    from vpd.train.distributed import present

    config = read(
        SemanticTrainConfig, {**base, "out": str(out), "dropout": 0.0, "average": "valid"}
    )
    loop = replace(config.loop, batch=4, micro_batch=2 // present().count, lr=2e-4)
    with few_scenes():
        return train(replace(config, loop=loop, augment="full"))


@pytest.mark.slow
def test_two_processes_train_as_one(base, tmp_path):
    one = run_in_parts(base, tmp_path / "one")
    first, second = together(run_in_parts, tmp_path / "out", base, tmp_path / "two")
    assert first == second == pytest.approx(one, abs=0.1)
    losses = [curve(tmp_path / name, "loss") for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
