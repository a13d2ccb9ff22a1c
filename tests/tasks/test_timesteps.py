"""Many protocols in one pass over the pictures: the scores of separate evaluations, for less."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import cv2
import pytest
import tiny
import torch
import torch.distributed as dist

from vpd.images import to_network
from vpd.protocol import NoiseSpec
from vpd.tasks.evaluate import evaluate_refer, under
from vpd.tasks.passes import TextStates
from vpd.tasks.samples import refer_samples
from vpd.tasks.timestep_rows import config_hash, markdown, timestep_rows, write_rows
from vpd.tasks.timesteps import evaluate_timesteps
from vpd.tasks.work import counted

SCENES = 3
STEPS = (0, 100, 500)


def protocol(name: str, steps=STEPS, **changes) -> list[NoiseSpec]:
    return [NoiseSpec.preset(name, noise_t=t, **changes) for t in steps]


@pytest.fixture(scope="module")
def model():
    """Random weights in double precision, so that no logit rounds to the other side of zero; masks
    neither empty nor full."""
    model = tiny.segmenter(3).double()
    with torch.no_grad():
        for p in model.parameters():
            if p.abs().max() < 1e-3:  # made so; would hide timestep and sentence
                p.normal_(0, 0.2)
    tiny.balance(model)
    return model


@pytest.fixture(scope="module")
def split():
    return tiny.val_scenes(SCENES)


def overlaps(model, split) -> list[tuple[int, int]]:
    """Intersection and union of every sentence's mask, each in a forward of its own."""
    found = []
    for picture in refer_samples(split):
        pixels = to_network(picture.image, 64)
        for question in picture.questions:
            with torch.no_grad():
                scores = model.logits(pixels, model.encode_text([question.text]))[0]
            mask, truth = (scores[1] > scores[0]).numpy(), question.mask[1::2, 1::2]
            found.append((int((mask & truth).sum()), int((mask | truth).sum())))
    return found


def texts_of(split) -> list[list[str]]:
    return [[q.text for q in picture.questions] for picture in refer_samples(split)]


@pytest.mark.parametrize(
    ("noises", "batch"),
    [
        (protocol("latent_match"), 4),
        (protocol("embed_only", (1, 700)), 16),
        ([*protocol("pixel", (0, 300)), *protocol("pixel_match", (300,), seed=3)], 5),
        (protocol("latent_fixed", (300,), latent_scale=0.8, noise_key="shared"), 3),
    ],
    ids=["latent_match", "embed_only", "pixel", "one"],
)
def test_scores_are_those_of_separate_evaluations(model, split, noises, batch):
    found = evaluate_timesteps(model, split, noises, batch=batch, text_blind=True, progress=False)
    assert len(found) == len(noises)
    for noise, one in zip(noises, found, strict=True):
        want = evaluate_refer(under(model, noise), split, text_blind=True, progress=False)
        assert one.metrics == pytest.approx(want.metrics, abs=1e-6)
        assert one.protocol == want.protocol
    assert len({one.metrics["mIoU"] for one in found}) > 1 or len(found) == 1


@pytest.mark.parametrize("ensemble", [(), (50, 300)], ids=["one map", "averaged maps"])
def test_scores_are_those_of_single_forwards(model, split, ensemble):
    """Protocols that tell the U-Net different things, in the same passes."""
    noises = [*protocol("latent_match", (0, 300)), *protocol("latent_fixed", (300,))]
    noises += protocol("pixel_match", (500,), seed=3)
    twin = under(model, noises[0], attn_t_ensemble=ensemble)
    found = evaluate_timesteps(twin, split, noises, batch=7, progress=False)
    for noise, one in zip(noises, found, strict=True):
        rows = overlaps(under(twin, noise), split)
        mean = sum(i / u for i, u in rows) / len(rows)
        whole = sum(i for i, _ in rows) / sum(u for _, u in rows)
        assert one.metrics["mIoU"] == pytest.approx(100 * mean, abs=1e-6)
        assert one.metrics["oIoU"] == pytest.approx(100 * whole, abs=1e-6)
        assert one.protocol["noise"] == noise.to_dict()
        assert one.protocol["attn_t_ensemble"] == list(ensemble)


def test_every_part_runs_as_often_as_it_must(model, split):
    texts = texts_of(split)
    sentences, distinct = sum(map(len, texts)), len({t for own in texts for t in own})
    assert distinct > 5
    with counted(model) as work:
        evaluate_timesteps(model, split, protocol("latent_match"), progress=False)
    assert (work.images, work.texts) == (SCENES, distinct)
    assert (work.stems, work.rows) == (SCENES * len(STEPS), sentences * len(STEPS))
    with counted(model) as work:
        for noise in protocol("latent_match"):
            evaluate_refer(under(model, noise), split, progress=False)
    assert work.images == SCENES * len(STEPS)
    assert work.rows == sentences * len(STEPS)
    with counted(model) as work:
        evaluate_timesteps(
            model, split, protocol("embed_only", (1, 7)), text_blind=True, progress=False
        )
    assert (work.images, work.texts, work.stems) == (SCENES, distinct + 1, SCENES * 2)
    assert "encode" not in vars(model.vae)
    assert not model.unet._forward_hooks


def test_noise_on_pixels_is_encoded_once_for_each_timestep(model, split):
    noises = [*protocol("pixel"), *protocol("pixel_match"), *protocol("latent_fixed")]
    with counted(model) as work:
        evaluate_timesteps(model, split, noises, progress=False)
    # t = 100 and 500, and the clean picture for t = 0 and the latent protocol.
    assert work.images == SCENES * 3


def test_more_sentences_than_a_batch(model, split):
    noises = protocol("latent_match", (0, 300))
    want = evaluate_timesteps(model, split, noises, progress=False)
    with counted(model) as work:
        found = evaluate_timesteps(model, split, noises, batch=2, progress=False)
    for one, other in zip(found, want, strict=True):
        assert one.metrics == pytest.approx(other.metrics, abs=1e-6)
    assert work.images == SCENES
    assert max(map(len, texts_of(split))) > 2


def test_a_model_that_averages_maps_over_timesteps_shares_its_encodes(split):
    own = NoiseSpec.preset("latent_match")
    model = under(tiny.segmenter(1), own, attn_t_ensemble=(50, 300))
    with counted(model) as work:
        evaluate_timesteps(model, split, protocol("latent_match"), text_blind=True, progress=False)
    texts = texts_of(split)
    sentences, distinct = sum(map(len, texts)), len({t for own in texts for t in own})
    assert (work.images, work.texts) == (SCENES, distinct + 1)
    assert work.rows == (sentences + SCENES) * len(STEPS) * 3
    assert work.stems == SCENES * len(STEPS) * 3


class Watched(list):
    """Pictures at hand that remember which of them were read."""

    name, split = "mine", "val"

    def __init__(self, pictures):
        super().__init__(pictures)
        self.read = []

    def __getitem__(self, place):
        self.read.append(place)
        return super().__getitem__(place)

    def sentences(self, place):
        return len(list.__getitem__(self, place).questions)

    def floors(self, limit):
        return {}


class Group:
    """One of several processes, the others being elsewhere."""

    def __init__(self, rank, size):
        self.rank, self.size = lambda: rank, lambda: size


def test_processes_read_their_own_pictures_alone(model, split, monkeypatch):
    noises = protocol("latent_match", (0, 300))
    pictures = list(refer_samples(split))
    want = evaluate_timesteps(model, Watched(pictures), noises, batch=6, progress=False)
    counted_by, read = [], []

    def gather(found, own, group):
        counted_by.append(own)
        found[:] = copy.deepcopy([*counted_by, *[own] * (len(found) - len(counted_by))])

    monkeypatch.setattr(dist, "all_gather_object", gather)
    for rank in range(2):
        samples = Watched(pictures)
        found = evaluate_timesteps(
            model, samples, noises, batch=6, progress=False, group=Group(rank, 2)
        )
        read.append(samples.read)
    # The last one has what both have counted.
    for one, other in zip(found, want, strict=True):
        assert one.metrics == pytest.approx(other.metrics, abs=1e-6)
    assert all(read)
    assert sorted(read[0] + read[1]) == list(range(SCENES))


def test_training_goes_on_as_it_was(model, split):
    model.train()
    try:
        evaluate_timesteps(model, split, protocol("latent_match"), limit=1, progress=False)
        assert model.training
    finally:
        model.eval()


def test_sentences_beyond_the_memory_are_encoded_again(model):
    words = [f"the {color} cube" for color in ("red", "green", "blue", "grey")]
    with torch.inference_mode():
        want = model.context(model.encode_text(words))
        states = TextStates(model, keep=2 * want[0].nbytes)
        with counted(model) as work:
            torch.testing.assert_close(states(words, 3), want)  # more than it may keep
            assert work.texts == 4
            torch.testing.assert_close(states(words[2:], 3), want[2:])
            assert work.texts == 4
            torch.testing.assert_close(states(words[:1] + words[3:], 3), want[[0, 3]])
            assert work.texts == 5
            states(words[3:], 3)
            assert work.texts == 5


@pytest.mark.parametrize(
    ("noises", "options", "message"),
    [
        ([], {}, "got 0"),
        (protocol("pixel", (3, 3)), {}, "each once, got 2"),
        (protocol("pixel"), {"batch": 0}, "batch must be at least 1"),
        (protocol("pixel"), {"limit": 0}, "limit must be at least 1"),
    ],
)
def test_bad_requests_are_named(model, split, noises, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_timesteps(model, split, noises, progress=False, **options)


def test_records_table_and_curves(model, split, tmp_path):
    noises = protocol("latent_match", (0, 300), seed=7)
    found = evaluate_timesteps(model, split, noises, limit=2, progress=False)
    rows = timestep_rows(found, model.config, peak_bytes=5)
    for row, noise, one in zip(rows, noises, found, strict=True):
        assert (row["protocol"], row["t"], row["seed"]) == ("latent_match", noise.noise_t, 7)
        assert (row["images"], row["n"], row["peak_bytes"]) == (2, one.metrics["n"], 5)
        assert row["config"] == config_hash(replace(model.config, noise=noise))
        assert {
            name: one.metrics[name] for name in ("P@0.5", "mIoU", "pick")
        }.items() <= row.items()
        assert row["seconds"] == pytest.approx(2 * one.seconds_per_image)
    assert rows[0]["config"] != rows[1]["config"]
    table = markdown(rows).splitlines()
    columns = ["t", "P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9", "oIoU", "mIoU", "pick"]
    assert [cell.strip() for cell in table[0].strip("|").split("|")] == columns
    assert table[3].split("|")[1].strip() == "300"
    assert len({len(line) for line in table}) == 1
    files = write_rows(rows, tmp_path / "new")
    assert [path.name for path in files] == [f"timesteps.{end}" for end in ("jsonl", "md", "png")]
    assert [json.loads(line) for line in files[0].read_text().splitlines()] == rows
    assert files[1].read_text() == markdown(rows)
    assert cv2.imread(str(files[2])) is not None
    assert "protocol |" in markdown([*rows, {**rows[0], "protocol": "pixel"}])
