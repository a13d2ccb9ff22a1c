"""Scores against a plain loop: one sentence at a time, masks in NumPy."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from vpd.data import tabletop
from vpd.data.refer import ReferDataset
from vpd.data.tabletop.layout import write_refer
from vpd.images import to_network
from vpd.protocol import NoiseSpec
from vpd.tasks.evaluate import evaluate_refer, preset_name, under
from vpd.tasks.samples import Question, SamplePicture, refer_samples

SCENES = 6


@pytest.fixture(scope="module")
def model():
    """Random weights, with the decoder's bias moved so that masks are neither empty nor full."""
    model = tiny.segmenter(3)
    tiny.balance(model)
    return model


@pytest.fixture(scope="module")
def split():
    return tiny.val_scenes(SCENES)


def one_by_one(model, split, text=None):
    """(predicted mask, true mask, kind, picked) of every sentence, each in its own forward."""
    rows = []
    for i, spoken in enumerate(tabletop.expressions_for(split)):
        # 128 -> 64 by nearest exact: pixel centres at odd positions.
        instances = np.array(split.instances[i])[1::2, 1::2]
        for e in spoken:
            pixels = to_network(np.array(split.images[i]), 64)
            with torch.no_grad():
                states = model.encode_text([e.text if text is None else text])
                scores = model.logits(pixels, states)[0].double()
            logit = (scores[1] - scores[0]).numpy()
            visible = [k for k in np.unique(instances) if k and (instances == k).sum() >= 15]
            best = max(visible, key=lambda k: logit[instances == k].mean())
            rows.append((logit > 0, instances == e.target + 1, e.kind, best == e.target + 1))
    return rows


def scores(rows):
    inter = np.array([(p & t).sum() for p, t, *_ in rows])
    union = np.array([(p | t).sum() for p, t, *_ in rows])
    iou = inter / union
    return {
        "oIoU": 100 * inter.sum() / union.sum(),
        "mIoU": 100 * iou.mean(),
        "P@0.5": 100 * (iou >= 0.5).mean(),
        "pick": 100 * np.mean([picked for *_, picked in rows]),
        "n": len(rows),
    }


def test_scores_equal_a_plain_loop(model, split):
    rows = one_by_one(model, split)
    blind = one_by_one(model, split, text="")
    found = evaluate_refer(model, split, batch=5, text_blind=True, progress=False)
    expected = {"": rows, "text_blind/": blind}
    expected |= {f"{kind}/": [r for r in rows if r[2] == kind] for kind in tabletop.KINDS}
    assert 0.2 < np.mean([p.mean() for p, *_ in rows]) < 0.8
    for prefix, chosen in expected.items():
        for name, value in scores(chosen).items():
            # A logit that is zero to rounding may fall either way; a mask has 4096 pixels.
            assert found.metrics[prefix + name] == pytest.approx(value, abs=0.05), prefix + name


def test_batch_size_and_training_flag_do_not_matter(model, split):
    model.train()
    try:
        one = evaluate_refer(model, split, batch=1, progress=False).metrics
        assert model.training
    finally:
        model.eval()
    many = evaluate_refer(model, split, batch=64, progress=False).metrics
    assert one == pytest.approx(many, abs=0.05)


def test_floors_stand_beside_and_are_percentages(model, split):
    found = evaluate_refer(model, split, limit=4, progress=False)
    spoken = tabletop.expressions_for(split)[:4]
    floors = tabletop.floors([split.scene(i) for i in range(4)], spoken)
    assert {f"floor/{k}": 100 * v for k, v in floors.items()}.items() <= found.metrics.items()
    assert found.protocol["images"] == 4
    assert found.protocol["sentences"] == sum(map(len, spoken)) == found.metrics["n"]


def test_a_data_set_on_disk_scores_as_the_rendered_split(model, split, tmp_path):
    write_refer(tmp_path, ["val"], {"val": SCENES}, workers=1, progress=False)
    data = ReferDataset(tmp_path, "tabletop", split="val")
    read = evaluate_refer(model, data, progress=False).metrics
    rendered = evaluate_refer(model, split, progress=False).metrics
    assert not any(name.startswith("floor/") for name in read)
    assert read == pytest.approx(
        {k: v for k, v in rendered.items() if not k.startswith("floor/")}, abs=0.05
    )


def test_table_and_json(model, split):
    found = evaluate_refer(model, split, text_blind=True, progress=False)
    data = json.loads(json.dumps(found.to_dict()))
    assert data["protocol"]["noise"] == NoiseSpec().to_dict()
    assert data["protocol"]["preset"] == "vpd-2023"
    table = found.table()
    for word in ("P@0.9", "oIoU", "pick", "relation", "empty sentence", "floor: any object"):
        assert word in table
    assert max(map(len, table.splitlines())) <= 100


def test_published_numbers_stand_beside_photographs_only(model, split):
    found = evaluate_refer(model, split, progress=False)
    assert "published" not in found.table()
    elsewhere = replace(found, protocol={**found.protocol, "data": "refcoco"})
    assert "73.46" in elsewhere.table()


def test_large_pictures_with_many_sentences(model):
    """Other sizes than the model's, no instance map, more sentences than a batch holds."""
    rng = np.random.default_rng(0)
    mask = np.zeros((50, 333), bool)
    mask[10:40, 100:300] = True
    pictures = [
        SamplePicture(
            rng.integers(0, 255, (50, 333, 3), dtype=np.uint8),
            tuple(Question(f"object {i}", mask) for i in range(count)),
        )
        for count in (1, 9, 2)
    ]

    class Samples(list):
        name, split = "mine", "val"

        def sentences(self, place):
            return len(self[place].questions)

        def floors(self, limit):
            return {}

    found = evaluate_refer(model, Samples(pictures), batch=4, progress=False)
    assert found.metrics["n"] == 12
    assert "pick" not in found.metrics
    assert not [name for name in found.metrics if "/" in name]


def test_another_protocol_shares_the_weights(model):
    noisy = under(model, NoiseSpec.preset("latent_match", noise_t=300))
    assert noisy.config.noise.timestep == 300
    assert model.config.noise == NoiseSpec()
    assert noisy.unet is model.unet
    image = np.full((64, 64, 3), 90, np.uint8)
    assert not np.allclose(
        noisy(image, "a cube").probability, model(image, "a cube").probability, atol=1e-4
    )


@pytest.mark.parametrize(
    ("noise", "name"),
    [
        (NoiseSpec(), "vpd-2023"),
        (NoiseSpec(latent_scale=0.8), "vpd-2023, latents x 0.8"),
        (NoiseSpec.preset("latent_match", noise_t=100), "latent_match, t = 100"),
        (NoiseSpec.preset("embed_only", noise_t=5), "embed_only, t = 5"),
        (NoiseSpec.preset("odise"), "odise"),
        (NoiseSpec(noise_space="latent", embed_t=7), "custom"),
    ],
)
def test_protocols_have_names(noise, name):
    assert preset_name(noise) == name


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"limit": 0}])
def test_numbers_below_one_are_errors(model, split, wrong):
    with pytest.raises(ValueError, match="at least 1"):
        evaluate_refer(model, split, progress=False, **wrong)


def test_other_samples_are_errors():
    with pytest.raises(TypeError, match="ReferDataset or a TabletopSplit, got list"):
        refer_samples([1])
