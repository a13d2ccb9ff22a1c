"""Pre-training and referring training at toy scale: they run end to end, and an interrupted run
equals an uninterrupted one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from toys import few_scenes

import vpd
from vpd.lora import LoraConfig, load_lora, merge_lora
from vpd.models.autoencoder import AutoencoderConfig
from vpd.models.clip import CLIPConfig
from vpd.models.clip_image import CLIPImageConfig
from vpd.models.clip_text import CLIPTextConfig
from vpd.models.unet import UNetConfig
from vpd.tasks.foundation import FoundationConfig

pytest.importorskip("lightning")
from vpd.train.contrastive import ContrastiveStage
from vpd.train.denoiser import DenoiserStage
from vpd.train.loop import LoopConfig, optimizer_of, step_generator
from vpd.train.pretrain import PretrainConfig, _pin, pretrain
from vpd.train.refer import ReferData, ReferTrainConfig, build, train
from vpd.train.vae import VAEStage

TOY = FoundationConfig(
    unet=UNetConfig(
        model_channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(2,),
        num_heads=2, context_dim=16, norm_groups=4,
    ),
    vae=AutoencoderConfig(
        ch=8, ch_mult=(1, 1, 1), num_res_blocks=1, norm_groups=4, mid_attention=False
    ),
    text=CLIPTextConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    ),
    clip=CLIPConfig(
        text=CLIPTextConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            projection_dim=8,
        ),
        image=CLIPImageConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            image_size=128, patch_size=32, projection_dim=8,
        ),
        token_length=64,
    ),
    image_size=128,
    token_length=64,
)  # fmt: skip


def loop(**changes) -> LoopConfig:
    fields = {
        "steps": 4,
        "batch": 2,
        "val_every": 100,
        "checkpoint_every": 2,
        "log_every": 1,
        "precision": "32",
    }
    return LoopConfig(**{**fields, **changes})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("scenes"))


def toy_pretraining(out, cache) -> PretrainConfig:
    return PretrainConfig(
        out=str(out), model=TOY, scenes=6, captions_per_scene=2, cache_dir=cache, workers=1,
        progress=False,
        vae=VAEStage(loop=loop()),
        denoiser=DenoiserStage(loop=loop(ema=0.5, val_every=2), val_scenes=4),
        contrastive=ContrastiveStage(loop=loop()),
    )  # fmt: skip


@pytest.fixture(scope="module")
def small_val(request):
    """Splits of a few scenes instead of hundreds."""
    with few_scenes():
        yield


@pytest.fixture(scope="module")
def foundation(tmp_path_factory, cache, small_val):
    out = tmp_path_factory.mktemp("pretrain")
    metrics = pretrain(toy_pretraining(out, cache))
    return out, metrics


def test_pretraining_writes_a_model_that_loads(foundation):
    out, metrics = foundation
    model = vpd.load(out / "model")
    assert {
        "psnr", "loss/t500", "rise/t500", "pointing/color", "retrieval/text", "drawn/retrieval"
    } <= set(metrics)  # fmt: skip
    assert float(model.clip.logit_scale.exp()) == pytest.approx(1 / 0.07, rel=0.2)
    assert model.clip.embed_text(["a red cube"]).norm(dim=-1).item() == pytest.approx(1)
    for stage in ("vae", "denoiser", "contrastive"):
        assert (out / stage / "curves.png").stat().st_size > 0
    assert [p.name for p in sorted((out / "denoiser" / "pictures").iterdir())] == [
        "step-000002.png", "step-000004.png"
    ]  # fmt: skip
    assert (out / "samples.png").stat().st_size > 0
    card = json.loads((out / "model" / "config.json").read_text())["card"]
    assert card["data"]["scenes"] == 6
    latents = torch.load(out / "vae" / "last.ckpt", weights_only=True)
    assert latents["global_step"] == 4
    # Latents are scaled to unit variance.
    state = vpd.weights.read_state_dict(out / "vae" / "latents.safetensors")[0]
    assert abs(float(state["train"].float().std()) * model.config.scale_factor - 1) < 0.01


def test_a_finished_run_is_not_repeated_and_another_config_is_refused(foundation, cache):
    out, _ = foundation
    before = (out / "denoiser" / "weights.safetensors").stat().st_mtime_ns
    pretrain(toy_pretraining(out, cache))
    assert (out / "denoiser" / "weights.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="another config"):
        pretrain(replace(toy_pretraining(out, cache), seed=1))
    config = json.loads((out / "config.json").read_text())
    del config["denoiser"]["loop"]["optimizer"]  # as a version before that choice wrote it
    (out / "config.json").write_text(json.dumps(config))
    _pin(out, toy_pretraining(out, cache))
    assert "optimizer" in (out / "config.json").read_text()


def fails_at_step_3(step):
    """A training step that dies after the checkpoint of step 2."""

    def failing(self, batch):
        if self.global_step == 3:
            raise RuntimeError("power cut")
        return step(self, batch)

    return failing


def test_interrupted_pretraining_equals_uninterrupted(foundation, cache, tmp_path, monkeypatch):
    whole, _ = foundation
    from vpd.train import contrastive, denoiser, vae

    for module, name in (
        (vae, "VAETraining"),
        (contrastive, "ContrastiveTraining"),
        (denoiser, "DenoiserTraining"),
    ):
        cls = getattr(module, name)
        step = cls.training_step
        monkeypatch.setattr(cls, "training_step", fails_at_step_3(step))
        with pytest.raises(RuntimeError, match="power cut"):
            pretrain(toy_pretraining(tmp_path, cache))
        monkeypatch.setattr(cls, "training_step", step)
        if name == "VAETraining":
            pretrain(toy_pretraining(tmp_path, cache), "vae")
    pretrain(toy_pretraining(tmp_path, cache))
    a = vpd.weights.read_state_dict(whole / "model" / "model.safetensors")[0]
    b = vpd.weights.read_state_dict(tmp_path / "model" / "model.safetensors")[0]
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-4, msg=key)


def toy_refer(out, foundation, cache, **changes) -> ReferTrainConfig:
    fields = {
        "out": str(out), "foundation": str(foundation / "model"), "loop": loop(ema=0.5),
        "data": ReferData(split="train", limit=4, cache_dir=cache, workers=1, val_limit=2),
        "hidden": 8, "attention": (2,), "progress": False,
    }  # fmt: skip
    return ReferTrainConfig(**{**fields, **changes})


def test_referring_training_writes_a_model_that_segments(foundation, cache, tmp_path):
    folder, _ = foundation
    metrics = train(toy_refer(tmp_path, folder, cache))
    assert {"oIoU", "P@0.5", "pick", "text_blind/oIoU", "floor/random"} <= set(metrics)
    model = vpd.load(tmp_path / "model")
    result = model(torch.rand(3, 50, 70), "the small red cube")
    assert result.mask.shape == (50, 70)
    # The U-Net was fine-tuned, the autoencoder and the text encoder were not.
    base = vpd.load(folder / "model")
    assert not torch.equal(model.unet.get_parameter("input_blocks.0.0.weight"),
                           base.unet.get_parameter("input_blocks.0.0.weight"))  # fmt: skip
    name = "encoder.conv_in.weight"
    assert torch.equal(model.vae.get_parameter(name), base.vae.get_parameter(name))


def test_subsets_of_training_and_validation(foundation, cache, tmp_path, caplog):
    folder, _ = foundation
    data = ReferData(
        split="train", limit=4, cache_dir=cache, workers=1, subset=7, val_subset=4, val_limit=2
    )
    with caplog.at_level("INFO", logger="vpd"):
        metrics = train(toy_refer(tmp_path, folder, cache, data=data))
    assert " 7 sentences, " in caplog.text
    assert metrics["n"] == 4


def test_frozen_and_random_u_nets(foundation, cache, tmp_path):
    folder, _ = foundation
    config = toy_refer(
        tmp_path, folder, cache, freeze="unet", select="best", loop=loop(val_every=2)
    )
    start = build(config)
    train(config)
    end = vpd.load(tmp_path / "model")
    name = "input_blocks.0.0.weight"
    torch.testing.assert_close(
        end.unet.get_parameter(name), start.unet.get_parameter(name).half().float()
    )
    random = build(replace(config, unet_init="random"))
    assert not torch.equal(random.unet.get_parameter(name), start.unet.get_parameter(name))


def test_lora(foundation, cache, tmp_path):
    folder, _ = foundation
    config = toy_refer(tmp_path, folder, cache, lora=LoraConfig(rank=2), recompute="all")
    train(config)
    base, model = vpd.load(folder / "model"), vpd.load(tmp_path / "model")
    unet = build(config).unet
    names = load_lora(unet, tmp_path / "lora.safetensors")
    merge_lora(unet)
    changed = {
        name
        for name, tensor in model.unet.state_dict().items()
        if not torch.equal(tensor, base.unet.state_dict()[name])
    }
    assert changed
    assert changed <= set(names)
    for name in names:  # the model folder keeps float16
        torch.testing.assert_close(
            model.unet.state_dict()[name], unet.state_dict()[name], rtol=1e-3, atol=1e-3
        )


def test_left_out_of_the_optimizer(foundation, cache, tmp_path):
    folder, _ = foundation
    train(toy_refer(tmp_path, folder, cache, freeze="optimizer_only"))
    base, model = vpd.load(folder / "model"), vpd.load(tmp_path / "model")
    for name, tensor in base.unet.state_dict().items():
        assert torch.equal(model.unet.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "changes",
    [{}, {"lora": LoraConfig(rank=2)}, {"train_text": True}],
    ids=["whole", "lora", "text"],
)
def test_interrupted_referring_training_equals_uninterrupted(
    foundation, cache, tmp_path, monkeypatch, changes
):
    from vpd.train.refer_training import ReferTraining

    folder, _ = foundation
    train(toy_refer(tmp_path / "whole", folder, cache, **changes))
    step = ReferTraining.training_step
    monkeypatch.setattr(ReferTraining, "training_step", fails_at_step_3(step))
    with pytest.raises(RuntimeError, match="power cut"):
        train(toy_refer(tmp_path / "parts", folder, cache, **changes))
    monkeypatch.setattr(ReferTraining, "training_step", step)
    train(toy_refer(tmp_path / "parts", folder, cache, **changes))
    a = vpd.weights.read_state_dict(tmp_path / "whole" / "model" / "model.safetensors")[0]
    b = vpd.weights.read_state_dict(tmp_path / "parts" / "model" / "model.safetensors")[0]
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-4, msg=key)


def test_an_epoch_visits_every_object_once(foundation, cache):
    from vpd.data import tabletop
    from vpd.train.refer_table import ReferTable, tabletop_refs

    folder, _ = foundation
    model = build(toy_refer("unused", folder, cache))
    split = tabletop.load_split("train", cache, limit=4, progress=False)
    refs = list(tabletop_refs(split))
    table = ReferTable(model, list(split.images[:]), refs, batch=1, seed=3)
    seen = []
    for step in range(table.steps_per_epoch):
        batch = table.draw(step)
        again = table.draw(step)
        assert torch.equal(batch.masks, again.masks)
        assert torch.equal(batch.ids, again.ids)
        seen += [
            i
            for i, ref in enumerate(refs)
            if torch.equal(batch.masks[0], torch.from_numpy(ref.mask).long())
        ]
    assert sorted(seen) == list(range(len(refs)))


def test_objects_of_a_picture_stand_together(foundation, cache):
    from vpd.data import tabletop
    from vpd.train.refer_table import ReferTable, tabletop_refs

    folder, _ = foundation
    model = build(toy_refer("unused", folder, cache))
    split = tabletop.load_split("train", cache, limit=4, progress=False)
    refs = list(tabletop_refs(split))
    table = ReferTable(model, list(split.images[:]), refs, batch=6, seed=3, together=3)
    seen = set()
    for step in range(table.steps_per_epoch):
        batch = table.draw(step)
        assert torch.equal(batch.index, batch.index[::3].repeat_interleave(3))
        assert len(batch.latents) == len(batch.index.unique())
        pictures = table.pictures[batch.samples].view(2, 3)
        assert torch.equal(pictures, pictures[:, :1].expand(2, 3))
        seen |= {hash(mask.numpy().tobytes()) for mask in batch.masks}
    everything = {hash(torch.from_numpy(ref.mask).long().numpy().tobytes()) for ref in refs}
    assert seen <= everything
    assert len(seen) > len(everything) - 6  # the last, incomplete batch is dropped
    with pytest.raises(ValueError, match="together must divide the batch of 6, got 4"):
        ReferTable(model, list(split.images[:]), refs, batch=6, seed=3, together=4)


def test_the_optimizer_of_a_config():
    """One step against the papers' formulas: both divide the gradient by its own size at first;
    Adam has the weight decay in it, AdamW beside it."""
    start, gradient = torch.tensor([2.0, -3.0]), torch.tensor([0.5, 1e-3])
    for name in ("adamw", "adam"):
        weight = torch.nn.Parameter(start.clone())
        config = LoopConfig(lr=0.1, weight_decay=0.01, warmup=0, optimizer=name)
        optimizer = optimizer_of([{"params": [weight]}], config, lambda step: 1.0)["optimizer"]
        weight.grad = gradient.clone()
        optimizer.step()
        whole = gradient + 0.01 * start if name == "adam" else gradient
        decayed = start if name == "adam" else start * (1 - 0.1 * 0.01)
        torch.testing.assert_close(weight.detach(), decayed - 0.1 * whole / (whole.abs() + 1e-8))
    with pytest.raises(ValueError, match="optimizer must be 'adamw' or 'adam', got 'sgd'"):
        LoopConfig(optimizer="sgd")


def test_randomness_depends_on_seed_and_step_only():
    a = torch.rand(3, generator=step_generator(1, 5))
    assert torch.equal(a, torch.rand(3, generator=step_generator(1, 5)))
    assert not torch.equal(a, torch.rand(3, generator=step_generator(1, 6)))
    assert not torch.equal(a, torch.rand(3, generator=step_generator(2, 5)))
