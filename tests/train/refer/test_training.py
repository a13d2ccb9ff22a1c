"""Training of referring segmentation at toy scale: it runs end to end, and an interrupted run
equals an uninterrupted one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dense_toys import fails_at_step_3
from toys import few_scenes, write_foundation

import vpd
from vpd.data import tabletop
from vpd.lora import LoraConfig, load_lora, merge_lora

pytest.importorskip("lightning")
from vpd.train.loop.config import LoopConfig
from vpd.train.refer import ReferData, ReferTrainConfig, build, train
from vpd.train.refer.table import ReferTable, tabletop_refs
from vpd.train.refer.training import ReferTraining


def loop(**changes) -> LoopConfig:
    fields = {
        "steps": 4,
        "batch": 2,
        "val_every": 100,
        "checkpoint_every": 2,
        "log_every": 1,
        "precision": "32",
    }
    return LoopConfig(**{**fields, **changes})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def foundation(tmp_path_factory):
    """The folder of a foundation, ``model``; and splits of a few scenes instead of hundreds."""
    folder = tmp_path_factory.mktemp("foundation")
    write_foundation(folder / "model", closed=False)
    with few_scenes():
        yield folder


def toy_refer(out, foundation, cache, **changes) -> ReferTrainConfig:
    fields = {
        "out": str(out), "foundation": str(foundation / "model"), "loop": loop(ema=0.5),
        "data": ReferData(split="train", limit=4, cache_dir=cache, workers=1, val_limit=2),
        "hidden": 8, "attention": (2,), "progress": False,
    }  # fmt: skip
    return ReferTrainConfig(**{**fields, **changes})


def test_referring_training_writes_a_model_that_segments(foundation, cache, tmp_path):
    folder = foundation
    metrics = train(toy_refer(tmp_path, folder, cache))
    assert {"oIoU", "P@0.5", "pick", "text_blind/oIoU", "floor/random"} <= set(metrics)
    model = vpd.load(tmp_path / "model")
    result = model(torch.rand(3, 50, 70), "the small red cube")
    assert result.mask.shape == (50, 70)
    # The U-Net was fine-tuned, the autoencoder and the text encoder were not.
    base = vpd.load(folder / "model")
    assert not torch.equal(model.unet.get_parameter("input_blocks.0.0.weight"),
                           base.unet.get_parameter("input_blocks.0.0.weight"))  # fmt: skip
    name = "encoder.conv_in.weight"
    assert torch.equal(model.vae.get_parameter(name), base.vae.get_parameter(name))


def test_subsets_of_training_and_validation(foundation, cache, tmp_path, caplog):
    folder = foundation
    data = ReferData(
        split="train", limit=4, cache_dir=cache, workers=1, subset=7, val_subset=4, val_limit=2
    )
    with caplog.at_level("INFO", logger="vpd"):
        metrics = train(toy_refer(tmp_path, folder, cache, data=data))
    assert " 7 sentences, " in caplog.text
    assert metrics["n"] == 4


def test_frozen_and_random_u_nets(foundation, cache, tmp_path):
    folder = foundation
    config = toy_refer(
        tmp_path, folder, cache, freeze="unet", select="best", loop=loop(val_every=2)
    )
    start = build(config)
    train(config)
    end = vpd.load(tmp_path / "model")
    name = "input_blocks.0.0.weight"
    torch.testing.assert_close(
        end.unet.get_parameter(name), start.unet.get_parameter(name).half().float()
    )
    random = build(replace(config, unet_init="random"))
    assert not torch.equal(random.unet.get_parameter(name), start.unet.get_parameter(name))


def test_lora(foundation, cache, tmp_path):
    folder = foundation
    config = toy_refer(tmp_path, folder, cache, lora=LoraConfig(rank=2), recompute="all")
    train(config)
    base, model = vpd.load(folder / "model"), vpd.load(tmp_path / "model")
    unet = build(config).unet
    names = load_lora(unet, tmp_path / "lora.safetensors")
    merge_lora(unet)
    changed = {
        name
        for name, tensor in model.unet.state_dict().items()
        if not torch.equal(tensor, base.unet.state_dict()[name])
    }
    assert changed
    assert changed <= set(names)
    for name in names:  # the model folder keeps float16
        torch.testing.assert_close(
            model.unet.state_dict()[name], unet.state_dict()[name], rtol=1e-3, atol=1e-3
        )


def test_left_out_of_the_optimizer(foundation, cache, tmp_path):
    folder = foundation
    train(toy_refer(tmp_path, folder, cache, freeze="optimizer_only"))
    base, model = vpd.load(folder / "model"), vpd.load(tmp_path / "model")
    for name, tensor in base.unet.state_dict().items():
        assert torch.equal(model.unet.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "changes",
    [{}, {"lora": LoraConfig(rank=2)}, {"train_text": True}],
    ids=["whole", "lora", "text"],
)
def test_interrupted_referring_training_equals_uninterrupted(
    foundation, cache, tmp_path, monkeypatch, changes
):
    folder = foundation
    train(toy_refer(tmp_path / "whole", folder, cache, **changes))
    step = ReferTraining.training_step
    monkeypatch.setattr(ReferTraining, "training_step", fails_at_step_3(step))
    with pytest.raises(RuntimeError, match="power cut"):
        train(toy_refer(tmp_path / "parts", folder, cache, **changes))
    monkeypatch.setattr(ReferTraining, "training_step", step)
    train(toy_refer(tmp_path / "parts", folder, cache, **changes))
    a = vpd.weights.read_state_dict(tmp_path / "whole" / "model" / "model.safetensors")[0]
    b = vpd.weights.read_state_dict(tmp_path / "parts" / "model" / "model.safetensors")[0]
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-4, msg=key)


def test_an_epoch_visits_every_object_once(foundation, cache):
    folder = foundation
    model = build(toy_refer("unused", folder, cache))
    split = tabletop.load_split("train", cache, limit=4, progress=False)
    refs = list(tabletop_refs(split))
    table = ReferTable(model, list(split.images[:]), refs, batch=1, seed=3)
    seen = []
    for step in range(table.steps_per_epoch):
        batch = table.draw(step)
        again = table.draw(step)
        assert torch.equal(batch.masks, again.masks)
        assert torch.equal(batch.ids, again.ids)
        seen += [
            i
            for i, ref in enumerate(refs)
            if torch.equal(batch.masks[0], torch.from_numpy(ref.mask).long())
        ]
    assert sorted(seen) == list(range(len(refs)))


def test_objects_of_a_picture_stand_together(foundation, cache):
    folder = foundation
    model = build(toy_refer("unused", folder, cache))
    split = tabletop.load_split("train", cache, limit=4, progress=False)
    refs = list(tabletop_refs(split))
    table = ReferTable(model, list(split.images[:]), refs, batch=6, seed=3, together=3)
    seen = set()
    for step in range(table.steps_per_epoch):
        batch = table.draw(step)
        assert torch.equal(batch.index, batch.index[::3].repeat_interleave(3))
        assert len(batch.latents) == len(batch.index.unique())
        pictures = table.pictures[batch.samples].view(2, 3)
        assert torch.equal(pictures, pictures[:, :1].expand(2, 3))
        seen |= {hash(mask.numpy().tobytes()) for mask in batch.masks}
    everything = {hash(torch.from_numpy(ref.mask).long().numpy().tobytes()) for ref in refs}
    assert seen <= everything
    assert len(seen) > len(everything) - 6  # the last, incomplete batch is dropped
    with pytest.raises(ValueError, match="together must divide the batch of 6, got 4"):
        ReferTable(model, list(split.images[:]), refs, batch=6, seed=3, together=4)
