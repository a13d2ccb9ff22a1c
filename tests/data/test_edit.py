"""Folders of edited pairs: written, read, augmented, checked, made from triplets."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
import trees
from PIL import Image
from tiny import CLIP as SMALL

from vpd.data import EditAugmentation, EditDataset, EditPair, EditThresholds, Triplet, check_edits
from vpd.data.augment import sample_generator
from vpd.data.edit_files import (
    Entry,
    NewPair,
    is_finished,
    read_prompt,
    read_seeds,
    write_entry,
    write_seeds,
)
from vpd.data.edit_generation import make_edits, pair_settings
from vpd.metrics import EditScores, edit_scores
from vpd.models.clip import CLIP

CUBE = Triplet("a red cube", "make it blue", "a blue cube", "http://x")


def new(seed, size=(12, 16), **details):
    return NewPair(
        seed, trees.picture(seed % 50, size), trees.picture(seed % 50 + 9, size), details
    )


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_written_as_the_original(tmp_path):
    (tmp_path / "0000003").mkdir()
    (tmp_path / "0000003" / "99_0.jpg").write_bytes(b"left by a killed run")
    assert not is_finished(tmp_path, 3)
    write_entry(tmp_path, 3, CUBE, [new(20, p2p_threshold=0.5), new(7)])
    write_entry(tmp_path, 1, CUBE, [])
    write_entry(tmp_path, 0, CUBE, [new(4)])
    (tmp_path / "0000002").mkdir()  # not finished: no prompt
    (tmp_path / "0000002" / "1_0.jpg").write_bytes(b"")
    (tmp_path / "0000002" / "1_1.jpg").write_bytes(b"")
    assert all(is_finished(tmp_path, i) for i in (0, 1, 3))
    found = write_seeds(tmp_path)
    assert (
        found == [Entry("0000000", ("4",)), Entry("0000003", ("20", "7"))] == read_seeds(tmp_path)
    )
    assert json.loads((tmp_path / "seeds.json").read_text()) == [
        ["0000000", ["4"]],
        ["0000003", ["20", "7"]],
    ]
    folder = tmp_path / "0000003"
    assert sorted(p.name for p in folder.iterdir()) == [
        "20_0.jpg", "20_1.jpg", "7_0.jpg", "7_1.jpg", "metadata.jsonl", "prompt.json"
    ]  # fmt: skip
    prompt = json.loads((folder / "prompt.json").read_text())
    assert prompt == {"caption": "a red cube", "edit": CUBE.edit, "output": CUBE.output,
                      "url": "http://x"}  # fmt: skip
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert rows == [{"seed": 20, "p2p_threshold": 0.5}, {"seed": 7}]
    with Image.open(folder / "7_0.jpg") as image:
        assert {v for table in image.quantization.values() for v in table} == {1}  # quality 100
    pair = EditDataset(tmp_path, "all").pair(1)
    assert pair.id == "0000003/20"
    assert np.abs(pair.before.astype(int) - new(20).before).max() <= 3
    assert np.abs(pair.after.astype(int) - new(20).after).max() <= 3
    with pytest.raises(ValueError, match="got 5 twice"):
        write_entry(tmp_path, 4, CUBE, [new(5), new(5)])
    assert not is_finished(tmp_path, 4)
    with pytest.raises(ValueError, match="of one size, got"):
        NewPair(1, new(1).before, new(1, (3, 3)).after)


@pytest.mark.parametrize("key", ["input", "caption"])
def test_prompts_of_both_writers(tmp_path, key):
    folder = tmp_path / "0000000"
    folder.mkdir()
    (folder / "prompt.json").write_text(json.dumps({key: "a", "edit": "b", "output": "c"}))
    assert read_prompt(tmp_path, "0000000") == Triplet("a", "b", "c")
    (folder / "prompt.json").write_text('{"edit": "b", "output": "c"}')
    with pytest.raises(ValueError, match=r"prompt\.json: expected texts input \(or caption\)"):
        read_prompt(tmp_path, "0000000")


@pytest.mark.parametrize("count", [1, 10, 19, 20, 37, 100, 1001])
def test_splits_are_shares_in_order(tmp_path, count):
    rows = [[f"{i:07d}", ["1"]] for i in range(count)]
    (tmp_path / "seeds.json").write_text(json.dumps(rows))
    data = {name: EditDataset(tmp_path, name) for name in ("train", "val", "test", "all")}
    assert len(data["train"]) == count * 9 // 10
    assert len(data["train"]) + len(data["val"]) == count * 95 // 100
    parts = [entry for name in ("train", "val", "test") for entry in data[name].entries]
    assert parts == data["all"].entries
    with pytest.raises(ValueError, match="split must be one of"):
        EditDataset(tmp_path, "dev")


@pytest.mark.parametrize(
    "text",
    ["{", "[[1]]", '[["0000000", []]]', '[["../a", ["1"]]]', '[["a", ["../1"]]]', '{"a": 1}'],
)
def test_damaged_seeds(tmp_path, text):
    with pytest.raises(FileNotFoundError, match="list of edited pairs"):
        read_seeds(tmp_path)
    (tmp_path / "seeds.json").write_text(text)
    with pytest.raises(ValueError, match=r"seeds\.json: expected"):
        read_seeds(tmp_path)


def test_a_pair_of_an_entry_is_drawn(tmp_path):
    write_entry(tmp_path, 0, CUBE, [new(seed) for seed in (1, 2, 3)])
    write_seeds(tmp_path)
    data = EditDataset(tmp_path, "all")
    drawn = [data.pair(0, sample_generator(0, step, 0)).id for step in range(60)]
    assert drawn == [data.pair(0, sample_generator(0, step, 0)).id for step in range(60)]
    counts = Counter(drawn)
    assert set(counts) == {"0000000/1", "0000000/2", "0000000/3"}
    assert min(counts.values()) > 8


def reference(image, side, top, left, crop, turned):
    """Pillow's resize, then torch."""
    small = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
    x = torch.tensor(np.asarray(small)).permute(2, 0, 1).float() * 2 / 255 - 1
    x = x[:, top : top + crop, left : left + crop]
    return x.flip(2) if turned else x


def test_both_pictures_are_augmented_alike():
    random = np.random.default_rng(0)
    before, after = random.integers(0, 256, (2, 30, 44, 3)).astype(np.uint8)
    pair = EditPair("x", CUBE, before, after)
    augment = EditAugmentation(sizes=(20, 24), crop=18)
    found = set()
    for step in range(40):
        got = augment(pair, sample_generator(0, step, 3))
        again = augment(pair, sample_generator(0, step, 3))
        assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
        options = [
            (side, top, left, 18, turned)
            for side in range(20, 25)
            for top in range(side - 17)
            for left in range(side - 17)
            for turned in (False, True)
        ] if step < 3 else []  # fmt: skip
        hits = [o for o in options if torch.allclose(got[0], reference(before, *o), atol=1e-6)]
        if options:
            (hit,) = hits
            assert torch.allclose(got[1], reference(after, *hit), atol=1e-6)
        found.add(got[0].numpy().tobytes())
    assert len(found) > 30
    plain = EditAugmentation(sizes=(30, 30), crop=30, flip=0)
    square = EditPair("y", CUBE, before[:, :30], after[:, :30])
    one = plain(square, sample_generator(0, 0, 0))[0]
    assert torch.equal(one, torch.tensor(before[:, :30]).permute(2, 0, 1) / 127.5 - 1)
    for wrong in ({"sizes": (20, 24), "crop": 21}, {"sizes": (24, 20), "crop": 9}, {"flip": 2}):
        with pytest.raises(ValueError, match=r"expected 1 <= crop|flip must be"):
            EditAugmentation(**wrong)


def test_check_names_what_is_missing_or_damaged(tmp_path):
    outer, tmp_path = tmp_path, tmp_path / "tree"
    with pytest.raises(FileNotFoundError, match="expected edited pairs here"):
        check_edits(tmp_path)
    for index in range(20):
        write_entry(tmp_path, index, CUBE, [new(index), new(index + 50)])
    write_seeds(tmp_path)
    report = check_edits(tmp_path)
    assert report.ok
    assert not report.recognised
    (tree,) = report.trees
    assert (tree.entries, tree.pairs, tree.read) == (20, 40, 16)
    assert tree.splits == {"train": 18, "val": 1, "test": 1}
    (tmp_path / "0000002" / "52_1.jpg").unlink()
    (tmp_path / "0000004" / "prompt.json").unlink()
    (tmp_path / "0000005" / "5_0.jpg").write_bytes(b"none")
    trees.write(tmp_path / "0000006" / "6_1.jpg", trees.picture(0, (5, 5)))
    report = check_edits(tmp_path, sample=None)
    (tree,) = report.trees
    assert not report.ok
    assert tree.missing == ("0000002/52_1.jpg", "0000004/prompt.json")
    assert len(tree.problems) == 2
    assert "expected a picture" in tree.problems[0]
    assert "expected the size of 6_0.jpg" in tree.problems[1]
    assert "missing (2): 0000002/52_1.jpg; 0000004/prompt.json" in report.table()
    assert [tree.name for tree in check_edits(outer).trees] == ["tree"]


def scores(*rows):
    return EditScores(*torch.tensor(rows).T)


def test_thresholds():
    #            before after direction image
    every = [
        (0.3, 0.3, 0.30, 0.8),
        (0.3, 0.3, 0.50, 0.8),
        (0.1, 0.3, 0.90, 0.8),  # caption before
        (0.3, 0.1, 0.90, 0.8),  # caption after
        (0.3, 0.3, 0.19, 0.8),  # direction
        (0.3, 0.3, 0.90, 0.69),  # picture changed too much
        (0.25, 0.25, 0.25, 0.75),
        (0.3, 0.3, 0.40, 0.8),
        (0.3, 0.3, 0.40, 0.8),
        (-0.1, -0.1, -0.1, -0.1),
        (0.3, 0.3, float("nan"), 0.8),
    ]
    chosen = EditThresholds()
    assert (chosen.image, chosen.caption, chosen.direction, chosen.keep) == (0.7, 0.2, 0.2, 4)
    assert chosen.select(scores(*every)) == [1, 7, 8, 0]
    assert EditThresholds(keep=9).select(scores(*every)) == [1, 7, 8, 0, 6]
    free = EditThresholds(0, 0, 0, keep=20).select(scores(*every))
    assert free == [2, 3, 5, 1, 7, 8, 0, 6, 4, 9]
    for wrong in ({"image": 1.1}, {"direction": -0.1}, {"keep": 0}):
        with pytest.raises(ValueError, match="must be"):
            EditThresholds(**wrong)


TRIPLETS = [Triplet(f"a red cube {i}", "make it blue", f"a blue cube {i}") for i in range(5)]


def sampler(triplet, settings):
    """Stands in for a diffusion model: pictures of noise."""
    for one in settings:
        random = np.random.default_rng(one.seed)
        before = random.integers(0, 256, (16, 16, 3)).astype(np.uint8)
        yield NewPair(one.seed, before, random.integers(0, 256, (16, 16, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def clip():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CLIP(SMALL).eval()


def test_made_edits_resume_and_share_out(tmp_path, clip):
    how = {"clip": clip, "samples": 5, "batch": 2, "progress": False,
           "thresholds": EditThresholds(0, 0, 0, keep=2)}  # fmt: skip
    assert make_edits(tmp_path / "whole", TRIPLETS, sampler, **how) == 5
    whole = files(tmp_path / "whole")

    calls = []

    def killed(triplet, settings):
        calls.append(triplet)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return sampler(triplet, settings)

    with pytest.raises(KeyboardInterrupt):
        make_edits(tmp_path / "again", TRIPLETS, killed, **how)
    assert make_edits(tmp_path / "again", TRIPLETS, killed, **how) == 5
    assert len(calls) == 8 + 3 * 3  # three batches of each triplet that was not finished
    assert files(tmp_path / "again") == whole
    for part in (1, 0):
        make_edits(tmp_path / "shared", TRIPLETS, sampler, part=part, parts=2, **how)
    assert files(tmp_path / "shared") == whole


def test_made_edits_are_the_best_by_clip(tmp_path, clip):
    make_edits(
        tmp_path, TRIPLETS[:1], sampler, clip=clip, samples=7, batch=3, progress=False,
        thresholds=EditThresholds(0, 0, 0, keep=2),
    )  # fmt: skip
    settings = pair_settings(0, 7)
    assert all(0.1 <= s.p2p_threshold < 0.9 and 7.5 <= s.cfg_scale < 15 for s in settings)
    pairs = list(sampler(TRIPLETS[0], settings))
    before, after = (
        torch.tensor(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1
        for images in ([p.before for p in pairs], [p.after for p in pairs])
    )
    texts = ([TRIPLETS[0].input] * 7, [TRIPLETS[0].output] * 7)
    direction = edit_scores(clip, before, after, *texts).sim_direction
    rows = [json.loads(r) for r in (tmp_path / "0000000/metadata.jsonl").read_text().splitlines()]
    best = direction.argsort(descending=True)[:2].tolist()
    assert [row["seed"] for row in rows] == [settings[i].seed for i in best]
    assert list(rows[0]) == ["seed", "p2p_threshold", "cfg_scale", "clip_sim_0", "clip_sim_1",
                             "clip_sim_dir", "clip_sim_image"]  # fmt: skip
    assert rows[0]["clip_sim_dir"] == pytest.approx(float(direction.max()), abs=1e-5)
    assert rows[0]["cfg_scale"] == settings[best[0]].cfg_scale


def test_made_edits_may_keep_nothing(tmp_path, clip):
    how = {"clip": clip, "samples": 2, "progress": False, "thresholds": EditThresholds(1, 1, 1)}
    assert make_edits(tmp_path, TRIPLETS[:1], sampler, **how) == 0
    assert is_finished(tmp_path, 0)
    assert read_seeds(tmp_path) == []
    with pytest.raises(ValueError, match="must be at least 1"):
        make_edits(tmp_path, TRIPLETS, sampler, clip=clip, samples=0)
    with pytest.raises(ValueError, match="a pair for each of 2 settings"):
        make_edits(
            tmp_path, TRIPLETS, lambda t, s: [new(1)], clip=clip, samples=2, progress=False
        )  # fmt: skip
