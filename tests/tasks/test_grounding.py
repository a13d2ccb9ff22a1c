"""The prior's own grounding: phrases, heat maps and scores against plain twins; the study as a
whole against one picture at a time."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tiny
import torch

from vpd.data import tabletop
from vpd.metrics import ReferMetrics
from vpd.protocol import NoiseSpec
from vpd.tasks.grounding import examples, label, prior_grounding, protocols
from vpd.tasks.maps import attention_maps
from vpd.tasks.pointing import ATTRIBUTES, Score, heat_maps, named_objects
from vpd.tokens import token_strings
from vpd.viz.grounding import grounding_figure, grounding_maps


@pytest.fixture(scope="module")
def split():
    return tiny.val_scenes(12)


@pytest.fixture(scope="module")
def model():
    return tiny.foundation(1)


@pytest.fixture(scope="module")
def study(model, split):
    noises = [protocols(model)[0], NoiseSpec.preset("pixel", noise_t=300, latent_scale=0.8)]
    noises.append(NoiseSpec.preset("latent_match", noise_t=300, latent_scale=0.8))
    return prior_grounding(model, split, noises=noises, batch=7, progress=False)


def visible(split, index):
    objects = split.scene(index).objects
    return [o for o in objects if o.visible_px >= tabletop.VISIBLE_PX]


@pytest.mark.parametrize("attributes", [ATTRIBUTES, ("color", "shape")])
def test_a_phrase_is_true_of_its_object_alone(split, attributes):
    named = named_objects(split, 16, attributes=attributes, per_scene=3)
    assert len(set(zip(named.scenes.tolist(), named.objects.tolist(), strict=True))) == len(named)
    assert max(torch.bincount(named.scenes)) == 3
    for row, text in enumerate(named.texts):
        index, number = int(named.scenes[row]), int(named.objects[row])
        seen = visible(split, index)
        said = tabletop.head_attributes("the " + text.split(maxsplit=1)[1])
        assert tuple(said) == attributes
        true = [o for o in seen if all(getattr(o, a) == v for a, v in said.items())]
        assert true == [split.scene(index).objects[number - 1]]
        assert text.startswith("an o" if said[attributes[0]] == "orange" else "a ")
        mask = split.instances[index] == number
        assert mask.sum() >= tabletop.TARGET_PX
        np.testing.assert_array_equal(named.targets[row].numpy(), mask)
        assert int(named.visible[row]) == len(seen)
        alike = [sum(getattr(o, a) == v for o in seen) for a, v in said.items()]
        assert named.alike[row].tolist() == alike


def test_columns_are_those_of_the_words(split):
    named = named_objects(split, 16)
    for text, ids, columns in zip(named.texts, named.ids, named.columns, strict=True):
        tokens = token_strings(ids)
        for word, shares in zip(text.split()[1:], columns, strict=True):
            used = shares.nonzero().flatten().tolist()
            assert "".join(tokens[i] for i in used) == word
            assert shares[used].tolist() == pytest.approx([1 / len(used)] * len(used))
    assert any(len(row.nonzero()) > 1 for columns in named.columns for row in columns)


def test_the_same_scenes_give_the_same_phrases(split):
    assert named_objects(split, 16, limit=5).texts == named_objects(tiny.val_scenes(5), 16).texts


@pytest.mark.parametrize("attributes", [("shape", "color"), ("color",), ("colour", "shape"), ()])
def test_attributes_are_checked(split, attributes):
    with pytest.raises(ValueError, match="end in 'shape'"):
        named_objects(split, 16, attributes=attributes)


def unit(values):
    return (values - values.min()) / (values.max() - values.min())


def test_heat_maps_against_opencv():
    rng = np.random.default_rng(0)
    attention = {s: rng.random((2, 5, 16 // s, 16 // s), dtype=np.float32) for s in (2, 4)}
    columns = torch.zeros(2, 3, 5)
    columns[:, 0, 1] = columns[:, 1, 2] = 1
    columns[:, 2, 3:] = 0.5  # a word of two tokens
    size = (37, 50)
    found = heat_maps({s: torch.from_numpy(m) for s, m in attention.items()}, columns, size)
    assert set(found) == {"2", "4", "mean"}
    for row in range(2):
        by_stride = []
        for stride in (2, 4):
            tokens = attention[stride][row]
            words = [tokens[1], tokens[2], (tokens[3] + tokens[4]) / 2]
            heats = [unit(cv2.resize(w, size[::-1], interpolation=cv2.INTER_LINEAR)) for w in words]
            heats.append(unit(np.mean(heats, axis=0)))
            by_stride.append(np.stack(heats))
            np.testing.assert_allclose(found[str(stride)][row].numpy(), heats, atol=1e-5)
        mean = [unit(both) for both in np.mean(by_stride, axis=0)]
        np.testing.assert_allclose(found["mean"][row].numpy(), mean, atol=1e-5)
    assert set(heat_maps({2: torch.rand(1, 5, 8, 8)}, columns[:1], size)) == {"2"}


def plain_score(heat, targets, objects, halves):
    """Loops over samples and thresholds, with the package's metric of masks."""
    hits = [t.flatten()[h.argmax()].item() for h, t in zip(heat, targets, strict=True)]
    touched = [o.flatten()[h.argmax()].item() for h, o in zip(heat, objects, strict=True)]
    chosen, masks = [], []
    for half in (0, 1):
        best = (-1.0, 0)
        other = halves != half
        for k in range(50):
            metrics = ReferMetrics()
            metrics.update((heat[other] * 50).floor() >= k, targets[other])
            best = max(best, (metrics.compute()["oIoU"], -k))
        chosen.append(-best[1])
        masks.append((heat[halves == half] * 50).floor() >= chosen[-1])
    metrics = ReferMetrics()
    metrics.update(torch.cat(masks), torch.cat([targets[halves == 0], targets[halves == 1]]))
    return {
        "pointing": 100 * np.mean(hits),
        "on_object": 100 * np.mean(touched),
        "oIoU": metrics.compute()["oIoU"],
        "threshold": np.mean(chosen) / 50,
        "n": len(heat),
    }


def test_score_against_loops():
    generator = torch.Generator().manual_seed(0)
    targets = torch.zeros(9, 20, 24, dtype=torch.bool)
    for row, mask in enumerate(targets):
        mask[row : row + 6, 2 * row : 2 * row + 5] = True
    objects = targets | (torch.rand(9, 20, 24, generator=generator) > 0.8)
    heat = (torch.rand(9, 20, 24, generator=generator) + 0.3 * targets) / 1.3
    heat[::3] = torch.rand(3, 20, 24, generator=generator)  # these point anywhere
    halves = torch.tensor([0, 1, 0, 1, 0, 0, 1, 1, 0])
    score = Score()
    for rows in torch.split(torch.arange(9), 4):
        score.update(heat[rows], targets[rows], objects[rows], halves[rows])
    expected = plain_score(heat, targets, objects, halves)
    assert 0 < expected["pointing"] < 100
    assert score.compute() == pytest.approx(expected)


def test_score_of_perfect_and_of_no_maps():
    targets = torch.zeros(2, 8, 8, dtype=torch.bool)
    targets[:, 2:4, 3:6] = True
    score = Score()
    score.update(targets.float(), targets, targets)
    found = score.compute()
    assert (found["pointing"], found["on_object"], found["oIoU"]) == (100, 100, 100)
    assert Score().compute() == {
        "pointing": 0, "on_object": 0, "oIoU": 0, "threshold": 0, "n": 0,
    }  # fmt: skip


def test_study_equals_one_phrase_at_a_time(study, model, split):
    named = named_objects(split, model.config.token_length)
    halves = torch.unique(named.scenes, return_inverse=True)[1] % 2
    for noise in study.noises:
        heats: dict[str, list[torch.Tensor]] = {}
        for row, text in enumerate(named.texts):
            image = split.images[int(named.scenes[row])]
            maps = attention_maps(model, image, text, noise=noise).maps
            words = {s: torch.from_numpy(m)[None, 1:] for s, m in maps.items()}
            found = heat_maps(words, torch.eye(4)[None], (128, 128))
            for stride, heat in found.items():
                heats.setdefault(stride, []).append(heat[0])
        objects = torch.from_numpy(split.instances[named.scenes.numpy()] > 0)
        for stride, rows in heats.items():
            for index, kind in enumerate((*ATTRIBUTES, "phrase")):
                expected = Score()
                expected.update(torch.stack(rows)[:, index], named.targets, objects, halves)
                row = study.row(noise, kind, stride)
                for name, value in expected.compute().items():
                    assert getattr(row, name) == pytest.approx(value, abs=0.02), (row, name)


def test_references_are_what_guessing_reaches(study, split):
    named = named_objects(split, 16)
    assert study.references["anywhere"] == pytest.approx(100 * named.targets.double().mean())
    guesses = [1 / len(visible(split, i)) for i in named.scenes.tolist()]
    assert study.references["object"] == pytest.approx(100 * np.mean(guesses))
    assert all(
        study.references[f"word/{kind}"] >= study.references["object"] for kind in ATTRIBUTES
    )


def test_a_study_carries_its_protocols(study, model):
    found = json.loads(json.dumps(study.to_dict()))
    assert [r["preset"] for r in found["results"]] == [
        "vpd-2023, latents x 0.8", "pixel, t = 300, latents x 0.8",
        "latent_match, t = 300, latents x 0.8",
    ]  # fmt: skip
    assert [label(noise) for noise in study.noises] == ["no noise", "t = 300, told 1", "t = 300"]
    assert NoiseSpec(**found["results"][2]["noise"]) == study.noises[2]
    assert len(found["results"][0]["rows"]) == 3 * 5  # strides x kinds
    assert found["protocol"]["phrases"] == found["results"][0]["rows"][0]["n"]
    text = study.table()
    assert "stride 2" in text
    assert f"{study.references['object']:.1f}" in text


def test_protocols_share_seed_and_latent_scale(model):
    clean, noisy = protocols(model, [400])
    assert (clean.adds_noise, clean.timestep) == (False, 1)
    assert noisy == replace(clean, noise_space="latent", noise_t=400, embed_t="match")


def test_a_task_model_is_read_through_its_adapter(split):
    segmenter = tiny.segmenter(2)
    noise = protocols(segmenter)[:1]
    found = prior_grounding(segmenter, split, noises=noise, limit=4, progress=False)
    assert found.protocol["task"] == "refer"
    assert found.noises == (segmenter.config.noise,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be at least 1"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"noises": []}, "at least one noise protocol"),
        ({"strides": []}, "one stride"),
        ({"strides": [3]}, "3"),
    ],
)
def test_bad_requests_are_named(model, split, options, message):
    with pytest.raises(ValueError, match=message):
        prior_grounding(model, split, progress=False, **options)


def test_figures(study, model, split, tmp_path):
    path = grounding_figure(study).save(tmp_path / "curves.png")
    assert cv2.imread(str(path)).shape[1] > 800
    assert study._repr_png_().startswith(b"\x89PNG")
    shown = examples(model, split, 2, noises=study.noises)
    figure = grounding_maps(shown)
    # A phrase has a row for each of its four words: picture or blank, then one map per protocol.
    assert len(figure.axes) == 2 * 4 * (1 + len(study.noises))
    assert {"no noise", "t = 300", "small", "large"} & {t.get_text() for t in figure.texts}


def test_dots_say_whether_the_maximum_is_on_the_object(split):
    from vpd.tasks.grounding import Example
    from vpd.tasks.maps import AttentionMaps
    from vpd.viz.grounding import _HIT, _MISS

    mask = np.zeros((128, 128), bool)
    mask[16:48, 16:48] = True
    values = np.zeros((3, 16, 16), np.float32)
    values[1, 4, 4] = values[2, 12, 12] = 1  # the maximum on the object, and elsewhere
    labels = ("a", "red", "cube")
    maps = AttentionMaps(split.images[0], "a red cube", labels, {2: values}, NoiseSpec())
    axes = grounding_maps([Example(mask, (maps,))]).axes
    red, cube = (axes[i].images[0].get_array() for i in (1, 3))
    assert tuple(red[72, 72]) == _HIT
    assert tuple(cube[200, 200]) == _MISS
