"""Noise that is drawn anew in every step: what is drawn, from what, and that it comes again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import few_scenes, recipe, write_foundation

import vpd
from vpd.config import from_dict
from vpd.data import tabletop
from vpd.images import to_network
from vpd.protocol import NoiseSpec
from vpd.tasks.evaluate import under
from vpd.tasks.work import counted

pytest.importorskip("lightning")
from vpd.train.caching.latents import PictureLatents
from vpd.train.refer import ReferTrainConfig, build, train
from vpd.train.refer.data import Pictures, training_data
from vpd.train.refer.table import ReferTable, tabletop_refs
from vpd.train.refer.training import ReferTraining

LATENT = NoiseSpec.preset("latent_match", noise_t=300, latent_scale=0.8)
PIXEL = NoiseSpec.preset("pixel", noise_t=300)


@pytest.fixture(scope="module", autouse=True)
def _six_val_scenes():
    with few_scenes():
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ReferTrainConfig:
    folder = tmp_path_factory.mktemp("fresh_noise")
    fields = recipe(write_foundation(folder / "foundation"), folder / "cache")
    return replace(from_dict(ReferTrainConfig, fields), out=str(folder / "out"), progress=False)


@pytest.fixture(scope="module")
def model(config):
    return build(config).eval()


@pytest.fixture(scope="module")
def scenes(config):
    return tabletop.load_split("train", config.data.cache_dir, limit=4)


def table_of(model, scenes, noise, fresh=True, batch=4, seed=3, **options) -> ReferTable:
    twin = under(model, noise, attn_t_ensemble=options.pop("ensemble", ()))
    pictures = [np.array(image) for image in scenes.images[:4]]
    return ReferTable(twin, pictures, tabletop_refs(scenes), batch, seed, fresh=fresh, **options)


def drawn(table, batch, t=300, latents=None) -> torch.Tensor:
    """The noise in latents under ``LATENT``, solved for: [I, C, h, w]."""
    bar = float(vpd.diffusion.NoiseSchedule().alphas_cumprod[t])
    factor = table.model.config.scale_factor
    clean = table.clean[table.pictures[batch.samples[first_rows(batch)]]]
    noisy = (batch.latents if latents is None else latents) / LATENT.latent_scale
    return factor * (noisy - math.sqrt(bar) * clean) / math.sqrt(1 - bar)


def first_rows(batch) -> list[int]:
    """The first row that looks at each latent."""
    return [batch.index.tolist().index(i) for i in range(len(batch.latents))]


@pytest.fixture(scope="module")
def solvable(model, scenes):
    """A table whose noise can be solved for: it knows its clean latents."""

    def make(noise=LATENT, **options):
        table = table_of(model, scenes, noise, **options)
        pixels = torch.cat([to_network(np.array(image), 128) for image in scenes.images[:4]])
        with torch.no_grad():
            table.model, table.clean = model, model.vae.encode(pixels).mode().half().float()
        return table

    return make


def test_noise_on_latents_is_standard_normal_and_new_in_every_step(solvable):
    table = solvable()
    assert table.fresh
    noises = torch.stack([drawn(table, table.draw(step)) for step in range(3)])
    assert noises.shape == (3, 4, 4, 32, 32)
    assert float(noises.mean()) == pytest.approx(0, abs=0.02)
    assert float(noises.std()) == pytest.approx(1, abs=0.02)
    among = torch.corrcoef(noises.flatten(0, 1).flatten(1))
    assert (among - torch.eye(12)).abs().max() < 0.07  # 1 / sqrt(4096) = 0.016
    other = drawn(solvable(seed=4), solvable(seed=4).draw(0))
    assert (other - noises[0]).abs().max() > 1


def test_a_step_is_the_same_whenever_and_in_whatever_parts_it_is_drawn(solvable):
    for noise in (LATENT, PIXEL):
        table = solvable(noise)
        whole, again = table.draw(5), solvable(noise).draw(5)
        assert torch.equal(whole.latents, again.latents)
        for part in (slice(0, 2), slice(2, 3), slice(1, 4)):
            own = table.draw(5, part)
            rows = whole.latents[whole.index][part]
            torch.testing.assert_close(own.latents[own.index], rows, rtol=1e-4, atol=1e-4)


def test_rows_that_stand_together_share_their_noise(solvable):
    table = solvable(together=2)
    batch = table.draw(1)
    assert batch.index.tolist() == [0, 0, 1, 1]
    half = table.draw(1, slice(1, 3))  # torn apart: a row of each picture
    assert half.index.tolist() == [0, 1]
    assert torch.equal(half.latents, batch.latents)
    noises = drawn(table, batch)
    assert abs(float(torch.corrcoef(noises.flatten(1))[0, 1])) < 0.07


def test_noise_is_paired_over_timesteps_and_shared_where_the_protocol_says_so(solvable):
    batch = solvable(ensemble=(50, 700)).draw(2)
    assert batch.latents.shape == (4, 3, 4, 32, 32)
    table = solvable()
    own = drawn(table, batch, 300, batch.latents[:, 0])
    for place, t in ((1, 50), (2, 700)):
        other = drawn(table, batch, t, batch.latents[:, place])
        torch.testing.assert_close(other, own, rtol=1e-2, atol=1e-2)
    shared = solvable(replace(LATENT, noise_key="shared"))
    one, two = (drawn(shared, shared.draw(step)) for step in (0, 1))
    torch.testing.assert_close(one, one[:1].expand_as(one), rtol=1e-3, atol=1e-3)
    assert (one - two).abs().max() > 1


def test_a_protocol_without_seed_is_drawn_anew_by_itself(solvable):
    unseeded = solvable(replace(LATENT, seed=None), fresh=False)
    assert unseeded.fresh
    assert torch.equal(unseeded.draw(1).latents, solvable().draw(1).latents)
    assert not solvable(replace(LATENT, noise_t=0, seed=None)).fresh  # which adds none
    seeded = solvable(fresh=False)
    assert not seeded.fresh
    picture = seeded.pictures[seeded.draw(0).samples[0]]
    steps = [step for step in range(4) if picture in seeded.pictures[seeded.draw(step).samples]]
    found = []
    for step in steps:
        batch = seeded.draw(step)
        row = seeded.pictures[batch.samples].tolist().index(picture)
        found.append(batch.latents[batch.index[row]])
    assert len(found) > 1
    assert all(torch.equal(one, found[0]) for one in found)


def test_noise_on_pixels_is_encoded_in_every_step(model, scenes, monkeypatch):
    reads: list[int] = []

    def read(place: int) -> np.ndarray:
        reads.append(place)
        return np.array(scenes.images[place])

    twin = under(model, PIXEL)
    latents = PictureLatents(twin, Pictures(4, read), seed=0, fresh=True)
    assert not reads
    images, places = torch.tensor([2, 0, 2]), torch.tensor([0, 1, 2])
    with counted(model) as work:
        one, two = (latents.at_step(images, step, places) for step in (0, 1))
    assert (work.images, reads) == (6, [2, 0, 2] * 2)
    assert (one - two).abs().max() > 0.1
    assert (one[0] - one[2]).abs().max() > 0.1  # one picture, two places
    # Without the noise only what is left of the picture remains.
    monkeypatch.setattr("vpd.noise.draw_noise", lambda like, spec, keys: torch.zeros_like(like))
    bar = float(vpd.diffusion.NoiseSchedule().alphas_cumprod[300])
    pixels = torch.cat([to_network(np.array(scenes.images[i]), 128) for i in (2, 0, 2)])
    with torch.no_grad():
        want = model.vae.encode(math.sqrt(bar) * pixels).mode()
    with torch.autocast("cpu", torch.bfloat16):  # of a training step; has no say here
        torch.testing.assert_close(latents.at_step(images, 0, places), want, rtol=1e-4, atol=1e-4)


def test_training_data_is_read_when_asked_for(config):
    pictures = training_data(config.data, progress=False).pictures
    assert len(pictures) == len(list(pictures)) == 4
    assert pictures[1].shape == (128, 128, 3)
    with pytest.raises(IndexError):
        pictures[4]


def test_a_sampled_posterior_is_refused(model, scenes):
    with pytest.raises(ValueError, match="needs latent_mode='mode', got 'sample'"):
        table_of(model, scenes, replace(LATENT, latent_mode="sample"))


@pytest.mark.parametrize("protocol", ["latent_match", "pixel"])
def test_an_interrupted_run_meets_the_same_noise(config, tmp_path, monkeypatch, caplog, protocol):
    changes = {"protocol": protocol, "t": 300, "fresh_noise": True, "freeze": "unet"}
    config = replace(config, text_adapter=False, **changes)
    with caplog.at_level("INFO", logger="vpd"):
        metrics = train(replace(config, out=str(tmp_path / "whole")))
    assert "drawn anew, so the U-Net's outputs are not cached" in caplog.text
    step = ReferTraining.training_step

    def failing(self, batch):
        if self.global_step == 3:
            raise RuntimeError("power cut")
        return step(self, batch)

    monkeypatch.setattr(ReferTraining, "training_step", failing)
    parts = replace(config, out=str(tmp_path / "parts"))
    with pytest.raises(RuntimeError, match="power cut"):
        train(parts)
    monkeypatch.setattr(ReferTraining, "training_step", step)
    assert train(parts) == pytest.approx(metrics, abs=0.1)
    a, b = (
        vpd.weights.read_state_dict(tmp_path / name / "model" / "model.safetensors")[0]
        for name in ("whole", "parts")
    )
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-4, msg=key)
    assert vpd.load(tmp_path / "whole" / "model").config.noise.seed == 0
