"""Triplets: files, language models, rules."""

from __future__ import annotations

import json

import pytest

from vpd.data import FileTriplets, RuleTriplets, Triplet, read_triplets, write_triplets
from vpd.data.edit_rules import RULES
from vpd.data.edit_texts import CallableTriplets, Source, partition
from vpd.data.triplets import accepted, write_finetuning

CAPTIONS = [
    "A dog on a bench",
    "two cats play with a ball in the park at night.",
    "A photo of a red car near an old house",
    "girl with horse at sunset",
    "An oil painting of a castle in winter",
]


def test_both_forms_of_files(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text(
        '{"input": "a cat", "edit": "make it a dog", "output": "a dog"}\n\n'
        '{"caption": "a lake", "edit": "add fog", "output": "a lake in fog", "url": "u"}\n'
        '{"caption": "a lake", "edit": "nothing", "output": " A LAKE. ", "url": "v"}\n'
    )
    cat, lake, same = read_triplets(path)
    assert cat == Triplet("a cat", "make it a dog", "a dog")
    assert lake.url == "u"
    assert list(cat.record("human")) == ["input", "edit", "output"]
    assert list(lake.record()) == ["caption", "edit", "output", "url"]
    assert not accepted(same)
    assert list(FileTriplets(path).triplets()) == [cat, lake]
    assert list(FileTriplets(path).triplets({"u"})) == [cat]
    write_finetuning(tmp_path / "tune.jsonl", [cat])
    row = json.loads((tmp_path / "tune.jsonl").read_text())
    assert row == {"prompt": "a cat\n##\n", "completion": "make it a dog\n%%\na dog\nEND"}


@pytest.mark.parametrize("line", ['{"input": "a", "edit": 3, "output": "b"}', "[]", "{", '"a"'])
def test_damaged_lines_are_named(tmp_path, line):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"input": "a", "edit": "b", "output": "c"}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 2: expected"):
        read_triplets(path)


def test_partition_covers_everything_once():
    parts = [partition(23, part, 4, seed=5) for part in range(4)]
    every = [index for part in parts for index in part]
    assert sorted(every) == list(range(23))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert every != list(range(23))
    assert partition(23, 2, 4, seed=5) == parts[2]
    assert partition(3) == [0, 1, 2]
    with pytest.raises(ValueError, match="0 <= part < parts"):
        partition(3, 2, 2)


def model(answers, log):
    """A language model that gives each caption its list of answers in turn."""
    left = {caption: list(found) for caption, found in answers.items()}

    def complete(prompt, completion):
        log.append(prompt)
        assert (completion.temperature, completion.max_tokens) == (0.7, 256)
        return left[prompt.removesuffix("\n##\n")].pop(0)

    return complete


def test_language_model_is_asked_until_it_is_accepted():
    log = []
    answers = {
        "a": ["no delimiter", "x\n%%\nA.", "bad\n%%\nworse", "go\n%%\nb\nEND and more\n%%\n"],
        "c": ["1", "2", "3", "4", "never asked"],
        "d": ["e\n%%\nf\n%%\ng", " say \n%%\n new \n"],
    }
    generator = CallableTriplets(
        model(answers, log),
        [Source("a", "u"), "c", Source("other", "u"), "a", "d"],
        moderate=lambda edit, output: edit != "bad",
    )
    assert list(generator.triplets()) == [Triplet("a", "go", "b", "u"), Triplet("d", "say", "new")]
    assert log == ["a\n##\n"] * 4 + ["c\n##\n"] * 4 + ["d\n##\n"] * 2
    with pytest.raises(ValueError, match="retries must be at least 0"):
        CallableTriplets(model({}, log), [], retries=-1)


def test_writing_goes_on_where_it_was_killed(tmp_path):
    whole, path = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    assert write_triplets(whole, RuleTriplets(CAPTIONS, seed=3)) == len(CAPTIONS)
    assert write_triplets(path, RuleTriplets(CAPTIONS, seed=3), limit=2) == 2
    with path.open("ab") as file:
        file.write(whole.read_bytes().splitlines(keepends=True)[2][:20])
    assert write_triplets(path, RuleTriplets(CAPTIONS, seed=3)) == len(CAPTIONS)
    assert path.read_bytes() == whole.read_bytes()
    assert write_triplets(path, RuleTriplets(CAPTIONS, seed=3)) == len(CAPTIONS)
    parts = [RuleTriplets(CAPTIONS, seed=3, part=p, parts=2).triplets() for p in (0, 1)]
    assert {t for part in parts for t in part} == set(read_triplets(whole))


@pytest.mark.parametrize(
    ("rule", "caption", "starts", "holds"),
    [
        ("replace", "Two cats on an old bench", ("replace the", "turn the"), "Two "),
        ("add", "a dog on a bench.", ("add ",), "a dog on a bench with "),
        ("style", "A photo of a red car", ("make it ",), " of a red car"),
        ("style", "The red car at night", ("make it ",), " of the red car at night"),
        ("time", "girl with horse at sunset.", ("make it", "add "), "girl with horse "),
        ("material", "an eagle", ("make the eagle out of ",), " eagle"),
    ],
)
def test_rules_say_what_they_change(rule, caption, starts, holds):
    for seed in range(20):
        for triplet in RuleTriplets([caption], rules=[rule], seed=seed).triplets():
            assert triplet.edit.startswith(starts)
            assert holds in triplet.output
            assert accepted(triplet)
            assert triplet.output.endswith(".") == caption.endswith(".")


def test_replaced_nouns_keep_number_and_article():
    outputs = {
        t.output
        for seed in range(60)
        for t in RuleTriplets(["A dog and two women"], rules=["replace"], seed=seed).triplets()
    }
    assert {"An elephant and two women", "A dog and two men", "A horse and two women"} <= outputs
    assert all(o.startswith(("A ", "An ")) and " and two " in o for o in outputs)
    assert not list(RuleTriplets(["a dog by a dog", "blue"], rules=["replace"]).triplets())


def test_every_rule_is_drawn():
    edits = [t.edit for s in range(30) for t in RuleTriplets(CAPTIONS, seed=s).triplets()]
    for start in ("replace the", "turn the", "add ", "make it a", "make the"):
        assert any(edit.startswith(start) for edit in edits)
    for rules in ([], ["paint"]):
        with pytest.raises(ValueError, match=f"some of {', '.join(RULES)}"):
            RuleTriplets(CAPTIONS, rules=rules)
