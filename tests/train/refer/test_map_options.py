"""Training with attribution maps, maps over several timesteps and other images."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from toys import TOY, few_scenes, recipe

import vpd
from vpd.config import from_dict
from vpd.tasks import store
from vpd.tasks.denoising import Denoising
from vpd.tasks.foundation import Foundation

pytest.importorskip("lightning")
from vpd.train.caching.latents import latents_name
from vpd.train.loop.config import LoopConfig
from vpd.train.refer import ReferTrainConfig, build, train
from vpd.train.refer.cache import CachedFeatures
from vpd.train.refer.footprint import footprint
from vpd.train.refer.table import ReferTable, tabletop_refs

ENSEMBLE = {"protocol": "latent_match", "t": 50, "attn_t_ensemble": (5, 400)}
DENOISED = {"protocol": "latent_match", "t": 50, "denoise": Denoising(3, guidance=2.0)}


@pytest.fixture(scope="module", autouse=True)
def _six_val_scenes_and_no_footprint():
    """A run prints its footprint; working it out takes longer than these runs."""
    with few_scenes() as patch:
        patch.setattr("vpd.train.refer.run.footprint", lambda config: SimpleNamespace(table=str))
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ReferTrainConfig:
    """Training of a U-Net of three levels, with attention on all of them."""
    folder = tmp_path_factory.mktemp("map_options")
    unet = replace(TOY.unet, channel_mult=(1, 2, 2), attention_resolutions=(1, 2, 4))
    torch.manual_seed(5)
    foundation = store.save(Foundation(replace(TOY, unet=unet)), folder / "foundation")
    fields = recipe(str(foundation), folder / "cache")
    return replace(from_dict(ReferTrainConfig, fields), progress=False)


def table_of(config, model):
    from vpd.data import tabletop

    split = tabletop.load_split("train", config.data.cache_dir, limit=4, progress=False)
    pictures = (split.images[i] for i in range(len(split)))
    return ReferTable(model, pictures, tabletop_refs(split), batch=2, seed=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": (1, 2), "image_norm": "none"},
        {"attn_fusion": "daam"},
        {**ENSEMBLE, "attn_fusion": "daam"},
        DENOISED,
    ],
)
def test_a_run_trains_saves_and_evaluates(config, tmp_path, changes):
    config = replace(config, out=str(tmp_path), **changes)
    assert "oIoU" in train(config)
    start, model = build(config), vpd.load(tmp_path / "model")
    assert model.config == start.config
    for name in ("attention", "attn_fusion", "attn_t_ensemble", "denoise", "image_norm"):
        assert getattr(model.config, name) == getattr(config, name)
    finest = model.decoder.get_parameter("conv1_2.weight")
    moved = (finest.detach() - start.decoder.get_parameter("conv1_2.weight")).abs()
    reads_maps = 1 in model.config.map_strides
    assert finest.shape[1] == config.hidden + 8 + (24 if reads_maps else 0)
    assert moved[:, -24:].mean() > 1e-3


def test_the_time_path_stays_as_trained_where_maps_need_it(config, tmp_path):
    """It is folded into biases after training at one timestep; the maps are of others."""
    trained = {}
    for name, changes in {"one": {}, "several": ENSEMBLE, "steps": DENOISED}.items():
        train(replace(config, out=str(tmp_path / name), **changes))
        trained[name] = vpd.load(tmp_path / name / "model").unet.get_parameter(
            "time_embed.0.weight"
        )
    base = build(config).unet.get_parameter("time_embed.0.weight")
    torch.testing.assert_close(trained["one"], base, rtol=1e-3, atol=1e-3)
    for name in ("several", "steps"):
        assert (trained[name] - base).abs().max() > 5e-3


@pytest.mark.parametrize("changes", [{"attn_fusion": "daam"}, ENSEMBLE, DENOISED])
def test_cached_features_are_those_of_the_model(config, tmp_path, changes):
    config = replace(config, freeze="unet", text_adapter=False, **changes)
    model = build(config)
    table = table_of(config, model)
    cached = CachedFeatures(model, table, 3, tmp_path, dtype=torch.float32, progress=False)
    batch = table.draw(0)
    with torch.no_grad():
        expected = model.features(batch.latents, model.text(batch.ids).hidden, batch.index)
    for got, want in zip(cached(batch.samples).pyramid(), expected.pyramid(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_each_choice_has_caches_of_its_own(config, tmp_path):
    every = [
        {}, {"attn_fusion": "daam"}, {"image_norm": "none"}, {"attention": (1, 2)},
        {"protocol": "latent_match", "t": 50}, ENSEMBLE, {**ENSEMBLE, "attn_t_ensemble": (5,)},
        {**ENSEMBLE, "protocol": "embed_only"},
        {**ENSEMBLE, "protocol": "embed_only", "attn_t_ensemble": (5, 401)},
        DENOISED, {**DENOISED, "denoise": Denoising(3)},
    ]  # fmt: skip
    features, latents = [], []
    for changes in every:
        one = replace(config, freeze="unet", text_adapter=False, **changes)
        model = build(one)
        store_of = CachedFeatures(model, table_of(one, model), 1, tmp_path, progress=False).store
        features.append(store_of.folder)
        latents.append(latents_name(model))
    assert len(set(features)) == len(every)
    # Maps and what the U-Net is told have no part in latents, how many there are has.
    assert latents[0] == latents[1] == latents[3]
    assert latents[7] == latents[8]
    assert latents[4] == latents[9] == latents[10]  # what is done with them has none either
    assert len(set(latents)) == len(every) - 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attn_t_ensemble": (5,)}, "such as latent_match"),
        ({"attn_fusion": "daam", "attention": ()}, "needs maps"),
        ({"denoise": Denoising()}, "denoise needs noise on the latents"),
        ({**DENOISED, "t": 2}, "at least timestep 3 to end at 1, got 2"),
    ],
)
def test_contradictions_are_named_before_anything_runs(config, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(config, **changes)


FULL = {
    "weights": "sd.safetensors", "token_length": 40, "hidden": 640, "freeze": "unet",
    "text_adapter": False, "feature_cache": "none",
    "loop": LoopConfig(batch=1, precision="32", ema=None),
}  # fmt: skip
DECODER = 39_176_962  # with maps at strides 2 and 4
FINEST = 40 * 640 * 9  # weights that 40 maps more at the finest level bring


def test_footprint_at_full_size():
    plain = footprint(ReferTrainConfig(**FULL))
    found = {
        "fine": footprint(ReferTrainConfig(**FULL, attention=(1, 2, 4))),
        "daam": footprint(ReferTrainConfig(**FULL, attn_fusion="daam")),
        "several": footprint(ReferTrainConfig(**FULL, **ENSEMBLE)),
    }
    for name, one in found.items():
        trained = DECODER + (0 if name == "several" else FINEST)
        assert sum(part.in_optimizer for part in one.parts) == trained
        # Passes for maps leave nothing behind but maps.
        assert one.step == pytest.approx(plain.step, rel=0.03)
