"""Tabletop's edits: what the words say is what the pictures show."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import numpy as np
import pytest
from tiny import val_scenes

from vpd.data import EditDataset, check_edits, make_tabletop, tabletop
from vpd.data.tabletop.edit_layouts import TREES
from vpd.data.tabletop.phrases import head_attributes

COUNT = 24


@pytest.fixture(scope="module")
def data():
    return tabletop.edits(val_scenes(COUNT))


@pytest.fixture(scope="module")
def found(data):
    """(scene before, edit, pair) of every pair."""
    rows = []
    for i in range(len(data)):
        rows.append((tabletop.render(data.scene_seed(i)), data.edit(i), data.pair(i)))
    return rows


def split_instruction(text):
    """The words for the object, and what becomes of it."""
    for start in ("take away ", "remove "):
        if text.startswith(start):
            return text.removeprefix(start), ""
    words = text.split(" ", 1)[1]
    for link in (" with ", " into "):
        if link in words:
            return tuple(words.split(link + "a", 1))
    object_, _, change = words.rpartition(" ")
    return object_, change


def test_kinds_occur_alike(found):
    counts = Counter(edit.kind for _, edit, _ in found)
    assert len(found) >= COUNT - 2
    assert set(counts) == set(tabletop.EDIT_KINDS)


def test_instructions_pick_the_object_and_say_the_change(found):
    for scene, edit, pair in found:
        target, change = split_instruction(pair.triplet.edit)
        said = head_attributes(target)
        visible = [i for i, o in enumerate(scene.objects) if o.visible_px]
        fits = [
            i for i in visible if all(getattr(scene.objects[i], a) == v for a, v in said.items())
        ]
        assert fits == [edit.target]
        old, kept = scene.spec.objects, list(edit.after.spec.objects)
        if edit.kind == "remove":
            assert [o for i, o in enumerate(old) if i != edit.target] == kept
            continue
        new = kept.pop(edit.target)
        assert [o for i, o in enumerate(old) if i != edit.target] == kept  # nothing else changes
        before = old[edit.target]
        differ = {
            a
            for a in ("shape", "color", "material", "size")
            if getattr(new, a) != getattr(before, a)
        }
        assert differ == {
            "recolor": {"color"}, "resize": {"size"},
            "replace": {"shape", *(differ & {"color"})},
        }[edit.kind]  # fmt: skip
        if edit.kind == "replace":
            stated = head_attributes("the " + change.removeprefix("n").strip())
            assert set(stated) == differ
            assert all(getattr(new, a) == v for a, v in stated.items())
        else:
            assert change == getattr(new, differ.pop())
            assert (edit.kind == "resize") == (new.radius != before.radius)
        assert edit.after.objects[edit.target].visible_px >= 30


def test_captions_are_true_and_differ_where_the_edit_is(found):
    for scene, edit, pair in found:
        shown = {"input": scene.objects, "output": edit.after.objects}
        for field, objects in shown.items():
            for clause in getattr(pair.triplet, field).split(" and "):
                article, words = clause.split(" ", 1)
                assert article == ("an" if words[0] == "o" else "a")
                said = head_attributes("the " + words)
                assert any(
                    all(getattr(o, a) == v for a, v in said.items()) and o.visible_px >= 30
                    for o in objects
                )
        before, after = (c.split(" and ") for c in (pair.triplet.input, pair.triplet.output))
        if edit.kind == "remove":
            assert len(after) == len(before) - 1
        else:
            assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


def test_pictures_differ_at_the_object_and_hardly_elsewhere(found):
    inside, outside = [], []
    for scene, edit, pair in found:
        assert np.array_equal(pair.before, scene.image)
        assert np.array_equal(pair.after, tabletop.render(edit.after.spec).image)
        assert np.array_equal(pair.mask, edit.mask(scene.instance))
        assert pair.mask[scene.instance == edit.target + 1].all()
        error = np.abs(pair.before.astype(int) - pair.after).mean(-1)
        inside.append(error[pair.mask].mean())
        outside.append(error[~pair.mask].mean())
    assert min(inside) > 3
    assert np.mean(inside) > 30
    assert np.mean(outside) < 1  # shadows


def test_words_are_known(found):
    known = {*tabletop.WORDS, *tabletop.EDIT_WORDS}
    for _, _, pair in found:
        t = pair.triplet
        assert {*t.edit.split(), *t.input.split(), *t.output.split()} <= known


def test_world_is_frozen(data):
    """Models are trained on these pairs: they must not change."""
    texts = "".join(repr(data.triplet(i)) for i in range(8))
    assert hashlib.sha256(texts.encode()).hexdigest()[:16] == "3adb9a4e84a4b2de"
    pictures = b"".join(data.pair(i).after.tobytes() for i in range(8))
    assert hashlib.sha256(pictures).hexdigest()[:16] == "9bec56392a36af0c"


def test_a_part_of_a_split_has_the_same_pairs(data):
    part = tabletop.edits(val_scenes(4), per_scene=2)
    assert len(part) == 8
    assert [part.triplet(i) for i in (0, 2, 4, 6)] == [data.triplet(i) for i in range(4)]
    assert part.triplet(0) != part.triplet(1)
    with pytest.raises(ValueError, match="per_scene must be at least 1"):
        tabletop.edits(val_scenes(4), per_scene=0)


def test_scenes_without_an_edit():
    scene = tabletop.render(3_000_000)
    assert tabletop.edit_scene(scene, random.Random(0)) is not None
    alone = tabletop.render(
        type(scene.spec)(**{**vars(scene.spec), "objects": scene.spec.objects[:1]})
    )
    assert tabletop.edit_scene(alone, random.Random(0)) is None


def test_in_the_official_layout(tmp_path):
    how = {"layout": "ip2p", "workers": 1, "progress": False}
    report = make_tabletop(tmp_path, ["val"], {"val": 5}, **how)
    assert report.ok
    assert [(tree.name, tree.entries) for tree in report.trees] == [("val", 5)]
    exact = tabletop.edits(val_scenes(5))
    read = EditDataset(tmp_path / TREES / "val", "all")
    for i in range(5):
        got, want = read.pair(i), exact.pair(i)
        assert got.triplet == want.triplet
        assert got.id == f"{i:07d}/{exact.scene_seed(i)}"
        for name in ("before", "after"):
            error = np.abs(getattr(got, name).astype(int) - getattr(want, name))
            assert error.max() <= 6
            assert error.mean() < 0.7
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jpg")}
    make_tabletop(tmp_path, ["val"], {"val": 7}, **how)
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())
    assert check_edits(tmp_path).trees[0].entries == 7
