"""What the decoder sees of attention: finer grids, attribution maps, several timesteps; and images
without normalisation."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

import vpd
from vpd.models.unet import Taps, UNetConfig
from vpd.noise import add_noise_to_pixels
from vpd.protocol import NoiseSpec
from vpd.tasks import store
from vpd.tasks.evaluate import under
from vpd.tasks.maps import attention_maps
from vpd.tasks.refer import ReferConfig

PICTURE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
FINE = replace(tiny.PARTS["unet"], attention_resolutions=(1, 2, 4))
NOISE = NoiseSpec.preset("latent_match", noise_t=50)
STEPS = (5, 300, 700)


def switched(model, **changes):
    """The same weights under another config."""
    twin = copy.copy(model)
    twin.config = replace(model.config, **changes)
    return twin


def inputs(model, rows: int = 3):
    """Two images, and token states about them."""
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    texts = ["the red cube", "a ball left of the cone", "two giraffes"][:rows]
    return image, model.encode_text(texts), torch.tensor([0, 1, 1][:rows])


def saved_and_loaded(model, folder):
    store.save(model, folder, dtype=torch.float32)
    again = vpd.load(folder)
    assert again.config == model.config
    want, got = (m(PICTURE, "the red cube").probability for m in (model, again))
    np.testing.assert_allclose(got, want, atol=1e-5)


# The finest grid


def test_maps_of_the_finest_grid(tmp_path):
    model = tiny.segmenter(1, unet=FINE, attention=(1, 2, 4))
    assert model.decoder.config.dims == (16 + 16, 32 + 16, 32 + 16, 32)
    result = model(PICTURE, "the red cube")
    assert {s: maps.shape for s, maps in result.attention.strides.items()} == {
        1: (3, 16, 16), 2: (3, 8, 8), 4: (3, 4, 4),
    }  # fmt: skip
    np.testing.assert_allclose(result.attention.tokens[1].sum(0), 1, atol=1e-5)
    saved_and_loaded(model, tmp_path)


@pytest.mark.parametrize("changes", [{"attention": (1, 2, 4)}, {"attn_fusion": "daam"}])
def test_decoder_at_full_size(changes):
    with torch.device("meta"):
        model = vpd.ReferSegmenter(ReferConfig(token_length=40, **changes))
    assert model.decoder.config.dims == (360, 680, 1320, 1280)


def test_a_grid_without_attention_is_named():
    with pytest.raises(ValueError, match=r"strides \[2, 4\] of its latent grid, got 1; attn_fusio"):
        tiny.segmenter(attention=(1, 2))
    coarse = UNetConfig(
        model_channels=16, channel_mult=(1, 2), attention_resolutions=(2,), norm_groups=4,
        context_dim=32, num_heads=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match="leaves out the coarsest grid, and this U-Net has"):
        tiny.segmenter(unet=coarse, attn_fusion="daam")


# Attribution maps


def test_attribution_maps_stand_behind_every_level_but_the_coarsest(tmp_path):
    model = tiny.segmenter(1, attn_fusion="daam", map_scale=16.0)
    assert model.decoder.config.dims == (16 + 16, 32 + 16, 32 + 16, 32)
    image, states, index = inputs(model)
    with torch.no_grad():
        latents = model.encode_image(image)
        out = model.features(latents, states, index)
        taps = Taps(attention=(1,), fusion="daam")
        whole = model.unet(latents, 1, model.context(states), image_index=index, taps=taps)
        assert whole.attention[1].shape == (3, 16, 16, 16)
        for level, stride in enumerate((1, 2, 4)):
            pooled = F.avg_pool2d(whole.attention[1], stride)
            torch.testing.assert_close(out.attention[stride], pooled)
            torch.testing.assert_close(out.features[level], whole.features[level])
        # As the decoder gets them.
        pyramid = list(whole.features)
        for level, stride in enumerate((1, 2, 4)):
            maps = 16 * F.avg_pool2d(whole.attention[1], stride)
            pyramid[level] = torch.cat([pyramid[level], maps], dim=1)
        want = F.interpolate(model.decoder(pyramid), (64, 64), mode="bilinear", align_corners=True)
        torch.testing.assert_close(model.decode(out, (64, 64)), want, rtol=1e-4, atol=1e-4)
    saved_and_loaded(model, tmp_path)


def test_attribution_maps_of_a_result_are_those_of_the_maps_task():
    model = tiny.segmenter(1, attn_fusion="daam")
    result = model(PICTURE, "two giraffes").attention
    maps = attention_maps(model, PICTURE, "two giraffes")
    assert list(maps.maps) == [1]
    np.testing.assert_allclose(maps.maps[1], result.finest, atol=1e-6)


@pytest.mark.parametrize("map_grad", ["detach", "full"])
def test_gradients_through_attribution_maps(map_grad):
    model = tiny.segmenter(1, attn_fusion="daam", map_grad=map_grad)
    image, states, index = inputs(model)
    out = model.features(model.encode_image(image), states, index)
    assert out.attention[2].requires_grad is (map_grad == "full")
    loss = model.decode(out, (64, 64)).square().mean()
    loss.backward()
    assert model.decoder.get_parameter("conv1_2.weight").grad[:, -16:].abs().max() > 0


# Several timesteps


@pytest.mark.parametrize("protocol", ["latent_match", "latent_fixed", "pixel", "embed_only"])
@pytest.mark.parametrize("fusion", ["mean", "daam"])
def test_maps_over_timesteps_are_the_mean_of_single_ones(protocol, fusion):
    noise = NoiseSpec.preset(protocol, noise_t=50)
    model = tiny.segmenter(1, noise=noise, attn_t_ensemble=STEPS, attn_fusion=fusion)
    with torch.no_grad():  # zero-initialised layers would hide the time embedding
        for p in model.unet.parameters():
            if not p.any():
                p.normal_(0, 0.1)
    image, states, index = inputs(model)

    def at(t):
        single = switched(model, noise=replace(noise, noise_t=t), attn_t_ensemble=())
        return single.features(single.encode_image(image), states, index)

    with torch.no_grad():
        latents = model.encode_image(image)
        assert latents.shape == (2, 4, 4, 16, 16)
        got, own, others = model.features(latents, states, index), at(50), [at(t) for t in STEPS]
    for mine, want in zip(got.features, own.features, strict=True):
        torch.testing.assert_close(mine, want)
    assert set(got.attention) == set(model.config.map_strides)
    for stride, maps in got.attention.items():
        mean = torch.stack([one.attention[stride] for one in others]).mean(0)
        torch.testing.assert_close(maps, mean)
    assert (others[0].attention[2] - others[2].attention[2]).abs().max() > 1e-5


def test_predictions_and_maps_over_timesteps(tmp_path):
    model = tiny.segmenter(1, noise=NOISE, attn_t_ensemble=STEPS)
    result = model(PICTURE, ["two giraffes", "the cone"])[0].attention
    maps = attention_maps(model, PICTURE, "two giraffes")
    assert maps.others == model.config.noises[2:]
    single = [
        attention_maps(model, PICTURE, "two giraffes", noise=replace(NOISE, noise_t=t))
        for t in STEPS
    ]
    for stride in (2, 4):
        np.testing.assert_allclose(maps.maps[stride], result.strides[stride], atol=1e-6)
        mean = np.mean([one.maps[stride] for one in single], axis=0)
        np.testing.assert_allclose(maps.maps[stride], mean, atol=1e-6)
    saved_and_loaded(model, tmp_path)


@pytest.mark.parametrize("map_grad", ["detach", "full"])
def test_passes_for_maps_keep_nothing_unless_maps_carry_gradient(map_grad):
    model = tiny.segmenter(1, noise=NOISE, attn_t_ensemble=STEPS, map_grad=map_grad)
    image, states, index = inputs(model)
    out = model.features(model.encode_image(image), states, index)
    assert out.features[0].requires_grad
    assert all(maps.requires_grad is (map_grad == "full") for maps in out.attention.values())


# Images


def test_images_without_normalisation():
    model = tiny.segmenter(1)
    image, _, _ = inputs(model)
    plain = under(model, image_norm="none")
    with torch.no_grad():
        torch.testing.assert_close(
            plain.encode_image(image), model.vae.encode((image + 1) / 2).mode()
        )
    assert (plain.unet, plain.config.noise) == (model.unet, model.config.noise)
    assert np.abs(
        plain(PICTURE, "a cube").probability - model(PICTURE, "a cube").probability
    ).max() > 1e-4  # fmt: skip
    maps = attention_maps(plain, PICTURE, "two giraffes").maps[2]
    np.testing.assert_allclose(maps, plain(PICTURE, "two giraffes").attention.finest, atol=1e-6)


def test_noise_on_pixels_is_added_to_what_the_autoencoder_sees():
    noise = NoiseSpec.preset("pixel", noise_t=300)
    model = tiny.segmenter(1, noise=noise, image_norm="none")
    image, _, _ = inputs(model)
    ones, keys = torch.ones_like(image), ["a", "b"]
    with torch.no_grad():
        seen = add_noise_to_pixels(ones, noise, keys)  # 1 is 1 either way
        torch.testing.assert_close(model.encode_image(ones, keys), model.vae.encode(seen).mode())


# Configs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attn_fusion": "sum"}, r"attn_fusion must be one of \('mean', 'daam'\), got 'sum'"),
        ({"image_norm": "imagenet"}, "image_norm must be one of"),
        ({"attn_fusion": "daam", "attention": ()}, r"needs maps, got attention=\(\)"),
        ({"attn_t_ensemble": (5,), "attention": ()}, "averages maps"),
        ({"attn_t_ensemble": (5,), "noise": NoiseSpec()}, "such as latent_match; got"),
        ({"attn_t_ensemble": (5, 5), "noise": NOISE}, r"each timestep once, got \[5, 5\]"),
        ({"attn_t_ensemble": (1000,), "noise": NOISE}, r"0\.\.999, got 1000"),
    ],
)
def test_contradictions_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        ReferConfig(**changes)


def test_models_saved_before_these_choices_existed_still_load(tmp_path):
    model = tiny.segmenter(1)
    folder = store.save(model, tmp_path / "old", dtype=torch.float32)
    info = json.loads((folder / "config.json").read_text())
    for name in ("attn_fusion", "attn_t_ensemble", "image_norm"):
        del info["config"][name]
    (folder / "config.json").write_text(json.dumps(info))
    again = vpd.load(folder)
    assert again.config == model.config
    assert (again.config.attn_fusion, again.config.image_norm) == ("mean", "half")
