"""ODISE's features against its own outputs; steps and windows against slow loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import assert_close, load_golden, strip
from tiny import CLIP, PARTS
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import vpd
from vpd.models.clip_image import clip_pixels
from vpd.tasks.odise_config import OdiseFeaturesConfig
from vpd.tasks.odise_features import OdiseFeatures
from vpd.tasks.store import read_config
from vpd.tasks.windows import Overlap, slide_windows

OFFICIAL = OdiseFeaturesConfig(
    unet=vpd.UNetConfig(model_channels=32, channel_mult=(1, 2, 2, 2), context_dim=64),
    vae=vpd.AutoencoderConfig(ch=32, ch_mult=(1, 2, 1, 1)),
    image=vpd.CLIPImageConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1,
        image_size=48, patch_size=8, projection_dim=40,
    ),
    image_size=128,
    token_length=13,
    noise_size=64,
    projection_dim=128,
)  # fmt: skip
SMALL = OdiseFeaturesConfig(
    **{key: PARTS[key] for key in ("unet", "vae", "image_size", "token_length", "scale_factor")},
    image=CLIP.image,
    projection_dim=16,
    norm_groups=2,
)


@pytest.fixture(scope="module")
def case():
    return load_golden("odise_extractor")


@pytest.fixture(scope="module")
def official(case) -> OdiseFeatures:
    model = OdiseFeatures(OFFICIAL).eval()
    model.vae.load_state_dict(strip(case.weights, "<SD first_stage_model.>"))
    model.unet.load_state_dict(strip(case.weights, "<SD model.diffusion_model.>"))
    model.adapter.load_state_dict(strip(case.weights, "backbone.feature_extractor."))
    projections = {k: v for k, v in strip(case.weights, "backbone.").items() if "projections" in k}
    model.backbone.load_state_dict(projections)
    vpd.load_weights(model.clip["image"], case.frozen_clip)
    model.empty_states.copy_(case.inputs["uncond_inputs"][0])
    return model


def small(seed: int = 0, **changes) -> OdiseFeatures:
    torch.manual_seed(seed)
    model = OdiseFeatures(replace(SMALL, **changes)).eval()
    with torch.no_grad():
        model.empty_states.normal_()
        for parameter in model.parameters():
            if not parameter.any():  # else nothing that the U-Net is told would matter
                parameter.normal_(0, 0.2)
    return model


def test_features_match_odise(case, official):
    with torch.no_grad():
        seen = official.look(case.inputs["image"])
        assert_close(seen.embedding, case.outputs["clip_image_embed"])
        assert_close(official.noisy(seen.latents)[0], case.outputs["noisy_latent"])
        told = official.context(seen.embedding)
        assert_close(told.states, case.outputs["cond_inputs"])
        assert_close(told.time_bias[:, 0], case.outputs["cond_emb"])
        taps = official.taps(seen)
    assert len(taps) == 8
    for number, tap in enumerate(taps):
        want = case.outputs[f"feature{number}"]
        torch.testing.assert_close(tap, want, rtol=1e-4, atol=1e-4 * float(want.std()))


def test_pyramid_matches_odise(case, official):
    """The windows of the wide picture overlap."""
    assert official.backbone.config.in_channels == tuple(case.info["config"]["feature_dims"])
    assert official.backbone.config.in_strides == tuple(case.info["config"]["feature_strides"])
    with torch.no_grad():
        maps = official.pyramid(case.inputs["image_wide"])
    assert official.backbone.strides == (4, 8, 16, 32)
    for level, map_ in enumerate(maps, 2):
        recorded = map_[:, ::4] if level < 4 else map_
        assert_close(recorded, case.outputs[f"backbone.s{level}"], 3e-4)


def test_defaults_are_odises_taps_of_stable_diffusion():
    with torch.device("meta"):
        model = OdiseFeatures(OdiseFeaturesConfig())
    encoder, unet, decoder = model.config.taps()
    assert [tap.name for tap in encoder] == ["encoder.down.2.block.1", "encoder.down.3.block.1"]
    assert [tap.name for tap in unet] == [f"output_blocks.{i}" for i in (2, 5, 8, 11)]
    assert [tap.name for tap in decoder] == ["decoder.up.3.block.2", "decoder.up.2.block.2"]
    assert model.backbone.config == vpd.OdiseBackboneConfig()
    numbers = {"encoder_blocks": (5, 7), "unet_blocks": (2, 5, 8, 11), "decoder_blocks": (2, 5)}
    assert OdiseFeaturesConfig(**numbers).taps() == model.config.taps()
    assert model.multiple == 32
    assert model.config.multiple == 64


def test_taps_of_a_smaller_model():
    base = read_config("vpd-mini")
    config = replace(SMALL, unet=base.unet, vae=base.vae, image=base.clip.image, image_size=128)
    taps = [(tap.name, tap.stride) for own in config.taps() for tap in own]
    assert taps == [
        ("encoder.down.1.block.0", 2),
        ("encoder.down.2.block.0", 4),
        ("output_blocks.1", 32),
        ("output_blocks.3", 16),
        ("output_blocks.5", 8),
        ("output_blocks.7", 4),
        ("decoder.up.2.block.1", 4),
        ("decoder.up.1.block.1", 2),
    ]
    found = OdiseFeatures(
        replace(SMALL, encoder_blocks=(), unet_blocks=(0, 3), decoder_blocks=(1,))
    )
    assert found.backbone.config.in_channels == (32 + 32, 32 + 32, 16)
    assert found.backbone.config.in_strides == (32, 16, 4)


def test_each_feature_is_a_blocks_input():
    """Those that the autoencoder's own taps and the U-Net's find, at the stride that is claimed."""
    model, pixels = small(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        taps = model.taps(model.look(pixels))
    config = model.backbone.config
    for tap, channels, stride in zip(taps, config.in_channels, config.in_strides, strict=True):
        assert tap.shape == (1, channels, 64 // stride, 64 // stride)


@pytest.mark.parametrize("kind", ["gated", "mlp"])
def test_several_steps_are_as_many_passes(kind):
    steps = (0, 300, -1, 999)
    model, pixels = small(steps=steps, captioner=kind).double(), torch.rand(2, 3, 64, 96).double()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.double) ** 2
    alpha_bar = (1 - betas).cumprod(0)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(42))
    noise = F.interpolate(noise, (16, 24), mode="bicubic", align_corners=False).double()
    with torch.no_grad():
        seen = model.look(pixels)
        taps = model.taps(seen)
        told = model.context(seen.embedding)
        assert told.time_bias.shape == (2, 4, 64)
        z = 0.8 * model.vae.encode(2 * pixels - 1).mode()
        want = list(seen.encoder)
        for number, t in enumerate(steps):
            x = z if t < 0 else alpha_bar[t].sqrt() * z + (1 - alpha_bar[t]).sqrt() * noise
            blocks = ("output_blocks.1", "output_blocks.3", "output_blocks.5", "output_blocks.7")
            out = model.unet(
                x, max(t, 0), told.states, time_bias=told.time_bias[:, number],
                taps=vpd.Taps(noise=True, attention=(), block_inputs=blocks),
            )  # fmt: skip
            want += [out.blocks[f"{block}:input"] for block in blocks]
        want += model.vae.decode(
            z / 0.8, taps=("decoder.up.2.block.1:input", "decoder.up.1.block.1:input")
        ).values()
    assert len(taps) == len(want) == 4 + 4 * 4
    for got, one in zip(taps, sorted_like(want, taps), strict=True):
        torch.testing.assert_close(got, one, rtol=1e-6, atol=1e-7)
    with torch.no_grad():
        maps = model.pyramid(pixels[:, :, :, :64])
    assert [map_.shape[2] for map_ in maps] == [16, 8, 4, 2]


def sorted_like(found, taps):
    """A dict of taps comes by name: the decoder's coarser block first."""
    decoder = sorted(found[-2:], key=lambda tap: tap.shape[2])
    assert decoder[0].shape == taps[-2].shape
    return [*found[:-2], *decoder]


@pytest.mark.parametrize(
    ("size", "side"), [((64, 160), None), ((96, 160), None), ((160, 96), 64), ((64, 64), 32)]
)
def test_windows_are_averaged(size, side):
    model, image = small(), torch.rand(2, 3, *size)
    side_ = side or min(size)
    overlaps = [Overlap(size[0] // stride, size[1] // stride) for stride in model.backbone.strides]
    with torch.no_grad():
        for y, x in slide_windows(*size, side_, side_):
            crop = image[:, :, y : y + side_, x : x + side_]
            seen = F.interpolate(crop, (64, 64), mode="bicubic", align_corners=False)
            maps = model.backbone(model.taps(model.look(seen)), (side_, side_))
            for overlap, map_, stride in zip(overlaps, maps, model.backbone.strides, strict=True):
                overlap.add(map_, y // stride, x // stride)
        want = [overlap.mean() for overlap in overlaps]
        for batch in (1, 4, 100):
            found = model.pyramid(image, side=side, batch=batch)
            for got, one in zip(found, want, strict=True):
                torch.testing.assert_close(got, one, rtol=1e-4, atol=1e-4)


def test_windows_of_training_are_the_models_own_size():
    model, image = small(), torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        whole = model.pyramid(image)
        cut = model.pyramid(image, side=64)
        trained = model.train().pyramid(image)
        low = model.pyramid(image[:, :, :32])
        as_they_are = model.eval().pyramid(image[:, :, :32])
    assert all(torch.equal(a, b) for a, b in zip(cut, trained, strict=True))
    assert not torch.allclose(whole[0], cut[0], atol=1e-2)
    assert all(torch.equal(a, b) for a, b in zip(low, as_they_are, strict=True))


def test_nothing_behind_a_tapped_input_is_computed():
    model, costs = small(), []
    latents, states = torch.randn(1, 4, 16, 16), torch.randn(1, 5, 32)
    for side in ("input", "output"):
        taps = vpd.Taps(features=False, attention=(), **{f"block_{side}s": ("output_blocks.7",)})
        with FlopCounterMode(display=False) as unet, torch.no_grad():
            model.unet(latents, 0, states, taps=taps)
        with FlopCounterMode(display=False) as decoder, torch.no_grad():
            model.vae.decode(latents, taps=(f"decoder.up.1.block.1:{side}",))
        costs.append((unet.get_total_flops(), decoder.get_total_flops()))
    # Two 3 x 3 convolutions of 16 to 16 channels on 32 x 32 pixels.
    assert costs[1][1] - costs[0][1] == 2 * 2 * 9 * 16 * 16 * 32 * 32
    assert 0 < costs[0][0] < costs[1][0]


def test_windows_run_in_chunks(monkeypatch):
    model, rows = small(steps=(0, 50)), []
    forward = model.unet.forward

    def counted(latents, *args, **options):
        rows.append(len(latents))
        return forward(latents, *args, **options)

    monkeypatch.setattr(model.unet, "forward", counted)
    with torch.no_grad():
        model.pyramid(torch.rand(2, 3, 64, 160), batch=4)
    assert rows == [2 * 4, 2 * 2]  # of six windows


def test_only_captioner_and_projections_train():
    model, image = small(steps=(0, 100)).train(), torch.rand(1, 3, 64, 96)
    found = []
    for again in (False, True):
        model.unet.recompute = "all" if again else "none"
        model.backbone.recompute = again
        model.zero_grad()
        sum(map_.sin().sum() for map_ in model.pyramid(image)).backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    own = [name for name, _ in model.named_parameters() if name.startswith(("adapter", "backbone"))]
    assert [name for name, p in model.named_parameters() if p.requires_grad] == own
    assert list(found[0]) == own
    for name in own:
        assert found[0][name].any(), name
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-3, atol=1e-3)


def test_clip_sees_the_middle():
    model, pixels = small(), torch.rand(1, 3, 32, 96)
    encoder = model.clip["image"]
    with torch.no_grad():
        want = encoder(clip_pixels(pixels[..., 32:64], "unit")).projected
        assert_close(model.look(pixels).embedding, want, 1e-5)
        tall = torch.rand(1, 3, 128, 64)
        half = F.interpolate(tall, (64, 32), mode="bicubic", align_corners=False)
        want = encoder(clip_pixels(half[:, :, 16:48], "unit")).projected
        assert_close(model.look(tall).embedding, want, 1e-5)


def test_captions_instead_of_the_captioner():
    model, image = small(), torch.rand(2, 3, 64, 128)
    states = torch.randn(2, 7, 32)
    with torch.no_grad():
        both = model.pyramid(image, states)
        for row in range(2):
            one = model.pyramid(image[row : row + 1], states[row])
            for got, want in zip(both, one, strict=True):
                torch.testing.assert_close(got[row : row + 1], want, rtol=1e-4, atol=1e-4)
        plain = small(captioner="none", image=None)
        assert not hasattr(plain, "clip")
        plain.load_state_dict(model.state_dict(), strict=False)
        want = model.pyramid(image, model.empty_states)
        for got, one in zip(plain(image), want, strict=True):
            torch.testing.assert_close(got, one)
        assert not torch.allclose(model(image)[0], want[0], atol=1e-2)


def test_without_time_bias_and_in_bfloat16():
    model, image = small(learnable_time_embed=False), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert model.context(model.look(image).embedding).time_bias is None
        maps = model(image)
        near = model.bfloat16()(image)
    for got, want in zip(near, maps, strict=True):
        assert got.dtype == torch.bfloat16
        assert (got.float() - want).abs().mean() < 0.1 * want.abs().mean()


IMAGE = torch.rand(1, 3, 64, 64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small().pyramid(IMAGE[0]), r"must be floating point \[B, 3, H, W\] in \[0, 1\]"),
        (lambda: small().pyramid(IMAGE.byte()), r"got torch.uint8 \[1, 3, 64, 64\]"),
        (lambda: small().pyramid(IMAGE[:, :, :40]), "multiples of 32, got 40, 64 and 40"),
        (lambda: small().pyramid(IMAGE, side=48), "multiples of 32, got 64, 64 and 48"),
        (lambda: small().pyramid(IMAGE, side=96), "within 64 x 64, got a side of 96"),
        (lambda: small().pyramid(IMAGE, batch=0), "batch must be at least 1, got 0"),
        (lambda: small().pyramid(IMAGE, torch.ones(3, 2, 32)), r"each of 1 pictures, got \[3, 2"),
        (lambda: small().pyramid(IMAGE, torch.ones(2, 8)), r"context must be \[B, N, 32\]"),
        (lambda: small().look(IMAGE[:, :2]), r"got torch.float32 \[1, 2, 64, 64\]"),
        (lambda: replace(SMALL, steps=()), "steps: expected at least one, got none"),
        (lambda: replace(SMALL, steps=(1000,)), r"noise_t must be an int in 0..999, got 1000"),
        (lambda: replace(SMALL, captioner="text"), "captioner must be one of .* got 'text'"),
        (lambda: replace(SMALL, image=None), "captioner=gated needs an encoder .* got none"),
        (lambda: replace(SMALL, image_size=80), "positive multiple of 32, got 80"),
        (lambda: replace(SMALL, noise_size=0), "noise_size must be positive, got 0"),
        (lambda: replace(SMALL, encoder_blocks=(3,)), r"encoder_blocks: .* in 0..2, got \(3,\)"),
        (lambda: replace(SMALL, unet_blocks=(4, 1)), r"unet_blocks: expected rising numbers"),
        (lambda: replace(SMALL, unet_blocks=()), "unet_blocks: expected at least one block"),
        (lambda: replace(SMALL, decoder_blocks=(-1,)), r"decoder_blocks: .* in 0..5, got \(-1,\)"),
        (
            lambda: replace(SMALL, vae=replace(SMALL.vae, encode_only=True)),
            "decoder_blocks: the autoencoder is encode_only",
        ),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
