"""Attribution maps collected while a picture is drawn, against maps of every step and layer."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from tiny import foundation

import vpd
from vpd import daam
from vpd.diffusion import START, GuidedUNet, HeatMaps, SampleNoise, Sampler

TEXTS = ["a red cube and a ball", "the small cone"]


def test_heat_maps_are_those_of_every_step_and_layer():
    model, heat, latents = foundation(), HeatMaps(), []
    noise, sampler = SampleNoise(0), Sampler("ddim", 3)
    how = {"sampler": sampler, "noise": noise}
    images = model.sample(
        TEXTS, maps=heat, on_step=lambda index, x, clean: latents.append(x), **how
    )
    assert (model.sample(TEXTS, **how) - images).abs().max() < 1e-4
    seen = [noise(START, latents[0]), *latents[:-1]]
    found = []
    with torch.no_grad():
        text = model.encode_text(TEXTS)
        for x, t in zip(seen, sampler.timesteps, strict=True):
            layers = [
                model.unet(
                    x, int(t), text,
                    taps=vpd.Taps(layers=(name,), attention=(stride,), per_head=True),
                ).attention[stride]
                for name, place, stride in model.unet.attention_layers()
                if place != "mid"
            ]  # fmt: skip
            found.append(daam.heat_maps(layers, (16, 16)))
    want = torch.stack(found).mean(0)
    assert heat.steps == 3
    assert_close(heat.maps, want)
    words = heat.words(TEXTS[0], (64, 64))
    assert list(words) == ["a", "red", "cube", "and", "ball"]
    assert_close(words["a"], daam.expand(want[:1, [1, 5]].mean(1, keepdim=True), (64, 64))[0, 0])
    raw = heat.words(TEXTS[1], (64, 64), row=1, absolute=True)
    assert_close(raw["cone"], daam.expand(want[1:, 3:4], (64, 64), absolute=True)[0, 0])


def test_bad_requests_are_explained():
    model, heat = foundation(), HeatMaps()
    with pytest.raises(ValueError, match="no step was seen"):
        _ = heat.maps
    text = torch.zeros(1, 3, 32)
    with pytest.raises(ValueError, match="at text_guidance 0 no row has maps"):
        GuidedUNet(model.unet, text, text, text_guidance=0.0, maps=heat)
    heat(1.0, {1: torch.rand(1, 16, 4, 4)})
    with pytest.raises(ValueError, match=r"row must be in 0..0, got 2"):
        heat.words("a cube", (8, 8), row=2)
