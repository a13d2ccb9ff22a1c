"""Pre-training at toy scale: it runs end to end, and an interrupted run equals an uninterrupted
one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from dense_toys import fails_at_step_3
from toys import few_scenes

import vpd
from vpd.models.autoencoder import AutoencoderConfig
from vpd.models.clip import CLIPConfig
from vpd.models.clip_image import CLIPImageConfig
from vpd.models.clip_text import CLIPTextConfig
from vpd.models.unet import UNetConfig
from vpd.tasks.foundation import FoundationConfig

pytest.importorskip("lightning")
from vpd.train.loop.config import LoopConfig
from vpd.train.pretrain.contrastive import ContrastiveStage
from vpd.train.pretrain.denoiser import DenoiserStage
from vpd.train.pretrain.run import PretrainConfig, pretrain
from vpd.train.pretrain.vae import VAEStage

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
    with pytest.raises(ValueError, match="holds a run with seed = 0, expected 1"):
        pretrain(replace(toy_pretraining(out, cache), seed=1))
    config = json.loads((out / "recipe.json").read_text())
    del config["denoiser"]["loop"]["optimizer"]  # as a version before that choice wrote it
    (out / "recipe.json").write_text(json.dumps(config))
    pretrain(toy_pretraining(out, cache))
    assert "optimizer" in (out / "recipe.json").read_text()


def test_interrupted_pretraining_equals_uninterrupted(foundation, cache, tmp_path, monkeypatch):
    whole, _ = foundation
    from vpd.train.pretrain import contrastive, denoiser, vae

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
