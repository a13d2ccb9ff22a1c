"""Noise protocols: what they add, where, and that it is paired."""

from __future__ import annotations

import pytest
import torch

from vpd.config import from_dict
from vpd.noise import add_noise_to_latents, add_noise_to_pixels, draw_noise, image_key
from vpd.protocol import PRESETS, NoiseSpec
from vpd.tasks.refer import ReferConfig

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHA_BAR = (1 - BETAS).cumprod(0)


@pytest.mark.parametrize("t", [5, 100, 500])
def test_pixel_noise_is_the_forward_process(t):
    spec, image = NoiseSpec.preset("pixel", noise_t=t), torch.randn(2, 3, 8, 8)
    noise = draw_noise(image, spec, ["a", "b"])
    want = ALPHA_BAR[t].sqrt() * image + (1 - ALPHA_BAR[t]).sqrt() * noise
    torch.testing.assert_close(add_noise_to_pixels(image, spec, ["a", "b"]), want.float())
    assert torch.equal(add_noise_to_latents(image, spec, 0.18215, ["a", "b"]), image)


def test_latent_noise_has_the_same_signal_to_noise_ratio_under_every_scale():
    """Defined at the scale the model was trained with (0.18215), whatever it is fed with."""
    t, latents = 300, torch.randn(1, 4, 8, 8) * 5
    spec = NoiseSpec.preset("latent_match", noise_t=t)
    noise = draw_noise(latents, spec, ["a"])
    got = add_noise_to_latents(latents, spec, 0.18215, ["a"])
    want = ALPHA_BAR[t].sqrt() * 0.18215 * latents + (1 - ALPHA_BAR[t]).sqrt() * noise
    torch.testing.assert_close(got * 0.18215, want.float())


def test_noise_is_paired_across_timesteps_and_differs_between_images_and_seeds():
    x = torch.zeros(2, 4, 4, 4)
    a = draw_noise(x, NoiseSpec.preset("latent_match", noise_t=5), ["a", "b"])
    assert torch.equal(a, draw_noise(x, NoiseSpec.preset("pixel", noise_t=500), ["a", "b"]))
    assert torch.equal(a.flip(0), draw_noise(x, NoiseSpec.preset("pixel"), ["b", "a"]))
    assert not torch.equal(a[0], a[1])
    assert not torch.equal(a, draw_noise(x, NoiseSpec.preset("pixel", seed=1), ["a", "b"]))
    fresh = NoiseSpec.preset("pixel", seed=None)
    assert not torch.equal(draw_noise(x, fresh, []), draw_noise(x, fresh, []))


def test_odises_shared_noise_is_torchs_own_stream():
    x = torch.zeros(2, 4, 64, 64)
    want = torch.randn(4, 64, 64, generator=torch.Generator().manual_seed(42))
    got = draw_noise(x, PRESETS["odise"], ["a", "b"])
    assert torch.equal(got[0], want)
    assert torch.equal(got[1], want)


def test_timestep_zero_is_clean_unless_asked():
    x = torch.randn(1, 4, 4, 4)
    assert torch.equal(add_noise_to_latents(x, NoiseSpec.preset("latent_match"), 1.0, ["a"]), x)
    spec = NoiseSpec.preset("latent_match", t0_is_clean=False)
    got = add_noise_to_latents(x, spec, 1.0, ["a"]) - ALPHA_BAR[0].sqrt().float() * x
    assert abs(got.std() / 0.0292 - 1) < 0.3


def test_default_is_what_vpd_does():
    spec = NoiseSpec()
    assert spec == PRESETS["vpd-2023"]
    assert (spec.timestep, spec.latent_scale, spec.adds_noise) == (1, 1.0, False)
    assert NoiseSpec.preset("latent_match", noise_t=200).timestep == 200
    assert NoiseSpec.preset("latent_fixed", noise_t=200).timestep == 1


def test_digests_and_keys_depend_on_content():
    assert NoiseSpec().digest() == NoiseSpec().digest() != NoiseSpec(embed_t=0).digest()
    image = torch.rand(3, 4, 4)
    assert image_key(image) == image_key(image.clone()) != image_key(image + 1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_space": "sky"}, "noise_space must be one of"),
        ({"noise_t": 1000}, "0..999"),
        ({"embed_t": -1}, "embed_t"),
        ({"latent_scale": 0.0}, "positive"),
        ({"latent_mode": "mean"}, "latent_mode"),
    ],
)
def test_impossible_protocols_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        NoiseSpec(**changes)
    with pytest.raises(ValueError, match="unknown noise protocol"):
        NoiseSpec.preset("nois")


def test_configs_come_back_from_plain_data_and_unknown_keys_are_named():
    config = from_dict(ReferConfig, {"unet": {"channel_mult": [1, 2]}, "noise": {"embed_t": 0}})
    assert config.unet.channel_mult == (1, 2)
    assert config.noise.timestep == 0
    with pytest.raises(
        ValueError, match=r"ReferConfig.unet: unknown key 'chanel_mult'; did you mean 'channel"
    ):
        from_dict(ReferConfig, {"unet": {"chanel_mult": [1]}})
    with pytest.raises(ValueError, match="expected a mapping, got list"):
        from_dict(ReferConfig, {"unet": []})
