"""Sentences are checked by a second parser that shares nothing with the grammar but the objects."""

import random
import re

import numpy as np
import pytest

from vpd.data import tabletop

SYNONYM = {"sphere": "ball", "block": "cube", "torus": "ring"}
VALUE = {
    "red green blue yellow purple cyan orange white": "color",
    "matte shiny striped": "material",
    "small large": "size",
    "ball cube cylinder cone pyramid ring": "shape",
}
EXTREME = ["leftmost", "rightmost", "closest", "farthest"]
SIDE = {"on the left": 0, "on the right": 1, "at the front": 2, "at the back": 3}
CLAUSE = re.compile(
    r"^(?:(?:the (?P<extreme>leftmost|rightmost|closest|farthest) )|the |an? )(?P<head>[a-z ]+?)"
    r"(?: (?P<side>on the left|on the right|at the front|at the back|in the middle)"
    r"| (?P<relation>left of|right of|in front of|behind) (?:the|an?) (?P<landmark>[a-z ]+)"
    r"| is (?P<said>\w+))?$"
)


@pytest.fixture(scope="module")
def scenes():
    return [tabletop.render(seed) for seed in range(3_000_000, 3_000_400)]


@pytest.fixture(scope="module")
def spoken(scenes):
    """The same sentences that the validation split has."""
    return [tabletop.expressions(s, random.Random(7 * s.spec.seed + 11), 1) for s in scenes]


def described(phrase, objects):
    """The objects a phrase like "small red block" fits."""
    *words, noun = phrase.split()
    fitting = list(objects)
    for word in words if noun in ("object", "thing") else [*words, SYNONYM.get(noun, noun)]:
        (attribute,) = [a for values, a in VALUE.items() if word in values.split()]
        fitting = [o for o in fitting if getattr(o.spec, attribute) == word]
    return fitting


def key(which, o):
    """Smaller is more leftmost / rightmost / closest / farthest."""
    return (o.u, -o.u, o.z, -o.z)[which]


def clearly(relation, a, b, margin_scale=1.0):
    right, back = a.u - b.u, a.z - b.z
    return {
        "left of": right < -0.16 * margin_scale,
        "right of": right > 0.16 * margin_scale,
        "in front of": back < -0.22 * margin_scale,
        "behind": back > 0.22 * margin_scale,
    }[relation]


def meant(text, objects):
    """Kind and objects that a sentence clearly means, plus those it might mean."""
    m = CLAUSE.match(text)
    assert m, text
    group = described(m["head"], objects)
    if m["relation"]:
        (landmark,) = described(m["landmark"], objects)
        rest = [o for o in group if o is not landmark]
        sure = [o for o in rest if clearly(m["relation"], o, landmark)]
        opposite = {"left of": "right of", "in front of": "behind"}
        opposite |= {v: k for k, v in opposite.items()}
        doubtful = [o for o in rest if not clearly(opposite[m["relation"]], o, landmark)]
        return "relation", group, sure, doubtful
    if m["extreme"] or m["side"]:
        which = EXTREME.index(m["extreme"]) if m["extreme"] else SIDE[m["side"]]
        margin = 0.10 if which < 2 else 0.13
        best = min(group, key=lambda o: key(which, o))
        close = [o for o in group if key(which, o) - key(which, best) <= margin]
        return "place", group, [best], close
    return "attribute", group, group, group


def test_every_sentence_means_exactly_one_object(scenes, spoken):
    checked = 0
    for s, sentences in zip(scenes, spoken, strict=True):
        visible = [o for o in s.objects if o.visible_px > 0]
        for e in sentences:
            target = s.objects[e.target]
            kind, group, sure, doubtful = meant(e.text, visible)
            assert kind == e.kind, e.text
            assert sure == [target], e.text
            assert doubtful == [target], e.text
            assert target.visible_px >= 60
            noticed = [o for o in visible if o.visible_px >= 15 and o is not target]
            assert any(o.shape == target.shape or o.color == target.color for o in noticed)
            if kind != "attribute":
                assert len(group) >= 2, e.text
            checked += 1
    assert checked > 1000


def test_counts_and_lengths_of_the_validation_sentences(spoken):
    kinds = [e.kind for sentences in spoken for e in sentences]
    assert len(kinds) == pytest.approx(1146, abs=20)
    assert kinds.count("attribute") >= 390
    assert kinds.count("place") >= 392
    assert kinds.count("relation") == pytest.approx(348, abs=20)
    lengths = [len(e.text.split()) for sentences in spoken for e in sentences]
    assert np.mean(lengths) == pytest.approx(5.5, abs=0.3)
    assert max(lengths) <= 13


def test_several_per_kind_are_different(scenes):
    for s in scenes[:50]:
        texts = [e.text for e in tabletop.expressions(s, random.Random(1), 3)]
        assert len(set(texts)) == len(texts)


def test_floors(scenes, spoken):
    floors = tabletop.floors(scenes, spoken)
    assert floors["random"] == pytest.approx(0.166, abs=0.012)
    assert floors["head/attribute"] == 1.0
    assert floors["head/place"] == pytest.approx(0.44, abs=0.02)
    assert floors["head/relation"] == pytest.approx(0.46, abs=0.02)
    assert floors["head/mean_of_kinds"] == pytest.approx(0.63, abs=0.015)
    with pytest.raises(ValueError, match="at least one sentence"):
        tabletop.floors([], [])


def test_head_attributes():
    said = tabletop.head_attributes("the closest small shiny torus")
    assert said == {"size": "small", "material": "shiny", "shape": "ring"}
    assert tabletop.head_attributes("the red thing behind the blue cube") == {"color": "red"}
    with pytest.raises(ValueError, match="Tabletop referring sentence, got 'a man'"):
        tabletop.head_attributes("a man")


def test_captions_are_true(scenes):
    rng = random.Random(5)
    clause_counts = []
    for s in scenes:
        visible = [o for o in s.objects if o.visible_px >= 30]
        caption = tabletop.caption(s, rng)
        clauses = caption.split(" and ")
        clause_counts.append(len(clauses))
        for clause in clauses:
            m = CLAUSE.match(clause)
            assert m, clause
            group = described(m["head"], visible)
            assert group, clause
            if m["said"]:
                which = EXTREME.index(m["extreme"])
                best = min(group, key=lambda o: key(which, o))
                assert best in described(f"{m['said']} thing", group), clause
                assert len(group) >= 2, clause
            if m["relation"]:
                others = described(m["landmark"], visible)
                assert any(
                    clearly(m["relation"], a, b) for a in group for b in others if a is not b
                )
            if m["side"]:
                assert any(_is_at(m["side"], o) for o in group), clause
    shares = np.bincount(clause_counts, minlength=6) / len(scenes)
    assert 0.12 < shares[1] < 0.32
    assert shares[3:].sum() > 0.5
    assert len(clause_counts) == len(scenes)
    assert max(clause_counts) <= 5


def _is_at(side, o):
    return {
        "on the left": o.u < -0.25,
        "on the right": o.u > 0.25,
        "at the front": o.z < 3.5,
        "at the back": o.z > 4.1,
        "in the middle": abs(o.u) <= 0.3 or 3.4 < o.z < 4.2,
    }[side]


def test_articles(scenes):
    rng = random.Random(0)
    text = " ".join(tabletop.caption(s, rng) for s in scenes)
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text)


def test_every_word_occurs_and_no_other(scenes, spoken):
    rng = random.Random(2)
    words = {w for sentences in spoken for e in sentences for w in e.text.split()}
    for s in scenes:
        words |= set(tabletop.caption(s, rng).split())
    assert words == set(tabletop.WORDS)


def test_sentences_fit_the_token_lengths(scenes, spoken):
    """24 tokens for a sentence, 64 for a caption of five clauses, begin and end included."""
    clip = pytest.importorskip("instant_clip_tokenizer").Tokenizer()
    rng = random.Random(4)
    sentences = [e.text for group in spoken for e in group]
    assert max(len(clip.encode(text)) for text in sentences) + 2 <= 24
    assert max(len(clip.encode(tabletop.caption(s, rng))) for s in scenes) + 2 <= 64


def test_tags(scenes):
    for s in scenes[:50]:
        tags = tabletop.tags(s)
        visible = [o for o in s.objects if o.visible_px >= tabletop.VISIBLE_PX]
        said = {f"{o.color} {o.shape}" for o in visible}
        said |= {word for o in visible for word in (o.shape, o.color, o.material, o.size)}
        assert set(tags) == said
        assert tags == sorted(tags, key=tabletop.TAGS.index)


def test_captions_draw_several_and_refuse_nonsense(scenes):
    several = tabletop.captions(scenes[0], random.Random(0), max_clauses=2, count=4)
    assert len(several) == 4
    assert all(text.count(" and ") <= 1 for text in several)
    with pytest.raises(ValueError, match="max_clauses must be at least 1, got 0"):
        tabletop.caption(scenes[0], random.Random(0), max_clauses=0)
