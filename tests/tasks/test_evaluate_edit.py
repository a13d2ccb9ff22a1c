"""Editors scored under several guidances, against metrics computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

from vpd.data import tabletop
from vpd.data.edit import EditDataset
from vpd.data.edit_files import NewPair, write_entry, write_seeds
from vpd.diffusion import START, SampleNoise, Sampler
from vpd.images import in_range
from vpd.models.unet import Taps
from vpd.tasks import evaluate_edit as module
from vpd.tasks.edit_samples import batches, chosen
from vpd.tasks.editor import Editor
from vpd.tasks.editor_size import fitted
from vpd.tasks.evaluate_edit import (
    EditSetting,
    edit_table,
    evaluate_edit,
    read_rows,
    sweep_settings,
)
from vpd.tasks.sdedit import sdedit
from vpd.viz.edit_sweep import guidance_grid, tradeoff_figure

SETTINGS = sweep_settings((7.5,), (1.0, 2.0), (0.5,))
NOISE = Taps(noise=True, features=False, attention=())
OPTIONS = {"steps": 2, "samples": 3, "batch": 2, "progress": False}
LEAST = {"steps": 1, "samples": 1}


@pytest.fixture(scope="module")
def foundation():
    found = tiny.foundation(1, clip=True)
    with torch.no_grad():  # zero-initialised layers would hide what the U-Net is told
        for p in found.unet.parameters():
            if not p.any():
                p.normal_(0, 0.1)
    return found


@pytest.fixture(scope="module")
def editor(foundation):
    found = Editor.from_foundation(foundation)
    with torch.no_grad():
        weight = found.unet.get_parameter("input_blocks.0.0.weight")
        weight[:, 4:].normal_(0, 0.1)
    return found


@pytest.fixture(scope="module")
def pairs():
    return tabletop.edits(tiny.val_scenes(4))


def options(editor, foundation, **changes):
    """128 px, the size of the scenes, so that the edited region is known."""
    return {
        **OPTIONS, "resolution": 128, "clip": foundation.clip, "foundation": foundation, **changes
    }  # fmt: skip


def test_default_settings_are_the_published_sweep():
    settings = sweep_settings()
    assert [s.scale_img for s in settings] == [1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2]
    assert {(s.scale_txt, s.method) for s in settings} == {(7.5, "editor")}
    assert [s.method for s in SETTINGS] == ["editor", "editor", "sdedit"]


def test_choice_is_drawn_by_seed(pairs):
    assert sorted(chosen(pairs, None, 3)) == list(range(len(pairs)))
    assert chosen(pairs, 2, 3) == chosen(pairs, None, 3)[:2]
    assert any(chosen(pairs, None, 0) != chosen(pairs, None, seed) for seed in range(1, 9))


def test_batches_hold_pictures_of_one_size(pairs):
    class Mixed:
        def __len__(self):
            return 4

        def pair(self, index, generator=None):
            own = pairs.pair(0)
            picture = own.before[:64] if index == 2 else own.before
            return replace(own, before=picture, after=picture)

    sizes = [
        [one.before.shape[:2] for one in part]
        for part in batches(Mixed(), [0, 1, 2, 3], resolution=64, multiple=32, batch=3, seed=0)
    ]
    assert sizes == [[(64, 64)] * 2, [(32, 64)], [(64, 64)]]


def test_rows_are_means_over_single_edits(editor, foundation, pairs):
    """Every picture edited alone, every metric written out."""
    rows = evaluate_edit(editor, pairs, SETTINGS, **options(editor, foundation))
    assert [row["method"] for row in rows] == ["truth", "editor", "editor", "sdedit"]
    clip = foundation.clip

    def image(picture):
        pixels = F.interpolate(in_range(picture)[None], (32, 32), mode="bicubic")
        return clip.embed_images(pixels)[0]

    def cosine(a, b):
        return float(F.cosine_similarity(a, b, dim=0))

    sampler = Sampler("euler_ancestral", 2)
    for setting, row in zip((None, *SETTINGS), rows, strict=True):
        found = {name: [] for name in ("sim_image", "sim_1", "sim_direction", "in", "out")}
        inside, copied = [], []
        for place in chosen(pairs, 3, 0):
            pair = pairs.pair(place)
            if setting is None:
                edited = pair.after
            elif setting.strength is None:
                edited = editor.edit(
                    pair.before, pair.triplet.edit, text_guidance=7.5, sampler=sampler,
                    image_guidance=setting.scale_img, seed=place, resolution=128,
                ).image  # fmt: skip
            else:
                drawn = sdedit(
                    foundation, in_range(pair.before)[None], [pair.triplet.output],
                    strength=0.5, sampler=sampler, noise=SampleNoise(0, [place]),
                )  # fmt: skip
                edited = ((drawn[0].permute(1, 2, 0) + 1) * 127.5).numpy()
            with torch.no_grad():
                pixels = torch.from_numpy(np.float32(edited)).permute(2, 0, 1) / 127.5 - 1
                squashed = F.interpolate(pixels[None], (32, 32), mode="bicubic")
                new, old = clip.embed_images(squashed)[0], image(pair.before)
                texts = clip.embed_text([pair.triplet.input, pair.triplet.output])
                after = in_range(pair.after)[None]
                copy = editor.vae.decode(editor.vae.encode(after).mode()).clamp(-1, 1)[0]
            found["sim_image"].append(cosine(new, old))
            found["sim_1"].append(cosine(new, texts[1]))
            found["sim_direction"].append(cosine(new - old, texts[1] - texts[0]))
            errors = [(p - after[0]).abs().mean(0) / 2 for p in (pixels, in_range(pair.before))]
            mask = torch.from_numpy(pair.mask)
            found["in"].append(float(errors[0][mask].mean()))
            found["out"].append(float(errors[0][~mask].mean()))
            inside.append(float(errors[1][mask].mean()))
            copied.append(float((copy - after[0]).abs().mean(0)[~mask].mean() / 2))
        for name in ("sim_image", "sim_1", "sim_direction"):
            assert row[name] == pytest.approx(np.mean(found[name]), abs=2e-3), (setting, name)
        ratios = [np.mean(found["in"]) / np.mean(inside), np.mean(found["out"]) / np.mean(copied)]
        got = [row[f"{name}_region_error_ratio"] for name in ("edited", "unedited")]
        assert got == pytest.approx(ratios, rel=1e-2, abs=1e-4)
    assert rows[0]["edited_region_error_ratio"] == 0
    kinds = {pairs.edit(place).kind for place in chosen(pairs, 3, 0)}
    assert {name.split("/")[0] for name in rows[1] if "/" in name} == kinds


def test_protocol_of_a_row(editor, foundation, pairs):
    names = {"model": "mine", "clip": "small", "data": "tabletop"}
    _, row = evaluate_edit(
        editor,
        pairs,
        [EditSetting(3.0, 1.5)],
        **options(editor, foundation, names=names, seed=4, samples=1),
    )
    wanted = {
        "method": "editor", "scale_txt": 3.0, "scale_img": 1.5, "strength": None, "steps": 2,
        "res": 128, "seed": 4, "split": "val", "num_samples": 1, "sampler": "euler_ancestral",
        "model": "mine", "clip": "small", "data": "tabletop",
    }  # fmt: skip
    assert wanted.items() <= row.items()
    assert row["seconds"] > 0


def test_an_interrupted_sweep_goes_on(editor, foundation, pairs, tmp_path, monkeypatch):
    path, score, asked = tmp_path / "edits.jsonl", module._Work.score, []

    def counted(self, setting, *rest):
        asked.append(setting)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return score(self, setting, *rest)

    monkeypatch.setattr(module._Work, "score", counted)
    settings, few = SETTINGS[:2], options(editor, foundation, **LEAST)
    with pytest.raises(KeyboardInterrupt):
        evaluate_edit(editor, pairs, settings, **few, out=path)
    assert [row["method"] for row in read_rows(path)] == ["truth", "editor"]
    rows = evaluate_edit(editor, pairs, settings, **few, out=path)
    assert asked == [None, *settings, settings[1]]
    assert rows == read_rows(path)
    again = evaluate_edit(editor, pairs, settings, **few, out=path)
    assert (again, len(asked)) == (rows, 4)
    # Other weights, another seed: other rows.
    other = Editor.from_foundation(tiny.foundation(2))
    evaluate_edit(other, pairs, settings[:1], **few, out=path)
    assert len(asked) == 6
    evaluate_edit(editor, pairs, settings[:1], **{**few, "seed": 1}, out=path)
    assert len(asked) == 8
    assert len(read_rows(path)) == 7


def test_official_tree_without_regions(editor, foundation, pairs, tmp_path):
    own = pairs.pair(0)
    write_entry(tmp_path, 0, own.triplet, [NewPair(s, own.before, own.after) for s in (1, 2)])
    write_seeds(tmp_path)
    data = EditDataset(tmp_path, "all")
    rows = evaluate_edit(
        editor, data, SETTINGS[:1], **options(editor, foundation, clip=None, **LEAST)
    )
    assert (rows[0]["split"], rows[0]["num_samples"]) == ("all", 1)
    assert not any(name.startswith("sim_") or "region" in name for name in rows[1])
    with pytest.raises(ValueError, match="take a CLIP; got none"):
        tradeoff_figure(rows)


def test_bad_requests(editor, foundation, pairs, tmp_path):
    with pytest.raises(ValueError, match="SDEdit needs a foundation"):
        evaluate_edit(editor, pairs, SETTINGS, **OPTIONS)
    with pytest.raises(ValueError, match="at least 1 each, got 0, 3 and 2"):
        evaluate_edit(editor, pairs, [], **OPTIONS)
    with pytest.raises(ValueError, match="an editor has scale_img, SDEdit a strength"):
        EditSetting(7.5, 1.5, 0.5)
    broken = tmp_path / "edits.jsonl"
    broken.write_text("[1, 2]\n")
    with pytest.raises(ValueError, match="expected rows of an evaluation of edits"):
        evaluate_edit(editor, pairs, SETTINGS[:1], **OPTIONS, out=broken)
    broken.write_text("{")
    with pytest.raises(ValueError, match="expected a JSON object a line"):
        read_rows(broken)


# SDEdit


def test_sdedit_of_full_strength_starts_from_nearly_nothing(foundation):
    """At strength 1 all steps are walked, from the picture under the most noise there is."""
    sampler, noise = Sampler("ddim", 4), SampleNoise(0)
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    captions = ["a red cube", "a ball"]
    got = sdedit(foundation, pictures, captions, strength=1.0, sampler=sampler, noise=noise)
    scale = foundation.config.scale_factor
    with torch.no_grad():
        latents = foundation.vae.encode(pictures).mode() * scale
        text, empty = (foundation.encode_text(t) for t in (captions, [""]))
        step = sampler.table[0]
        x = step.signal * latents + step.spread * noise(START, latents)
        for i, one in enumerate(sampler.table):
            taps_noise = [
                foundation.unet(x, int(one.timestep), c.expand(2, -1, -1), taps=NOISE).noise
                for c in (text, empty)
            ]
            output = taps_noise[1] + 7.5 * (taps_noise[0] - taps_noise[1])
            x, _ = sampler.step(i, x, output)
        want = foundation.vae.decode(x / scale).clamp(-1, 1)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)


def test_sdedit_does_its_share_of_the_steps(foundation, monkeypatch):
    told = []
    forward = type(foundation.unet).forward

    def watched(self, latents, timesteps, *rest, **options):
        told.append(timesteps)
        return forward(self, latents, timesteps, *rest, **options)

    monkeypatch.setattr(type(foundation.unet), "forward", watched)
    picture, sampler = torch.rand(1, 3, 64, 64) * 2 - 1, Sampler("ddim", 10)
    common = {"sampler": sampler, "noise": SampleNoise(0)}
    for strength, steps in ((0.01, 1), (0.3, 3), (1.0, 10)):
        told.clear()
        sdedit(foundation, picture, ["a ball"], strength=strength, **common)
        assert told == sampler.timesteps[-steps:]
    for strength in (0.0, 1.1):
        with pytest.raises(ValueError, match=r"strength must be in \(0, 1\]"):
            sdedit(foundation, picture, ["a ball"], strength=strength, **common)
    with pytest.raises(ValueError, match="expected 1 captions, got 2"):
        sdedit(foundation, picture, ["a", "b"], strength=0.5, **common)


# Figures


def rows_of_a_sweep():
    truth = {"method": "truth", "scale_txt": None, "sim_direction": 0.5, "sim_image": 0.9}
    rows = [
        {"method": "editor", "scale_txt": text, "sim_direction": 0.1 * i, "sim_image": 0.5 + text}
        for text in (3.0, 7.5)
        for i in range(3)
    ]
    other = {"method": "sdedit", "scale_txt": 7.5, "sim_direction": 0.2, "sim_image": 0.4}
    return [truth, *rows, other]


def test_tradeoff_has_a_line_for_each_text_guidance():
    axes = tradeoff_figure(rows_of_a_sweep()).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "true edited pictures", "editor, image guidances, text 3",
        "editor, image guidances, text 7.5", "SDEdit, strengths, text 7.5",
    ]  # fmt: skip
    assert axes.get_xlabel() == "CLIP direction similarity"
    np.testing.assert_allclose(axes.lines[1].get_xydata(), [[0, 3.5], [0.1, 3.5], [0.2, 3.5]])


def test_table_shows_what_there_is():
    row = {"strength": None, "scale_img": 1.5, "edited_region_error_ratio": 0.25}
    lines = edit_table([{**one, **row} for one in rows_of_a_sweep()]).splitlines()
    assert lines[0].split()[1::2] == [
        "method", "scale_txt", "scale_img", "strength", "sim_direction", "sim_image",
        "edited_region",
    ]  # fmt: skip
    assert "0.250" in lines[2]


def test_grid_of_guidances(editor, pairs):
    picture = pairs.pair(0).before
    results = [
        editor.edit(picture, "make it red", steps=1, text_guidance=t, image_guidance=i, seed=0)
        for t in (3.0, 7.5)
        for i in (1.0, 1.5)
    ]
    axes = guidance_grid(results).axes
    shown = [one.images[0].get_array() for one in axes]
    assert len(shown) == 6
    np.testing.assert_array_equal(shown[0], fitted(picture, 64, 32))
    for place, result in zip((1, 2, 4, 5), results, strict=True):
        np.testing.assert_array_equal(shown[place], result.image)
    with pytest.raises(ValueError, match="2 x 2 guidances needs each pair of them once, got 3"):
        guidance_grid(results[:3])
