"""The implicit captioner against ODISE's own outputs, and through the whole feature extraction:
CLIP embedding, context, time bias, U-Net."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from helpers import assert_close, load_golden, strip
from torch.nn import functional as F

import vpd
from vpd.models.clip_image import CLIPImageConfig
from vpd.models.unet import Taps, UNetConfig
from vpd.tasks.conditions import Implicit
from vpd.tasks.semantic_config import SemanticConfig

OWN = vpd.ImplicitCaptionerConfig(dim=64, image_dim=40, tokens=13, time_dim=128)
SMALL = vpd.ImplicitCaptionerConfig(dim=6, image_dim=5, tokens=4, time_dim=8)


@pytest.fixture(scope="module")
def case():
    return load_golden("odise_extractor")


@pytest.fixture(scope="module")
def official(case) -> vpd.ImplicitCaptioner:
    captioner = vpd.ImplicitCaptioner(OWN)
    weights = strip(case.weights, "backbone.feature_extractor.")
    captioner.load_state_dict(weights)
    return captioner


def test_context_matches_odise(case, official):
    empty = case.inputs["uncond_inputs"]
    embedding = case.outputs["clip_image_embed"]
    assert_close(official(embedding, empty).context, case.outputs["cond_inputs"])
    assert_close(official(embedding, empty[0]).context, case.outputs["cond_inputs"])


def test_what_the_unet_finds_matches_odise(case, official):
    """From pixels on: the image encoder's own resizing, both biases in the U-Net, its taps."""
    unet_config = UNetConfig(model_channels=32, channel_mult=(1, 2, 2, 2), context_dim=64)
    clip = CLIPImageConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1,
        image_size=48, patch_size=8, projection_dim=40,
    )  # fmt: skip
    config = SemanticConfig(
        unet=unet_config, condition="implicit", image=clip, token_length=13, classes=("a",),
        attention=(),
    )  # fmt: skip
    condition, model = Implicit(config), torch.nn.Module()
    condition.attach(model)
    vpd.load_weights(model.clip["image"], case.frozen_clip)
    model.adapter = official
    with torch.no_grad():
        seen = condition.look(model, case.inputs["image"] * 2 - 1)
        assert_close(seen, case.outputs["clip_image_embed"])
        found = condition.context(model, (case.inputs["uncond_inputs"], None), seen)
        assert_close(found.states, case.outputs["cond_inputs"])
        unet = vpd.UNet(unet_config)
        weights = load_golden("ldm_unet").weights
        unet.load_state_dict(weights)
        blocks = tuple(f"output_blocks.{i}" for i in (2, 5, 8, 11))
        taps = Taps(features=False, attention=(), block_inputs=blocks)
        out = unet(
            case.outputs["noisy_latent"], 0, found.states, time_bias=found.time_bias, taps=taps
        )
        for number, block in zip((2, 3, 4, 5), blocks, strict=True):
            assert_close(out.blocks[f"{block}:input"], case.outputs[f"feature{number}"], 3e-4)


def randomised(config: vpd.ImplicitCaptionerConfig) -> vpd.ImplicitCaptioner:
    captioner = vpd.ImplicitCaptioner(config).double()
    with torch.no_grad():
        for parameter in captioner.parameters():
            parameter.normal_()
    return captioner


@pytest.mark.parametrize("kind", ["gated", "mlp"])
@pytest.mark.parametrize("time_dim", [8, None])
def test_formulas(kind, time_dim):
    captioner = randomised(replace(SMALL, kind=kind, time_dim=time_dim))
    p = dict(captioner.named_parameters())
    v = torch.randn(3, 5, dtype=torch.double)
    empty = torch.randn(4, 6, dtype=torch.double)

    def linear(name, x):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    if kind == "gated":
        moved = linear("clip_project.linear", v)[:, None] + p["clip_project.positional_embedding"]
        want = empty + torch.tanh(p["alpha_cond"]) * moved
    else:
        hidden = F.gelu(linear("mlp.fc1", v))
        want = linear("mlp.fc2", hidden)[:, None] + p["mlp.positional_embedding"]
    out = captioner(v, empty if kind == "gated" else None)
    torch.testing.assert_close(out.context, want)
    if time_dim is None:
        assert out.time_bias is None
        return
    moved = linear("time_embed_project.linear", v) + p["time_embed_project.positional_embedding"][0]
    torch.testing.assert_close(out.time_bias, torch.tanh(p["alpha_cond_time_embed"]) * moved)


def test_training_starts_from_the_empty_sentence():
    captioner = vpd.ImplicitCaptioner(SMALL)
    empty = torch.randn(4, 6)
    out = captioner(torch.randn(2, 5), empty)
    assert torch.equal(out.context, empty.expand(2, -1, -1))
    assert not out.time_bias.any()
    (out.context.sin().sum() + out.time_bias.sum()).backward()
    assert captioner.alpha_cond.grad.any()
    assert captioner.alpha_cond_time_embed.grad.any()


def test_parameters_of_the_original_size():
    shapes = {k: tuple(v.shape) for k, v in vpd.ImplicitCaptioner().state_dict().items()}
    assert shapes == {
        "alpha_cond": (1, 77, 768),
        "clip_project.linear.weight": (768, 768),
        "clip_project.linear.bias": (768,),
        "clip_project.positional_embedding": (1, 77, 768),
        "alpha_cond_time_embed": (1280,),
        "time_embed_project.linear.weight": (1280, 768),
        "time_embed_project.linear.bias": (1280,),
        "time_embed_project.positional_embedding": (1, 1, 1280),
    }


def test_copies_pickles_and_bfloat16():
    captioner = randomised(SMALL).float()
    v, empty = torch.randn(2, 5), torch.randn(4, 6)
    want = captioner(v, empty)
    for other in (copy.deepcopy(captioner), pickle.loads(pickle.dumps(captioner))):
        assert torch.equal(other(v, empty).context, want.context)
    assert copy.deepcopy(captioner).bfloat16()(v, empty).time_bias.dtype == torch.bfloat16


def test_bad_input_is_explained():
    captioner, mlp = vpd.ImplicitCaptioner(SMALL), vpd.ImplicitCaptioner(replace(SMALL, kind="mlp"))
    v, empty = torch.zeros(2, 5), torch.zeros(4, 6)
    for net, inputs, message in (
        (captioner, (torch.zeros(2, 6), empty), r"image must be floating point \[B, 5\], got"),
        (captioner, (v.long(), empty), "image must be floating point"),
        (captioner, (v,), "empty, .* is expected with the gate, got none"),
        (mlp, (v, empty), "belongs to the gate"),
        (captioner, (v, empty[:3]), r"empty must be floating point \[4, 6\]"),
        (captioner, (v, empty.expand(3, 4, 6)), "for each of 2 images"),
    ):
        with pytest.raises(ValueError, match=message):
            net(*inputs)
    with pytest.raises(ValueError, match="kind must be 'gated' or 'mlp'"):
        replace(SMALL, kind="gate")
    with pytest.raises(ValueError, match="must be positive, got 0, 5, 4, 8 and 1"):
        vpd.ImplicitCaptioner(replace(SMALL, dim=0))
