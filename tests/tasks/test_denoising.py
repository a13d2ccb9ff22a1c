"""Partial denoising guided by the sentence, as a source of features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

import vpd
from vpd.diffusion import NoiseSchedule
from vpd.models.unet import Taps
from vpd.protocol import NoiseSpec
from vpd.tasks import store
from vpd.tasks.denoising import Denoising
from vpd.tasks.evaluate import evaluate_refer
from vpd.tasks.evaluation import under
from vpd.tasks.timesteps import evaluate_timesteps

NOISE = NoiseSpec.preset("latent_match", noise_t=500, latent_scale=0.8)
TEXTS = ["the red cube", "a ball left of the cone", "two giraffes"]


@pytest.fixture(scope="module")
def model():
    found = tiny.segmenter(1, noise=NOISE, denoise=Denoising(4))
    with torch.no_grad():  # zero-initialised layers would hide noise prediction and time
        for p in found.unet.parameters():
            if not p.any():
                p.normal_(0, 0.1)
    return found


def plain(model, image, texts, rows):
    """Row by row, every formula written out: features and mean maps."""
    config = model.config
    denoise, bar = config.denoise, NoiseSchedule().alphas_cumprod.float()
    taps = Taps(noise=True, attention=config.map_strides)
    told = [
        round(config.noise.noise_t + (denoise.to - config.noise.noise_t) * k / (denoise.steps - 1))
        for k in range(denoise.steps)
    ]
    latents = model.encode_image(image)
    features, means = [], []
    for text, row in zip(texts, rows, strict=True):
        states, empty = (model.context(model.encode_text([t])) for t in (text, ""))
        scale = config.scale_factor / config.noise.latent_scale
        x, maps = latents[row][None] * scale, []
        for i, t in enumerate(told):
            last = i == len(told) - 1
            out = model.unet(x / scale if last else x, t, states, taps=taps)
            maps.append(out.attention)
            if last:
                features.append(out.features)
                break
            free = model.unet(x, t, empty, taps=taps).noise
            epsilon = free + denoise.guidance * (out.noise - free)
            clean = (x - (1 - bar[t]).sqrt() * epsilon) / bar[t].sqrt()
            to = told[i + 1]
            x = bar[to].sqrt() * clean + (1 - bar[to]).sqrt() * epsilon
        means.append({s: torch.stack([m[s] for m in maps]).mean(0) for s in maps[0]})
    return [torch.cat(level) for level in zip(*features, strict=True)], means


@pytest.mark.parametrize("scale", [0.8, 1.0], ids=["scaled", "as VPD's"])
@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_equals_a_loop_over_rows(model, guidance, scale):
    denoise = Denoising(4, guidance=guidance)
    one = under(model, replace(NOISE, latent_scale=scale), denoise=denoise)
    image, rows = torch.rand(2, 3, 64, 64) * 2 - 1, [0, 1, 1]
    with torch.no_grad():
        latents = one.encode_image(image)
        out = one.features(latents, one.encode_text(TEXTS), torch.tensor(rows))
        features, maps = plain(one, image, TEXTS, rows)
    for got, want in zip(out.features, features, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
    for stride in (2, 4):
        want = torch.cat([row[stride] for row in maps])
        torch.testing.assert_close(out.attention[stride], want, rtol=1e-3, atol=1e-5)


def test_one_picture_for_all_rows(model):
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latents, states = model.encode_image(image), model.encode_text(TEXTS)
        shared = model.features(latents, states)
        apart = model.features(latents.expand(3, -1, -1, -1), states)
    for got, want in zip(shared.pyramid(), apart.pyramid(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_rows_may_start_at_timesteps_of_their_own():
    told = Denoising(3, to=1).timesteps(torch.tensor([500, 3]))
    assert told.tolist() == [[500, 3], [250, 2], [1, 1]]


def test_gradients_are_those_of_the_last_pass(model):
    image, states = torch.rand(1, 3, 64, 64) * 2 - 1, model.encode_text(TEXTS[:1])
    model.zero_grad()
    out = model.features(model.encode_image(image), states)
    assert out.features[0].requires_grad
    assert not any(maps.requires_grad for maps in out.attention.values())
    model.scores(out).square().mean().backward()
    assert model.decoder.get_parameter("conv1_2.weight").grad.abs().max() > 0
    model.zero_grad()


def test_saved_and_loaded(model, tmp_path):
    store.save(model, tmp_path, dtype=torch.float32)
    again = vpd.load(tmp_path)
    assert again.config == model.config
    picture = np.array(tiny.val_scenes(1).images[0])
    want, got = (m(picture, TEXTS[0]).probability for m in (model, again))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_scores_at_several_timesteps_are_those_of_each(model):
    split = tiny.val_scenes(2)
    noises = [replace(NOISE, noise_t=t) for t in (100, 500)]
    together = evaluate_timesteps(model, split, noises, progress=False)
    for noise, found in zip(noises, together, strict=True):
        alone = evaluate_refer(under(model, noise), split, batch=3, progress=False)
        assert found.metrics == pytest.approx(alone.metrics, abs=1e-3)
        assert found.protocol["denoise"] == {"steps": 4, "to": 1, "guidance": 1.0}
        assert "denoise: {'steps': 4" in found.table()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": NoiseSpec()}, "as latent_match has it; got noise_space='none' with embed_t=1"),
        ({"noise": NoiseSpec.preset("latent_fixed", noise_t=500)}, "got noise_space='latent' with"),
        ({"noise": replace(NOISE, noise_t=9)}, "at least timestep 10 to end at 1, got 9"),
        ({"attn_t_ensemble": (5,)}, "leave attn_t_ensemble empty"),
    ],
)
def test_contradictions_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny.segmenter(**{"noise": NOISE, "denoise": Denoising(10), **changes})


def test_steps_and_end_are_checked():
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        Denoising(1)
    with pytest.raises(ValueError, match=r"to must be in 0\.\.999, got 1000"):
        Denoising(to=1000)
