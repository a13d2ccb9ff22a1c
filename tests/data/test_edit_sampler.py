"""Pairs drawn with Prompt-to-Prompt, and data sets of them."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from vpd.data import EditThresholds, PairRanges, PromptToPromptSampler, Triplet, make_edits
from vpd.data.edit_generation import PairSettings, pair_settings
from vpd.diffusion import AttentionEdit, Sampler, prompt_to_prompt

TRIPLETS = [Triplet(f"a {c} cube", "make it blue", "a blue cube") for c in ("red", "green", "gray")]


@pytest.fixture(scope="module")
def model():
    return tiny.foundation(clip=True)


@pytest.fixture(scope="module")
def draw(model):
    return PromptToPromptSampler(model, sampler=Sampler("euler_ancestral", 2))


def files(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_pairs_are_prompt_to_prompts(model, draw):
    settings = [PairSettings(5, 0.4, 9.0), PairSettings(6, 0.9, 7.5)]
    made = draw(TRIPLETS[0], settings)
    assert [pair.seed for pair in made] == [5, 6]
    both = prompt_to_prompt(
        model, (TRIPLETS[0].input, TRIPLETS[0].output), AttentionEdit("self", 0.4), seed=5,
        guidance=9.0, sampler=Sampler("euler_ancestral", 2),
    )  # fmt: skip
    for image, got in zip(both, (made[0].before, made[0].after), strict=True):
        want = (image / 2 + 0.5).permute(1, 2, 0).numpy() * 255
        assert got.dtype == np.uint8
        assert np.abs(got - want).max() <= 0.51
    default = PromptToPromptSampler(model)
    assert (default.edit.mode, default.sampler.method) == ("self", "euler_ancestral")
    assert len(default.sampler) == 100


def test_a_pair_does_not_depend_on_its_batch(draw):
    settings = pair_settings(0, 8)
    together = draw(TRIPLETS[0], settings)
    for one, pair in zip(settings[::3], together[::3], strict=True):
        (alone,) = draw(TRIPLETS[0], [one])
        for a, b in ((alone.before, pair.before), (alone.after, pair.after)):
            assert np.abs(a.astype(int) - b).max() <= 1  # 1e-5, rounded to a byte


def test_an_interrupted_data_set_is_finished(tmp_path, model, draw):
    how = {
        "clip": model.clip,
        "samples": 3,
        "batch": 2,
        "progress": False,
        "thresholds": EditThresholds(0, 0, 0, keep=2),
        "ranges": PairRanges(guidance=(2, 3)),
    }
    assert make_edits(tmp_path / "whole", TRIPLETS, draw, **how) == 3
    calls = []

    def killed(triplet, settings):
        calls.append([(s.p2p_threshold, s.cfg_scale) for s in settings])
        if len(calls) == 4:  # within the second triplet
            raise KeyboardInterrupt
        return draw(triplet, settings)

    with pytest.raises(KeyboardInterrupt):
        make_edits(tmp_path / "again", TRIPLETS, killed, **how)
    assert not (tmp_path / "again/seeds.json").exists()
    make_edits(tmp_path / "again", TRIPLETS, killed, **how)
    assert files(tmp_path / "again") == files(tmp_path / "whole")
    assert all(0.1 <= p <= 0.9 and 2 <= w <= 3 for call in calls for p, w in call)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share": (0.5, 0.1)}, "least and greatest, got 0.5 and 0.1"),
        ({"share": (0.0, 1.1)}, r"within 0..1, got \(0.0, 1.1\)"),
        ({"guidance": (float("nan"), 1.0)}, "least and greatest, got nan"),
    ],
)
def test_bad_ranges(fields, message):
    with pytest.raises(ValueError, match=message):
        PairRanges(**fields)
