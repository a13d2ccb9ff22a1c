"""Frozen networks in half precision: what is held how, gradients through them, and that nothing
saved is rounded."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toys import TOY, few_scenes, recipe

import vpd
from vpd.config import from_dict
from vpd.lora import LoraConfig, load_lora, lora_parameters, merge_lora
from vpd.tasks import store
from vpd.tasks.evaluate import evaluate_refer
from vpd.tasks.foundation import Foundation

pytest.importorskip("lightning")
from vpd.train.caching.latents import latents_name
from vpd.train.loop.frozen import check_frozen, hold_frozen, restore_frozen
from vpd.train.refer import ReferTrainConfig, build, train
from vpd.train.refer.data import val_samples
from vpd.train.refer.footprint import _batch
from vpd.train.refer.training import ReferTraining

NATIVE_HALF = torch.ops.mkldnn._is_mkldnn_fp16_supported()


@pytest.fixture(scope="module", autouse=True)
def _six_val_scenes():
    with few_scenes():
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ReferTrainConfig:
    """On a foundation whose U-Net listens to sentences: none of it is zero, as layers are at
    first."""
    folder = tmp_path_factory.mktemp("frozen")
    torch.manual_seed(5)
    foundation = Foundation(TOY)
    with torch.no_grad():
        for parameter in foundation.unet.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.2)
    store.save(foundation, folder / "foundation")
    fields = recipe(str(folder / "foundation"), folder / "cache")
    return replace(
        from_dict(ReferTrainConfig, fields),
        out=str(folder / "out"), progress=False, freeze="unet", frozen_dtype="bfloat16",
    )  # fmt: skip


def started(config) -> ReferTraining:
    model = build(config)
    with torch.no_grad():
        model.adapter.get_parameter("gamma").fill_(0.2)
    hold_frozen(model, config)
    return ReferTraining(model, config)


def step(config, precision=None) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of a batch."""
    training = started(config)
    model = training._whole.model
    batch = _batch(replace(config, loop=replace(config.loop, batch=4)), model.config)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(batch.latents.shape, generator=generator)
    ids = torch.randint(300, 1500, batch.ids.shape, generator=generator)
    masks = (torch.rand(batch.masks.shape, generator=generator) > 0.7).long()
    batch = replace(batch, latents=latents, ids=ids, masks=masks, whole_pixels=int(masks.sum()))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = training.loss(batch)
    loss.backward()
    return float(loss), {n: p.grad for n, p in training.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("changes", "half"),
    [
        ({}, {"vae", "text", "unet"}),
        ({"freeze": "none"}, {"vae", "text"}),
        ({"freeze": "optimizer_only"}, {"vae", "text"}),
        ({"freeze": "none", "train_text": True}, {"vae"}),
        ({"freeze": "none", "lora": LoraConfig(rank=2)}, {"vae", "text", "unet"}),
        ({"frozen_dtype": "float32"}, set()),
    ],
)
def test_what_does_not_train_is_held_in_half_precision(config, changes, half):
    training = started(replace(config, **changes))
    for name, part in training._whole.model.named_children():
        found = {p.dtype for p in part.parameters() if not p.requires_grad}
        assert torch.bfloat16 not in {p.dtype for p in part.parameters() if p.requires_grad}
        assert (torch.bfloat16 in found) == (name in half), name
    assert {p.dtype for p in training.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "changes",
    [{}, {"train_text": True}, {"lora": LoraConfig(rank=2)}, {"recompute": "all"}],
    ids=["adapter", "text", "lora", "recomputed"],
)
def test_gradients_pass_through_a_frozen_u_net_in_bfloat16(config, changes):
    config = replace(config, **changes)
    loss, gradients = step(config)
    want, exact = step(replace(config, frozen_dtype="float32"))
    assert loss == pytest.approx(want, rel=0.02)
    assert gradients.keys() == exact.keys()
    through = [name for name in exact if name.startswith(("adapter.", "text.", "lora."))]
    assert through
    for names in (through, [name for name in exact if name.startswith("decoder.")]):
        a, b = (torch.cat([g[name].flatten() for name in names]) for g in (gradients, exact))
        assert a.dtype == torch.float32
        assert b.norm() > 0
        assert float(torch.cosine_similarity(a, b, dim=0)) > 0.97


def test_under_autocast_it_changes_little(config):
    loss, gradients = step(config, "bf16")
    want, exact = step(replace(config, frozen_dtype="float32"), "bf16")
    assert loss == pytest.approx(want, rel=0.02)
    a, b = (torch.cat([g[name].flatten() for name in exact]) for g in (gradients, exact))
    assert float(torch.cosine_similarity(a, b, dim=0)) > 0.97


@pytest.mark.skipif(not NATIVE_HALF, reason="needs float16 arithmetic")
def test_float16_where_no_gradient_passes(config):
    config = replace(config, text_adapter=False, frozen_dtype="float16")
    loss, _ = step(config)
    want, _ = step(replace(config, frozen_dtype="float32"))
    assert loss == pytest.approx(want, rel=0.005)


def test_low_ranks_are_float32_beside_half_weights(config):
    training = started(replace(config, lora=LoraConfig(rank=2)))
    unet = training._whole.model.unet
    low = lora_parameters(unet)
    assert {p.dtype for p in low.values()} == {torch.float32}
    name = next(iter(low)).removesuffix(":A")
    owner, _, leaf = name.rpartition(".")
    module = unet.get_submodule(owner)
    before = getattr(module, leaf).clone()
    with torch.no_grad():
        low[f"{name}:B"].normal_(0, 0.3)
    change = low[f"{name}:B"] @ low[f"{name}:A"]
    assert torch.equal(getattr(module, leaf), (before.float() + change).bfloat16())


@pytest.mark.parametrize(
    "changes", [{}, {"lora": LoraConfig(rank=2), "freeze": "none"}], ids=["frozen", "lora"]
)
def test_nothing_saved_is_rounded(config, tmp_path, changes):
    config = replace(config, out=str(tmp_path), **changes)
    metrics = train(config)
    base, model = vpd.load(config.foundation), vpd.load(tmp_path / "model")
    names: list[str] = []
    expected = base.unet.state_dict()
    if config.lora is not None:
        names = load_lora(base.unet, tmp_path / "lora.safetensors")
        merge_lora(base.unet)
        merged = base.unet.state_dict()
        changed = [n for n in names if not torch.equal(merged[n].half().float(), expected[n])]
        assert changed
        expected = merged
    for name, tensor in model.unet.state_dict().items():
        assert torch.equal(tensor, expected[name].half().float()), name
    for part in ("vae", "text"):
        whole = getattr(base, part).state_dict()
        for name, tensor in getattr(model, part).state_dict().items():
            assert torch.equal(tensor, whole[name]), name
    # What is scored at the end is what is saved, to float16.
    again = evaluate_refer(model, val_samples(config.data, False), progress=False).metrics
    assert again["mIoU"] == pytest.approx(metrics["mIoU"], abs=0.5)


def test_whole_weights_come_back(config):
    model = build(config)
    decoder = {name: p.clone() for name, p in model.decoder.named_parameters()}
    whole = {name: p.clone() for name, p in model.named_parameters()}
    hold_frozen(model, config)
    with torch.no_grad():
        for p in model.decoder.parameters():
            p.add_(1)
    restore_frozen(model, config, torch.device("cpu"), build)
    for name, p in model.named_parameters():
        if name.startswith("decoder."):
            assert torch.equal(p, decoder[name.removeprefix("decoder.")] + 1)
        else:
            assert torch.equal(p, whole[name]), name


def test_latents_of_rounded_networks_have_stores_of_their_own(config):
    found = set()
    for dtype in ("float32", "bfloat16", "float16"):
        other = replace(config, text_adapter=False, frozen_dtype=dtype)
        model = build(other)
        hold_frozen(model, other)
        found.add(latents_name(model))
    assert len(found) == 3


def test_training_from_cached_features(config, tmp_path):
    found = []
    for cache in ("none", "float32"):
        out = tmp_path / cache
        train(replace(config, text_adapter=False, feature_cache=cache, out=str(out)))
        found.append(vpd.weights.read_state_dict(out / "model" / "model.safetensors")[0])
    start = build(config).decoder.state_dict()
    for name, tensor in start.items():
        plain, cached = (one[f"decoder.{name}"].float() for one in found)
        if plain.dim() == 4:  # Adam turns rounding into steps, so elements may differ
            assert (cached - plain).norm() < 0.2 * (plain - tensor).norm(), name


def test_choices_that_do_not_go_together_are_refused(config, monkeypatch):
    with pytest.raises(ValueError, match=r"lose small gradients .* choose bfloat16"):
        replace(config, frozen_dtype="float16")
    half = replace(config, text_adapter=False, frozen_dtype="float16")
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: True)
    check_frozen(half, cpu)
    with pytest.raises(ValueError, match=r"loop\.precision=bf16 computes in bfloat16 here"):
        check_frozen(replace(half, loop=replace(half.loop, precision="bf16")), cpu)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False)
    with pytest.raises(ValueError, match="needs a GPU or a processor with float16"):
        check_frozen(half, cpu)
    check_frozen(half, torch.device("cuda"))
    check_frozen(config, cpu)
