"""Attention maps: against the U-Net's own output, from a task model and from a foundation."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

from vpd import daam
from vpd.protocol import NoiseSpec
from vpd.tasks.maps import at_timestep, attention_maps

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
TEXT = "two giraffes, left of the cube"


@pytest.fixture(scope="module")
def model():
    return tiny.segmenter(1)


@pytest.fixture(scope="module")
def foundation():
    return tiny.foundation(1)


def test_words_equal_those_of_a_result(model):
    result = model(IMAGE, TEXT).attention
    maps = attention_maps(model, IMAGE, TEXT)
    assert maps.labels == result.words == ("two", "giraffes", ",", "left", "of", "the", "cube")
    for stride in (2, 4):
        np.testing.assert_allclose(maps.maps[stride], result.strides[stride], atol=1e-6)


def test_all_tokens_sum_to_one_with_the_padding(model):
    length = model.config.token_length
    maps = attention_maps(model, IMAGE, TEXT, mode="tokens", markers=True, strides=(2,))
    assert maps.labels[:3] == ("[start]", "two", "gira")
    assert maps.labels[-2:] == ("[end]", "[padding]")
    count = len(maps.labels) - 1  # without the padding, which is a mean
    total = maps.maps[2][:-1].sum(0) + (length - count) * maps.maps[2][-1]
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_heads_and_layers_average_to_the_default(foundation):
    layers = [n for n, place, s in foundation.unet.attention_layers() if place != "mid" and s == 2]
    every = [
        attention_maps(foundation, IMAGE, TEXT, strides=(2,), layers=[layer], head=head).maps[2]
        for layer in layers
        for head in range(2)
    ]
    whole = attention_maps(foundation, IMAGE, TEXT, strides=(2,)).maps[2]
    one = attention_maps(foundation, IMAGE, TEXT, strides=(2,), layers=[layers[0]], head=1)
    assert one.part == "\ninput_blocks.3\nhead 1"
    assert len(layers) > 1
    np.testing.assert_allclose(np.mean(every, axis=0), whole, atol=1e-6)


def test_a_foundation_sees_its_latents_at_their_scale(foundation):
    maps = attention_maps(foundation, IMAGE, TEXT)
    assert maps.noise == NoiseSpec(latent_scale=foundation.config.scale_factor)
    assert maps.maps[2].shape == (7, 8, 8)
    assert maps.maps[4].shape == (7, 4, 4)


def test_timesteps_share_their_noise_and_leave_the_rest_alone(model):
    own = NoiseSpec(latent_scale=0.8, seed=5)
    spec = at_timestep("latent_fixed", 300, own)
    assert (spec.noise_space, spec.noise_t, spec.timestep) == ("latent", 300, 1)
    assert (spec.latent_scale, spec.seed) == (0.8, 5)
    first = attention_maps(model, IMAGE, TEXT, noise=spec).maps[2]
    again = attention_maps(model, IMAGE, TEXT, noise=spec).maps[2]
    clean = attention_maps(model, IMAGE, TEXT, noise=at_timestep("latent_fixed", 0, own)).maps[2]
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - clean).max() > 1e-5


def test_attribution_maps_of_words(foundation):
    """The layers of all finer grids, head by head, on the finest one."""
    found = attention_maps(foundation, IMAGE, TEXT, fusion="daam", strides=(1, 4))
    finest = found.maps[1]
    assert (finest.shape, found.part) == ((7, 16, 16), "\nDAAM")
    pooled = finest.reshape(7, 4, 4, 4, 4).mean((2, 4))
    np.testing.assert_allclose(found.maps[4], pooled, atol=1e-6)
    heads = []
    for name, place, stride in foundation.unet.attention_layers():
        for head in range(2 if place != "mid" else 0):
            one = attention_maps(
                foundation, IMAGE, TEXT, layers=[name], head=head, strides=(stride,), mode="tokens"
            )
            heads.append(daam.heat_maps([torch.tensor(one.maps[stride])[None, None]], (16, 16)))
    tokens = attention_maps(foundation, IMAGE, TEXT, fusion="daam", mode="tokens")
    assert list(tokens.maps) == [1]
    np.testing.assert_allclose(tokens.maps[1], torch.cat(heads).mean(0), atol=1e-6)
    second = attention_maps(foundation, IMAGE, TEXT, fusion="daam", head=1, mode="tokens")
    every_other = torch.cat(heads[1::2]).mean(0)
    np.testing.assert_allclose(second.maps[1], every_other, atol=1e-6)


@pytest.mark.parametrize("fusion", ["mean", "daam"])
def test_shares_of_the_sentence_sum_to_one(foundation, fusion):
    options = {"fusion": fusion, "mode": "tokens", "markers": True, "strides": (2,)}
    plain = attention_maps(foundation, IMAGE, TEXT, **options)
    shares = attention_maps(foundation, IMAGE, TEXT, shares=True, **options)
    inner = slice(1, plain.labels.index("[end]"))
    np.testing.assert_allclose(shares.maps[2][inner].sum(0), 1, atol=1e-4)
    want = plain.maps[2] / (plain.maps[2][inner].sum(0) + 1e-6)
    np.testing.assert_allclose(shares.maps[2], want, rtol=1e-4)
    assert shares.part.endswith("\nshares")


def test_averages_over_timesteps(model):
    specs = [at_timestep("latent_fixed", t, NoiseSpec()) for t in (5, 300)]
    both = attention_maps(model, IMAGE, TEXT, noise=specs)
    single = [attention_maps(model, IMAGE, TEXT, noise=spec).maps[2] for spec in specs]
    np.testing.assert_allclose(both.maps[2], np.mean(single, axis=0), atol=1e-6)
    assert (both.noise, both.others) == (specs[0], (specs[1],))
    assert both.step == "mean of\nnoise 5, 300\nt = 1"
    matched = [at_timestep("latent_match", t, NoiseSpec()) for t in (5, 300)]
    assert attention_maps(model, IMAGE, TEXT, noise=matched).step == "mean of\nt = 5, 300"
    with pytest.raises(ValueError, match="at least one noise protocol"):
        attention_maps(model, IMAGE, TEXT, noise=[])


def test_maps_at_the_size_of_the_image(model):
    maps = attention_maps(model, IMAGE, TEXT)
    large = maps.expanded(4)
    assert large.shape == (7, 40, 60)
    np.testing.assert_allclose(
        (large.min((1, 2)), large.max((1, 2))), [[0] * 7, [1] * 7], atol=1e-4
    )
    want = F.interpolate(torch.tensor(maps.maps[2])[None], (40, 60), mode="bicubic")[0]
    np.testing.assert_allclose(maps.expanded(absolute=True), want, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "  "}, "empty"),
        ({"text": "&nbsp;"}, "no word"),
        ({"mode": "letters"}, "'words' or 'tokens', got 'letters'"),
        ({"head": 2}, r"0\.\.1, got 2"),
        ({"strides": (3,)}, "3"),
        ({"layers": ("nothing",)}, "nothing"),
    ],
)
def test_bad_requests_are_named(model, options, message):
    with pytest.raises(ValueError, match=message):
        attention_maps(model, IMAGE, **{"text": TEXT, **options})


def test_truncated_words_are_left_out(model):
    maps = attention_maps(model, IMAGE, " ".join(f"w{i}" for i in range(50)))
    assert 0 < len(maps.labels) < 16
