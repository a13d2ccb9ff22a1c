"""Training of an editor at toy scale: latents, dropout and loss beside plain twins, a run from its
config to a model, an interrupted one beside one that was left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from edit_toys import LOOP, SIZE, editor, recipe
from torch.nn import functional as F
from toys import few_scenes

import vpd
from vpd.cli.parser import read
from vpd.data import tabletop
from vpd.data.edit import EditAugmentation, EditDataset
from vpd.data.edit_files import NewPair, write_entry, write_seeds
from vpd.data.tabletop.edit_layouts import write_ip2p
from vpd.data.triplets import Triplet
from vpd.images import in_range
from vpd.tasks import store

pytest.importorskip("lightning")
from vpd.train.edit import EditTrainConfig, build
from vpd.train.edit.footprint import edit_footprint
from vpd.train.edit.pairs import FilePairs, TabletopPairs
from vpd.train.edit.run import train
from vpd.train.edit.table import Draws, PairLatents, ResidentPairs, StreamedPairs
from vpd.train.edit.training import EditRun, EditTraining, Instructions, dropped
from vpd.train.loop.batches import step_generator


@pytest.fixture(scope="module", autouse=True)
def scenes():
    """Splits of six scenes; and no run works out beforehand what it needs, which would take most of
    its time."""
    with few_scenes() as patch:
        patch.setattr("vpd.train.edit.run.edit_footprint", lambda own: SimpleNamespace(table=str))
        yield


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    return recipe(tmp_path_factory.mktemp("edit"))


@pytest.fixture(scope="module")
def pairs():
    return TabletopPairs(tabletop.edits(tabletop.load_split("train", limit=6)))


def config(fields, out, **changes) -> EditTrainConfig:
    return read(EditTrainConfig, {**fields, "out": str(out), **changes})


def state(out):
    return store.load(out / "model").state_dict()


def test_dropout_shares():
    """As the original's two masks: below 0.10 no text, from 0.05 to 0.15 no picture."""
    luck = np.array([0.0, 0.049, 0.05, 0.099, 0.1, 0.149, 0.151, 0.9])
    text, image = dropped(luck, 0.05)
    assert text.tolist() == [True] * 4 + [False] * 4
    assert image.tolist() == [False] * 2 + [True] * 4 + [False] * 2
    text, image = dropped(np.random.default_rng(0).random(100_000), 0.05)
    for share in (text & ~image, text & image, image & ~text):
        assert share.mean() == pytest.approx(0.05, abs=0.003)
    assert not any(part.any() for part in dropped(np.zeros(3), 0.0))


def test_latents_are_those_of_the_pictures(pairs, tmp_path):
    model = editor()
    latents = PairLatents(model.vae, pairs, SIZE, True, tmp_path, progress=False)
    assert latents.texts == [pairs.instruction(i) for i in range(len(pairs.counts))]
    for view in (0, 3):
        pair = pairs.pair(view // 2)
        before, after = EditAugmentation((SIZE, SIZE), SIZE, flip=view % 2)(
            pair, np.random.default_rng(0)
        )
        own = latents.read([view])
        with torch.no_grad():
            seen, target = (model.vae.encode(pixels[None]) for pixels in (before, after))
        for got, want in ((own.image, seen.mode()), (own.mean, target.mean), (own.std, target.std)):
            torch.testing.assert_close(got, want, atol=2e-3, rtol=2e-3)
        assert own.texts == [pair.triplet.edit]


def test_latents_do_not_depend_on_what_is_there(pairs, tmp_path, monkeypatch):
    vae = editor().vae
    whole = PairLatents(vae, pairs, SIZE, True, tmp_path / "whole", progress=False)
    views = range(2 * len(pairs.counts))
    part = TabletopPairs(pairs._source)
    part.counts = part.counts[:3]
    PairLatents(vae, part, SIZE, False, tmp_path / "part", progress=False)  # of an ended run
    resumed = PairLatents(vae, pairs, SIZE, True, tmp_path / "part", progress=False)
    one, other = whole.read(views), resumed.read(views)
    assert torch.equal(one.image, other.image)
    assert torch.equal(one.mean, other.mean)
    assert one.texts == other.texts
    monkeypatch.setattr(pairs._source, "edit", None)  # nothing is rendered again
    again = PairLatents(vae, pairs, SIZE, True, tmp_path / "part", progress=False)
    assert again.texts == whole.texts


def test_an_epoch_visits_each_entry_once():
    draws = Draws([1, 3, 2, 1], 2, 2, seed=0)
    owners = {view: entry for entry, views in enumerate(
        [range(2), range(2, 8), range(8, 12), range(12, 14)]) for view in views}  # fmt: skip
    seen = set()
    for epoch in range(30):
        views = [view for step in (0, 1) for view in draws(2 * epoch + step)]
        assert sorted(owners[view] for view in views) == [0, 1, 2, 3]
        seen |= set(views)
    assert seen == set(owners)
    assert Draws([1, 3, 2, 1], 2, 2, seed=0)(5) == draws(5)


def training(fields, tmp_path, pairs, **changes) -> EditTraining:
    model, own = editor(), config(fields, tmp_path, **changes)
    latents = PairLatents(model.vae, pairs, SIZE, own.flip, tmp_path / "cache", progress=False)
    table = ResidentPairs(latents, Draws(pairs.counts, 1 + own.flip, own.loop.batch, own.seed))
    said = Instructions(model, table.texts, own.train_text)
    return EditTraining(own, EditRun(model, table, said, latents))


def twin_loss(module: EditTraining, step: int) -> torch.Tensor:
    """Equation 1 in plain PyTorch."""
    model, own = module.run.model, module.config
    batch, size = module.run.table.draw(step), own.loop.batch
    generator = step_generator(own.seed + 1, step)
    clean = batch.mean + batch.std * torch.randn(batch.mean.shape, generator=generator)
    noise = torch.randn(batch.mean.shape, generator=generator)
    t = torch.randint(1000, (size,), generator=generator)
    luck = np.random.default_rng((own.seed, step)).random(size)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha_bar = (1 - betas).cumprod(0)[t].float()[:, None, None, None]
    noisy = alpha_bar.sqrt() * model.config.scale_factor * clean + (1 - alpha_bar).sqrt() * noise
    losses = []
    for i in range(size):
        text = "" if luck[i] < 0.1 else batch.texts[i]
        image = torch.zeros_like(batch.image[i]) if 0.05 <= luck[i] < 0.15 else batch.image[i]
        seen = torch.cat([noisy[i], image])[None]
        taps = vpd.Taps(noise=True, features=False, attention=())
        found = model.unet(seen, t[i : i + 1], model.encode_text([text]), taps=taps).noise
        weight = min(1 / float(alpha_bar[i]), own.weight_cap)
        losses.append(weight * F.mse_loss(found[0], noise[i]))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("weight_cap", [1.0, 20.0])
def test_loss_beside_a_plain_twin(fields, tmp_path, pairs, weight_cap):
    loop = {**LOOP, "batch": 6}
    module = training(fields, tmp_path, pairs, loop=loop, weight_cap=weight_cap)
    rows = slice(0, 6)
    lucks = [np.random.default_rng((0, step)).random(6) for step in range(40)]
    steps = [min(range(40), key=lambda s: np.abs(lucks[s] - at).min())
             for at in (0.025, 0.075, 0.125)]  # fmt: skip
    for step in steps:  # one lacks its text, both, its picture
        loss, expected = module.losses(step, rows)["loss"], twin_loss(module, step)
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-4)
    parts = [module.losses(0, slice(i, i + 2))["loss"] for i in (0, 2, 4)]
    torch.testing.assert_close(sum(parts), module.losses(0, rows)["loss"], atol=1e-5, rtol=1e-4)
    weight = module.run.model.unet.get_parameter("input_blocks.0.0.weight")
    (one,) = torch.autograd.grad(module.losses(1, rows)["loss"], weight)
    (other,) = torch.autograd.grad(twin_loss(module, 1), weight)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def test_what_trains(fields, tmp_path, pairs):
    names = {name.split(".")[0] for name, _ in training(fields, tmp_path, pairs).named_parameters()}
    assert names == {"unet"}
    module = training(fields, tmp_path, pairs, train_text=True)
    module.losses(0, slice(0, 2))["loss"].backward()
    grads = {n.split(".")[0] for n, p in module.named_parameters() if p.grad is not None}
    assert grads == {"unet", "text"}


def test_a_run_from_config_to_model(fields, tmp_path):
    own = config(fields, tmp_path, epochs=2, guidance=[3.0, 1.5], loop={**LOOP, "val_every": 4})
    metrics = train(own)
    assert set(metrics) == {"val_loss", "rise/text", "rise/image"}
    model = vpd.load(tmp_path / "model")
    assert isinstance(model, vpd.Editor)
    assert (model.config.text_guidance, model.config.image_guidance) == (3.0, 1.5)
    start = store.load(fields["foundation"]).state_dict()
    for name, tensor in model.state_dict().items():
        if not name.startswith("unet."):
            assert torch.equal(tensor, start[name]), name
    assert model.unet.get_parameter("input_blocks.0.0.weight")[:, 4:].any()
    card = json.loads((tmp_path / "model" / "config.json").read_text())["card"]
    assert card["metrics"] == metrics
    assert card["config"]["dropout"] == 0.05
    assert [p.name for p in (tmp_path / "pictures").iterdir()] == ["step-000004.png"]
    scene = tabletop.render(3_000_000).image
    assert model.edit(scene, "make the red cube blue", steps=1).image.shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("sizes", [None, [SIZE, SIZE + 8]])
def test_a_resumed_run_equals_one_that_was_left_alone(fields, tmp_path, monkeypatch, sizes):
    whole, ended = config(fields, tmp_path / "whole", sizes=sizes), tmp_path / "ended"
    train(whole)
    step = EditTraining.training_step

    def ends(self, _):
        if self.global_step == 3:
            raise KeyboardInterrupt
        return step(self, _)

    monkeypatch.setattr(EditTraining, "training_step", ends)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(replace(whole, out=str(ended)))
    assert not (ended / "model").exists()
    monkeypatch.undo()
    train(replace(whole, out=str(ended)))
    one, other = state(tmp_path / "whole"), state(ended)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_finished_run_goes_on_longer_but_not_otherwise(fields, tmp_path):
    own = config(fields, tmp_path)
    train(own)
    before = state(tmp_path)
    other = replace(own, loop=replace(own.loop, lr=own.loop.lr / 2))
    with pytest.raises(ValueError, match=r"holds a run with loop.lr = .*, expected"):
        train(other)
    with pytest.raises(ValueError, match="is of step 4, expected at most 2"):
        train(replace(own, loop=replace(own.loop, steps=2)))
    assert all(torch.equal(value, before[name]) for name, value in state(tmp_path).items())
    train(replace(own, loop=replace(own.loop, steps=6)))
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert rows[-1].split(",")[rows[0].split(",").index("step")] == "5"
    assert any(not torch.equal(value, before[name]) for name, value in state(tmp_path).items())


def test_an_editor_is_trained_further(fields, tmp_path):
    own = config(fields, tmp_path / "one", loop={**LOOP, "steps": 2, "checkpoint_every": 1})
    train(own)
    first = state(tmp_path / "one")
    further = replace(
        own, out=str(tmp_path / "two"), foundation=f"{own.out}/model", train_text=True
    )
    start = build(further).state_dict()
    assert all(torch.equal(start[name], value) for name, value in first.items())
    train(further)
    second = state(tmp_path / "two")
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"text", "unet"}


def test_no_editor_of_another_task(fields, tmp_path):
    with pytest.raises(ValueError, match="or an editor as foundation, got vpd-mini-refer: a Refer"):
        train(config(fields, tmp_path, foundation="vpd-mini-refer"))
    assert not list(tmp_path.iterdir())


def tree(folder, split="train") -> str:
    write_ip2p(folder, [split], {split: 4}, workers=1, progress=False)
    return str(folder / "tabletop-ip2p" / split)


def test_training_on_files(fields, tmp_path):
    root = tree(tmp_path / "data")
    data = {**fields["data"], "name": "ip2p", "root": root, "split": "all", "val_split": "all"}
    own = config(fields, tmp_path / "out", data=data, loop={**LOOP, "steps": 2})
    assert set(train(own)) == {"val_loss", "rise/text", "rise/image"}


def test_numbers_of_pairs_in_files(tmp_path):
    def picture(value):
        return np.full((SIZE, SIZE, 3), value, np.uint8)

    for entry, seeds in enumerate([(4,), (5, 6)]):
        new = [NewPair(seed, picture(seed), picture(seed + 100)) for seed in seeds]
        write_entry(tmp_path, entry, Triplet("a", f"edit {entry}", "b"), new)
    write_seeds(tmp_path)
    pairs = FilePairs(EditDataset(tmp_path, "all"))
    assert pairs.counts == [1, 2]
    assert [int(pairs.pair(i).before.mean().round()) for i in range(3)] == [4, 5, 6]
    assert [pairs.instruction(i) for i in range(3)] == ["edit 0", "edit 1", "edit 1"]
    before = pairs.key(1)
    write_entry(tmp_path, 1, Triplet("a", "edit 1", "b"), [NewPair(5, picture(5), picture(6))])
    assert pairs.key(1) != before


def test_streamed_pairs_depend_on_step_and_place_alone(pairs):
    seen = []

    class Posterior:
        def __init__(self, pixels):
            self.mean, self.std = pixels, torch.zeros_like(pixels)

        def mode(self):
            return self.mean

    augmentation = EditAugmentation((SIZE, SIZE + 16), SIZE, 0.5)
    for _ in range(2):
        table = StreamedPairs(Posterior, pairs, augmentation, 4, seed=1, workers=2)
        seen.append([table.draw(step) for step in (1, 0, 1)])
        part = table.draw(1, slice(2, 4))
        table.close()
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.mean, other.mean)
    first = seen[0][0]
    assert torch.equal(part.image, first.image[2:])
    assert part.texts == first.texts[2:]
    outside = (first.image - first.mean).abs() < 1e-6  # cut and mirrored alike
    assert float(outside.float().mean()) > 0.5


def test_memory_is_known_before(fields, tmp_path):
    own = config(fields, tmp_path, train_text=False)
    found = edit_footprint(own)
    counts = {part.name: part.in_optimizer for part in found.parts}
    size = sum(p.numel() for p in editor().unet.parameters())
    assert counts == {"vae": 0, "text": 0, "unet": size}
    assert found.optimizer == 8 * size
    more = edit_footprint(replace(own, sizes=(SIZE, SIZE + 8), train_text=True))
    assert more.optimizer == 8 * sum(part.in_optimizer for part in more.parts) > found.optimizer
    assert more.step >= found.step


def test_configs_that_cannot_be():
    for changes, message in [
        ({"dropout": 0.4}, "dropout must be in"),
        ({"sizes": [100, 200]}, "sizes must be at least crop"),
        ({"weight_cap": 0.5}, "weight_cap must be at least 1"),
        ({"data": {"name": "ip2p"}}, "data.root must name its folder"),
        ({"data": {"val_limit": 0}}, "val_limit must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            read(EditTrainConfig, changes)


def test_pixels_of_a_pair_are_exact(pairs):
    """Nothing is resized at the size of a picture."""
    pair = pairs.pair(0)
    before, after = EditAugmentation((128, 128), 128, 0)(pair, np.random.default_rng(0))
    assert torch.equal(before, in_range(pair.before))
    assert torch.equal(after, in_range(pair.after))
