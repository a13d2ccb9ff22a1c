"""Prompt-to-Prompt: token maps and controls worked out by hand, whole pairs of pictures."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from tiny import foundation

import vpd
from vpd.diffusion import (
    AttentionEdit,
    GuidedRows,
    LocalBlend,
    PromptToPrompt,
    SampleNoise,
    Sampler,
    draw_pairs,
    prompt_to_prompt,
    token_map,
    word_columns,
)


def entries(transfer):
    return {(i, j): transfer[i, j].item() for i, j in transfer.nonzero().tolist()}


@pytest.mark.parametrize(
    ("before", "after", "kind", "pairs", "taken"),
    [
        (  # start a cat here end, start a giraff es here end
            "a cat here", "a giraffes here", "replace",
            {(0, 0): 1, (1, 1): 1, (2, 2): 0.5, (2, 3): 0.5, (3, 4): 1, (4, 5): 1, (6, 6): 1,
             (7, 7): 1},
            [1, 1, 1, 1, 1, 1, 1, 1],
        ),
        (  # two tokens to one; column 5 is padding only in the second
            "a giraffes here", "A cat HERE", "replace",
            {(0, 0): 1, (1, 1): 1, (2, 2): 1, (3, 2): 1, (4, 3): 1, (5, 4): 1, (6, 6): 1,
             (7, 7): 1},
            [1, 1, 1, 1, 1, 0, 1, 1],
        ),
        (
            "a cube", "a large red cube", "refine",
            {(0, 0): 1, (1, 1): 1, (2, 4): 1, (3, 5): 1, (6, 6): 1, (7, 7): 1},
            [1, 1, 0, 0, 1, 1, 1, 1],
        ),
        (
            "a large red cube", "a cube", "refine",
            {(0, 0): 1, (1, 1): 1, (4, 2): 1, (5, 3): 1, (6, 6): 1, (7, 7): 1},
            [1, 1, 1, 1, 0, 0, 1, 1],
        ),
        (  # a word that moved: one of the two is kept
            "red blue", "blue red ball", "refine",
            {(0, 0): 1, (2, 1): 1, (3, 4): 1, (5, 5): 1, (6, 6): 1, (7, 7): 1},
            [1, 1, 0, 0, 1, 1, 1, 1],
        ),
    ],
)  # fmt: skip
def test_token_maps(before, after, kind, pairs, taken):
    found = token_map(before, after, 8)
    assert found.kind == kind
    assert entries(found.transfer) == pairs
    assert found.taken.tolist() == taken
    if kind == "replace":
        assert token_map(before, after, 8, "refine").kind == "refine"
    else:
        with pytest.raises(ValueError, match="replace needs captions of equally many words"):
            token_map(before, after, 8, "replace")


def test_captions_that_do_not_fit_are_mapped_as_far_as_they_go():
    found = token_map("a red cube and a ball", "a blue cube and a ball", 5)
    assert entries(found.transfer) == {(i, i): 1 for i in range(5)}


def test_columns_of_words():
    assert word_columns("A red ball and a Blue giraffes", ["a", "BLUE", "giraffes"], 12) == {
        "a": [1, 5], "BLUE": [6], "giraffes": [7, 8],
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"a word of 'a ball' \(a, ball\), got 'red'"):
        word_columns("a ball", ["red"])


PAIR = ("a cube", "a red cube")  # start a red cube end: column 2 is new


def controls(edit, steps, rows, pairs=(PAIR,), **how):
    sampler = Sampler("ddim", steps)
    control = PromptToPrompt(pairs, sampler, edit, length=6, **how)
    return [control(t, rows) for t in sampler.timesteps]


def test_self_attention_is_shared_in_both_halves_for_a_share_of_the_steps():
    found = controls(AttentionEdit("self", 0.5), 5, GuidedRows(2, 2, True))  # 0.5 > i / 4
    assert [one and one.self_source.tolist() for one in found] == [
        [0, 0, 2, 2], [0, 0, 2, 2], None, None, None,
    ]  # fmt: skip
    assert found[0].self_positions is None
    assert found[0].kept is None
    several = controls(
        AttentionEdit("self"), 3, GuidedRows(6, 1, False), [PAIR] * 3, shares=[0.0, 1.0, 0.6]
    )
    assert [one and one.self_source.tolist() for one in several] == [
        [0, 1, 2, 2, 4, 4], [0, 1, 2, 2, 4, 4], None,
    ]  # fmt: skip
    assert controls(AttentionEdit("self", 1e-9), 1, GuidedRows(2, 2, True))[0] is not None


def test_cross_attention_is_shared_where_the_text_is_told():
    edit = AttentionEdit("cross", 0.5, factors={"red": 3.0, "cube": 0.5},
                         windows={"red": (0.2, 0.9)})  # fmt: skip
    found = controls(edit, 4, GuidedRows(2, 2, True))  # steps 0, 1; of red 1, 2, 3
    kept = [
        [0, 0, 1, 0, 0, 0],  # red is new and not yet weighted
        [0, 0, 3, 0, 0, 0],
        [1, 1, 3, 1, 1, 1],
        [1, 1, 3, 1, 1, 1],
    ]
    given = {(0, 0): 1, (1, 1): 1, (2, 3): 0.5, (3, 4): 1, (5, 5): 1}
    for step, one in enumerate(found):
        assert one.self_source is None
        assert (one.rows.tolist(), one.sources.tolist()) == ([1], [0])
        assert one.kept[1].tolist() == kept[step]
        assert one.kept[[0, 2, 3]].eq(1).all()
        assert entries(one.transfer[0]) == (given if step < 2 else {})
    assert all(one is None for one in controls(edit, 4, GuidedRows(2, 1, False)))


def test_cross_attention_of_several_pairs_with_early_self_attention():
    edit = AttentionEdit("cross", self_share=0.5, self_positions=64)
    rows = GuidedRows(4, 2, True)
    found = controls(edit, 4, rows, [PAIR, ("a cube", "a ball")], shares=[0.0, 0.4])
    assert [one and one.self_source is not None for one in found] == [True, True, None, None]
    assert found[0].self_source.tolist() == [0, 0, 2, 2, 4, 5, 6, 7]
    assert [one.self_positions for one in found[:2]] == [64, 64]
    assert found[1].rows.tolist() == [3]
    assert found[1].sources.tolist() == [2]
    assert found[1].kept[3].eq(0).all()
    assert found[1].kept[1].eq(1).all()
    plain = controls(AttentionEdit("cross", 0.0, self_share=0.5), 4, GuidedRows(2, 1, True))
    assert plain[0].kept is None
    assert plain[0].self_positions == 256


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttentionEdit("both"), "must be 'cross' or 'self', got 'both'"),
        (lambda: AttentionEdit(share=1.5), r"lie in 0..1, got 1.5"),
        (lambda: AttentionEdit(windows={"red": (0.5, 2)}), r"lie in 0..1, got 2"),
        (lambda: AttentionEdit("self", factors={"red": 2}), "belong to mode 'cross'"),
        (lambda: controls(AttentionEdit(factors={"ball": 2}), 2, None), "got 'ball'"),
        (lambda: controls(None, 2, None, shares=[0.1, 0.2]), "share for each of 1 pairs, got 2"),
        (lambda: controls(None, 2, GuidedRows(3, 1, True)), "expected 2 samples, .* got 3"),
        (lambda: PromptToPrompt([PAIR], Sampler(steps=4))(3.5, GuidedRows(2, 1, True)), "3.5"),
        (lambda: LocalBlend([PAIR], []), "words of each of 1 pairs, got 0"),
        (lambda: LocalBlend([PAIR], [("cube", ["red"])]), "list of words of 'a cube', got 'cube'"),
        (lambda: LocalBlend([PAIR], [(["cube"], [])]), r"list of words of 'a red cube', got \[\]"),
        (lambda: LocalBlend([PAIR], [(["cube"], ["red"])]).mask((4, 4)), "no step was seen"),
        (lambda: prompt_to_prompt(None, "a cube"), "expected two captions, got 'a cube'"),
        (lambda: draw_pairs(None, [PAIR], seeds=[1, 2]), "each of 1 pairs, got 2 and 1"),
    ],
)
def test_bad_input_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_local_blend():
    """Peaks at two corners of 4 x 4 maps; the widened corners are a quarter each of 8 x 8."""
    blend = LocalBlend([PAIR], [(["cube"], ["red", "cube"])], length=6)
    assert blend.taps.attention == (4,)
    first, second = torch.zeros(2, 6, 4, 4), torch.zeros(2, 6, 4, 4)
    first[0, 2, 0, 0] = 0.2  # cube, before
    second[0, 2, 0, 0] = 0.2
    second[0, 2, 0, 3] = 0.1  # 0.1 / 0.4 does not reach the threshold
    first[1, 2, 3, 3] = 0.3  # red and cube, after
    second[1, 3, 3, 0] = 0.2
    second[:, 1] = 9.0  # no edited word
    for maps in (first, second):
        blend(500.0, {4: maps})
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4, :4] = mask[4:, 4:] = mask[4:, :4] = True
    assert torch.equal(blend.mask((8, 8)), mask[None, None])
    samples = torch.randn(2, 4, 8, 8)
    mixed = blend.composite(samples)
    assert torch.equal(mixed[0], samples[0])
    assert torch.equal(mixed[1], torch.where(mask, samples[1], samples[0]))
    shown = []
    watch = blend.then(lambda index, x, clean: shown.append(x))
    assert torch.equal(watch(0, samples, samples), mixed)
    assert torch.equal(shown[0], mixed)
    assert blend.then(lambda index, x, clean: clean)(0, samples, first) is first


@pytest.fixture(scope="module")
def model():
    """A tiny foundation whose text and attention matter."""
    net = foundation(seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in net.unet.named_parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1, generator=generator)
            if "to_q" in name or "to_k" in name:
                parameter.mul_(4)
    return net


def steps(method, count=3):
    return Sampler(method, count)


@pytest.mark.parametrize("mode", ["self", "cross"])
def test_the_first_picture_is_its_captions_own_and_the_second_with_no_share(model, mode):
    sampler, texts = steps("euler_ancestral"), ["a large cube", "a small red ball"]
    own = [
        model.sample([text], guidance=3.0, sampler=sampler, noise=SampleNoise(0, [7]))
        for text in texts
    ]
    how = {"seed": 7, "guidance": 3.0, "sampler": sampler}
    none = prompt_to_prompt(model, texts, AttentionEdit(mode, 0.0), **how)
    assert (none - torch.cat(own)).abs().max() < 1e-5
    shared = prompt_to_prompt(model, texts, AttentionEdit(mode, 0.9), **how)
    assert (shared[:1] - own[0]).abs().max() < 1e-5
    assert (shared[1:] - own[1]).abs().max() > 1e-2
    same = prompt_to_prompt(model, [texts[0]] * 2, AttentionEdit(mode, 0.9), **how)
    assert (same[1] - same[0]).abs().max() < 1e-5


@pytest.mark.parametrize(("method", "mode"), [("ddim", "self"), ("dpm++", "cross"),
                                              ("euler_ancestral", "self")])  # fmt: skip
def test_a_pair_does_not_depend_on_its_batch(model, method, mode):
    pairs = [("a cube", "a red cube"), ("a ball", "a cone"), ("a cube", "a ball"), PAIR]
    seeds, shares, guidance = [3, 4, 3, 5], [0.2, 0.9, 0.5, 0.0], [7.5, 1.0, 3.0, 5.0]
    edit = AttentionEdit(mode, **({"self_share": 0.5} if mode == "cross" else {}))
    how = {"edit": edit, "sampler": steps(method)}
    together = draw_pairs(model, pairs, seeds=seeds, shares=shares, guidance=guidance, **how)
    assert together.shape == (8, 3, 64, 64)
    for k, pair in enumerate(pairs):
        alone = draw_pairs(
            model, [pair], seeds=seeds[k : k + 1], shares=shares[k : k + 1], guidance=guidance[k],
            **how,
        )  # fmt: skip
        assert (alone - together[2 * k : 2 * k + 2]).abs().max() < 1e-5


def test_pictures_of_the_shipped_model_do_not_depend_on_their_batch():
    net = vpd.load("vpd-mini")
    texts = [f"a {size} {color} cube" for size in ("large", "small")
             for color in ("red", "blue", "green", "yellow")]  # fmt: skip
    how = {"sampler": steps("ddim", 2), "guidance": 3.0}
    together = net.sample(texts, noise=SampleNoise(2), **how)
    alone = net.sample(texts[5:6], noise=SampleNoise(2, [5]), **how)
    assert (alone - together[5:6]).abs().max() < 1e-5


def test_a_blended_pair_is_the_first_outside_of_the_mask(model):
    texts = ("a large cube", "a large ball")
    blend = LocalBlend([texts], [(["cube"], ["ball"])], length=16, stride=2, threshold=0.9)
    latents = []
    both = prompt_to_prompt(
        model, texts, AttentionEdit("cross", 0.5), blend=blend, sampler=steps("ddim"),
        on_step=lambda index, x, clean: latents.append(x),
    )  # fmt: skip
    mask = blend.mask((16, 16))[0].expand(4, -1, -1)
    assert mask.any()
    assert not mask.all()
    before, after = latents[-1]
    assert torch.equal(before[~mask], after[~mask])
    assert not torch.equal(before[mask], after[mask])
    want = model.vae.decode(latents[-1] / model.config.scale_factor).clamp(-1, 1)
    assert_close(both, want.detach())
