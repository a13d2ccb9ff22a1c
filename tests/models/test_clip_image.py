"""CLIP's image tower against recorded outputs of transformers and against transformers itself."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import asdict, replace

import pytest
import torch
from helpers import assert_close, error, key_list, load_golden, strip

import vpd
from vpd.models.clip_image import clip_pixels

TINY = vpd.CLIPImageConfig(
    hidden_size=48, intermediate_size=120, num_hidden_layers=4, num_attention_heads=4,
    image_size=32, patch_size=8, projection_dim=40,
)  # fmt: skip
SMALL = vpd.CLIPImageConfig(
    hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3,
    image_size=12, patch_size=4, projection_dim=7,
)  # fmt: skip


def small(**changes) -> vpd.CLIPImageEncoder:
    return vpd.CLIPImageEncoder(replace(SMALL, **changes))


def of_transformers(config: vpd.CLIPImageConfig):
    """The same network there; without a projection its weights have no ``vision_model.``."""
    import transformers

    fields = {**asdict(config), "projection_dim": config.projection_dim or 8}
    with_head = transformers.CLIPVisionModelWithProjection
    kind = with_head if config.projection_dim else transformers.CLIPVisionModel
    return kind(transformers.CLIPVisionConfig(**fields))


def test_states_match_original():
    case = load_golden("clip_vision")
    encoder = vpd.CLIPImageEncoder(TINY)
    encoder.load_state_dict(case.weights)
    with torch.no_grad():
        out = encoder(case.inputs["pixel_values"])
    assert_close(out.last, case.outputs["last_hidden_state"])
    assert_close(out.penultimate, case.outputs["penultimate_hidden_state"])
    assert_close(out.projected, case.outputs["image_embeds"])


@pytest.mark.parametrize("size", [(12, 12), (20, 8), (16, 16), (4, 36)])
@pytest.mark.parametrize(("act", "projection"), [("quick_gelu", 7), ("gelu", None)])
def test_forward_and_gradients_match_transformers(size, act, projection):
    ours = small(hidden_act=act, projection_dim=projection).double()
    theirs = of_transformers(ours.config).double()
    reference = {k.removeprefix("vision_model."): p for k, p in theirs.named_parameters()}
    pairs = {k: reference.pop(k.removeprefix("vision_model.")) for k in ours.state_dict()}
    assert not reference
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.normal_(0, 0.3)
            pairs[name].copy_(parameter)

    pixels = torch.randn(2, 3, *size, dtype=torch.float64)
    mine, other = (pixels.clone().requires_grad_() for _ in range(2))
    got = ours(mine)
    resize = size != (12, 12)
    want = theirs(other, interpolate_pos_encoding=resize, output_hidden_states=True)
    post_layernorm = dict(theirs.named_modules())[
        "vision_model.post_layernorm" if projection else "post_layernorm"
    ]
    assert_close(got.last, want.last_hidden_state.detach(), 1e-9)
    assert_close(got.penultimate, want.hidden_states[-2].detach(), 1e-9)
    assert_close(got.hidden, post_layernorm(want.last_hidden_state).detach(), 1e-9)
    assert torch.equal(got.pooled, got.hidden[:, 0])
    readout = got.pooled if projection is None else got.projected
    expected = want.pooler_output if projection is None else want.image_embeds
    assert_close(readout, expected.detach(), 1e-9)
    assert (got.projected is None) == (projection is None)

    for states, head in ((got.last, readout), (want.last_hidden_state, expected)):
        (states.square().sum() + head.sin().sum()).backward()
    grads = {name: (p.grad, pairs[name].grad) for name, p in ours.named_parameters()}
    for name, (grad, reference_grad) in {**grads, "pixels": (mine.grad, other.grad)}.items():
        scale = reference_grad.abs().max() + 1e-6
        assert (grad - reference_grad).abs().max() <= 1e-8 * scale, name


def test_initial_weights_have_the_originals_spread():
    config = replace(SMALL, hidden_size=96, intermediate_size=200, image_size=80, projection_dim=64)
    theirs = dict(of_transformers(config).named_parameters())
    ours = dict(vpd.CLIPImageEncoder(config).named_parameters())
    assert ours.keys() == theirs.keys()
    for name, parameter in ours.items():
        want = theirs[name]
        if parameter.dim() < 2 and not name.endswith("class_embedding"):
            assert torch.equal(parameter, want), name
        else:
            spread = float(want.detach().std())
            assert abs(float(parameter.detach().mean())) < 6 * spread / math.sqrt(want.numel())
            tolerance = 0.1 if want.dim() > 1 else 0.4
            assert float(parameter.detach().std()) == pytest.approx(spread, rel=tolerance), name


def test_gradcheck():
    encoder = small(num_hidden_layers=1, hidden_size=4, intermediate_size=4, num_attention_heads=2,
                    image_size=4, patch_size=2, projection_dim=2).double()  # fmt: skip
    names = [name for name, _ in encoder.named_parameters()]

    def call(pixels, *values):
        params = dict(zip(names, values, strict=True))
        out = torch.func.functional_call(encoder, params, (pixels,))
        return out.hidden, out.projected

    values = [torch.randn_like(p).requires_grad_() for p in encoder.parameters()]
    pixels = torch.randn(1, 3, 2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(call, (pixels, *values))


@pytest.mark.parametrize("size", [(12, 12), (8, 16)])
def test_channels_last_changes_nothing(size):
    encoder, pixels = small(), torch.randn(2, 3, *size)
    want = encoder(pixels)
    got = encoder(pixels.contiguous(memory_format=torch.channels_last))
    vpd.nn.channels_last(encoder)
    again = encoder(pixels)
    for twin in (got, again):
        assert_close(twin.hidden, want.hidden.detach(), 1e-5)


def test_bfloat16_and_copies():
    encoder, pixels = small(), torch.randn(2, 3, 8, 16)
    want = encoder(pixels)
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(twin(pixels).projected, want.projected)
    with torch.autocast("cpu", torch.bfloat16):
        out = encoder(pixels)
    assert error(out.hidden, want.hidden.detach()) < 0.2
    out.projected.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)
    got = encoder.bfloat16()(pixels)  # float32 pixels are converted
    assert got.hidden.dtype == got.projected.dtype == torch.bfloat16
    assert error(got.hidden, want.hidden.detach()) < 0.2


@pytest.mark.parametrize(
    ("preset", "parameters", "tokens"),
    [
        ("vit_b32", 87_849_216, 50),
        ("vit_b16", 86_192_640, 197),
        ("vit_l14", 303_966_208, 257),
        ("vit_l14_336", 304_293_888, 577),
    ],
)
def test_presets_have_transformers_keys_and_published_sizes(preset, parameters, tokens):
    config = getattr(vpd.CLIPImageConfig, preset)()
    with torch.device("meta"):
        ours = vpd.CLIPImageEncoder(config)
        theirs = of_transformers(config)
        out = ours(torch.empty(2, 3, config.image_size, config.image_size))
        wide = ours(torch.empty(2, 3, 2 * config.patch_size, 3 * config.patch_size))
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    assert shapes == {name: value.shape for name, value in theirs.state_dict().items()}
    assert sum(value.numel() for value in ours.parameters()) == parameters
    assert out.hidden.shape == out.last.shape == (2, tokens, config.hidden_size)
    assert out.projected.shape == (2, config.projection_dim)
    assert wide.hidden.shape == (2, 7, config.hidden_size)


def test_full_size_keys_match_the_checkpoint():
    with torch.device("meta"):
        state = vpd.CLIPImageEncoder().state_dict()
    keys = strip(key_list("openai_clip_vitl14_vision")["tensors"], "transformers:")
    assert {name: list(value.shape) for name, value in state.items()} == keys


def test_clip_pixels_match_transformers():
    import transformers

    processor = (
        transformers.CLIPImageProcessorPil
        if hasattr(transformers, "CLIPImageProcessorPil")
        else transformers.CLIPImageProcessor
    )
    images = torch.randint(0, 256, (2, 3, 6, 5), dtype=torch.uint8)
    want = processor(do_resize=False, do_center_crop=False)(
        [image.permute(1, 2, 0).numpy() for image in images], return_tensors="pt"
    )["pixel_values"]
    unit = images.float() / 255
    torch.testing.assert_close(clip_pixels(unit, "unit"), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(clip_pixels(unit * 2 - 1), want, rtol=1e-5, atol=1e-5)
    assert clip_pixels(unit.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e(torch.zeros(1, 3, 12, 13)), "multiples of 4 .* got 12x13"),
        (lambda e: e(torch.zeros(1, 3, 0, 4)), "multiples of 4 .* got 0x4"),
        (lambda e: e(torch.zeros(1, 1, 12, 12)), r"float \[B, 3, H, W\], got float \[1, 1, 12"),
        (lambda e: e(torch.zeros(3, 12, 12)), r"float \[B, 3, H, W\]"),
        (lambda e: e(torch.zeros(1, 3, 12, 12).byte()), "got unsigned char"),
        (lambda e: small(hidden_size=13), "CLIPImageConfig: hidden_size .* got 13 and 3"),
        (lambda e: small(hidden_act="relu"), "quick_gelu or gelu, got 'relu'"),
        (lambda e: small(num_hidden_layers=0), "must be positive, got 20 and 0"),
        (lambda e: small(image_size=14), "multiple of patch_size, got 14 and 4"),
        (lambda e: small(patch_size=0), "got 12 and 0"),
        (lambda e: small(projection_dim=-1), "projection_dim not negative, got 3 and -1"),
        (lambda e: clip_pixels(torch.zeros(3, 4, 4)), r"float \[B, 3, H, W\], got torch.float32"),
        (lambda e: clip_pixels(torch.zeros(1, 3, 4, 4).byte()), "got torch.uint8"),
        (lambda e: clip_pixels(torch.zeros(1, 3, 4, 4), "byte"), "signed or unit, got 'byte'"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call(small())
