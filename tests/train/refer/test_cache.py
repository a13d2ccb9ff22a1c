"""Training from cached U-Net outputs equals training without."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from toys import few_scenes, recipe, write_foundation

import vpd
from vpd.config import from_dict
from vpd.protocol import NoiseSpec

pytest.importorskip("lightning")
from vpd.train.caching.latents import latents_name, reproducible
from vpd.train.refer import ReferTrainConfig, build, train
from vpd.train.refer.cache import CachedFeatures
from vpd.train.refer.table import ReferTable, tabletop_refs


@pytest.fixture(scope="module", autouse=True)
def _six_val_scenes():
    with few_scenes():
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ReferTrainConfig:
    folder = tmp_path_factory.mktemp("feature_cache")
    fields = recipe(write_foundation(folder / "foundation"), folder / "cache")
    return replace(
        from_dict(ReferTrainConfig, fields),
        out=str(folder / "unused"), freeze="unet", text_adapter=False, feature_cache="float32",
        progress=False,
    )  # fmt: skip


def table_of(config, model, cache=None):
    from vpd.data import tabletop

    split = tabletop.load_split("train", config.data.cache_dir, limit=4, progress=False)
    pictures = (split.images[i] for i in range(len(split)))
    return ReferTable(model, pictures, tabletop_refs(split), batch=2, seed=3, cache=cache)


def weights(folder):
    return vpd.weights.read_state_dict(folder / "model" / "model.safetensors")[0]


@pytest.mark.parametrize("attention", [(2,), ()])
def test_training_from_the_cache_equals_training_without(config, tmp_path, attention):
    config = replace(config, attention=attention)
    metrics = {}
    for cache in ("none", "float32", "float16"):
        metrics[cache] = train(replace(config, out=str(tmp_path / cache), feature_cache=cache))
    plain = weights(tmp_path / "none")
    start = build(config).state_dict()
    moved = [k for k in plain if not torch.allclose(plain[k].float(), start[k].float(), atol=1e-3)]
    assert moved
    assert all(k.startswith("decoder.") for k in moved)
    exact, rounded = weights(tmp_path / "float32"), weights(tmp_path / "float16")
    for key in moved:
        torch.testing.assert_close(exact[key], plain[key], rtol=1e-3, atol=1e-3, msg=key)
        # Adam turns the rounding of a small gradient into a step, so elements may differ.
        path = (plain[key].float() - start[key].float()).norm()
        assert (rounded[key].float() - plain[key].float()).norm() < 0.2 * path, key
    assert metrics["float32"]["oIoU"] == pytest.approx(metrics["none"]["oIoU"], abs=0.2)


def test_a_cached_run_goes_through_the_u_net_once_a_sample(config, tmp_path, monkeypatch):
    from vpd.tasks.refer import ReferSegmenter

    rows = []
    features = ReferSegmenter.features

    def counted(self, latents, states, image_index=None):
        rows.append(len(states))
        return features(self, latents, states, image_index)

    monkeypatch.setattr(ReferSegmenter, "features", counted)
    model = build(config)
    table = table_of(config, model)
    steps = 3 * table.steps_per_epoch
    cached = CachedFeatures(model, table, steps, tmp_path, dtype=torch.float32, progress=False)
    needed = {int(s) for step in range(steps) for s in table.draw(step).samples}
    assert sum(rows) == len(needed) == len(cached.store)
    assert len(needed) <= table.sentences
    again = CachedFeatures(model, table, steps, tmp_path, dtype=torch.float32, progress=False)
    assert sum(rows) == len(needed)  # another run finds them

    batch = table.draw(0)
    out = again(batch.samples)
    with torch.no_grad():
        expected = features(model, batch.latents, model.text(batch.ids).hidden, batch.index)
    for got, want in zip(out.pyramid(), expected.pyramid(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_other_networks_and_protocols_have_stores_of_their_own(config, tmp_path):
    model = build(config)
    table = table_of(config, model)

    def store(model, **options):
        options = {"progress": False, **options}
        return CachedFeatures(model, table, 1, tmp_path, **options).store.folder

    folders = [store(model), store(model, dtype=torch.float32), store(model, bf16=True)]
    random = build(replace(config, unet_init="random", seed=1))
    noisy = copy.copy(model)
    noisy.config = replace(model.config, noise=NoiseSpec.preset("latent_match", noise_t=100))
    folders += [store(random), store(noisy)]
    assert len(set(folders)) == len(folders)
    # Another head on the same network shares them.
    assert store(build(replace(config, seed=7, hidden=16))) == folders[0]
    # Latents do not depend on what the U-Net is told, nor on the U-Net.
    told = copy.copy(model)
    told.config = replace(model.config, noise=replace(model.config.noise, embed_t=500))
    assert latents_name(told) == latents_name(random) == latents_name(model) != latents_name(noisy)


def test_a_text_adapter_is_refused_by_the_cache_and_trained_without_it(config, tmp_path):
    adapted = replace(config, text_adapter=True, out=str(tmp_path / "run"))
    model = build(adapted)
    with pytest.raises(ValueError, match="without a text adapter only"):
        CachedFeatures(model, table_of(config, model), 1, tmp_path)
    train(adapted)
    name = next(k for k in weights(tmp_path / "run") if k.startswith("adapter."))
    assert not torch.equal(weights(tmp_path / "run")[name], model.state_dict()[name].half())


def test_latents_are_encoded_once_for_all_runs(config, tmp_path, monkeypatch):
    from vpd.tasks.refer import ReferSegmenter

    model = build(config)
    plain = table_of(config, model)
    first = table_of(config, model, tmp_path)
    monkeypatch.setattr(ReferSegmenter, "encode_image", None)
    again = table_of(config, model, tmp_path)
    for table in (first, again):
        assert torch.equal(table.draw(0).latents, plain.draw(0).latents)


def test_only_reproducible_latents_are_kept():
    assert reproducible(NoiseSpec())
    assert reproducible(NoiseSpec.preset("pixel", noise_t=5))
    assert reproducible(NoiseSpec.preset("latent_match", seed=None))  # t = 0 adds no noise
    assert not reproducible(NoiseSpec.preset("latent_match", noise_t=5, seed=None))
    assert not reproducible(NoiseSpec(latent_mode="sample"))
