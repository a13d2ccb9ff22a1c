"""Vocabularies of tags: words to numbers, files, thresholds, texts as padded tokens."""

from __future__ import annotations

import json

import pytest
import tiny
import torch

import vpd
from vpd.tags import TagSet, read_thresholds
from vpd.tasks.class_texts import embed_classes, embed_sentences

ENTRIES = ["cube", "ball; sphere", "Dining_Table", "ring"]


@pytest.fixture(scope="module")
def text():
    return tiny.foundation().text


def test_words_become_numbers():
    tags = TagSet(ENTRIES)
    assert tags.names == ("cube", "ball", "Dining_Table", "ring")
    assert tags.ids(["Sphere", "dining  table", "ball", "unicorn"]) == [1, 2]
    assert tags.ids([("ring", 0.5), ("RING", 0.1)]) == [3]
    assert tags.unknown(["unicorn", "cube", "unicorn", "elf"]) == ["unicorn", "elf"]
    assert "sphere" in tags
    assert "unicorn" not in tags
    assert 3 not in tags
    assert len(tags) == 4
    with pytest.raises(ValueError, match="'unicorn' is none of the 4 tags, nor are 1 others"):
        tags.ids(["unicorn", "cube", "elf"], "error")


def test_a_name_counts_before_a_synonym():
    assert TagSet(["couch; sofa", "sofa", "seat; sofa"]).ids(["sofa", "couch", "seat"]) == [1, 0, 2]


def test_tables_of_targets_and_scores():
    tags = TagSet(ENTRIES)
    assert tags.targets([["sphere", "elf"], []]).tolist() == [
        [False, True, False, False],
        [False] * 4,
    ]
    table = tags.scores([[("ball", 0.25), ("sphere", 0.75), ("elf", 1.0)]])
    assert table.tolist() == [[0, 0.75, 0, 0]]
    assert tags.scores([]).shape == (0, 4)


def test_selection_by_thresholds_and_number():
    tags = TagSet(ENTRIES, thresholds=[0.5, 0.6, 0.7, 0.5])
    scores = torch.tensor([0.5, 0.75, 0.75, 0.875])
    assert tags.select(scores) == [("ring", 0.875), ("ball", 0.75), ("Dining_Table", 0.75)]
    assert tags.select(scores, top=1) == [("ring", 0.875)]
    assert tags.select(scores, threshold=0.8) == [("ring", 0.875)]
    assert tags.select(scores - 1) == []
    with pytest.raises(ValueError, match=r"scores of 4 tags, got \[3\]"):
        tags.select(scores[:3])


def test_files(tmp_path):
    tags = TagSet(
        ENTRIES,
        templates_=["a {}", "the {}"],
        thresholds=[0.1, 0.2, 0.3, 0.4],
        subsets={"round": ["sphere", "ring"]},
    )
    read = TagSet.read(tags.save(tmp_path / "tags.json"))
    assert (read.entries, read.templates) == (tags.entries, tags.templates)
    assert (read.thresholds, read.subsets) == (tags.thresholds, tags.subsets)
    (tmp_path / "ram.txt").write_text("3D glasses\nabacus\nabalone\n")
    (tmp_path / "ram_thresholds.txt").write_text("0.65\n0.7\n0.65\n")
    ram = TagSet.read(tmp_path / "ram.txt", tmp_path / "ram_thresholds.txt")
    assert ram.names == ("3D glasses", "abacus", "abalone")
    assert ram.thresholds == (0.65, 0.7, 0.65)
    assert TagSet.read(tmp_path / "ram.txt").thresholds == (0.68,) * 3
    (tmp_path / "list.json").write_text('["a", "b"]')
    assert TagSet.read(tmp_path / "list.json").names == ("a", "b")


def test_subsets_keep_what_belongs_to_their_tags(text):
    tags = TagSet(ENTRIES, thresholds=[0.1, 0.2, 0.3, 0.4], subsets={"round": ["ring", "sphere"]})
    part = tags.embedded(text).subset("round")
    assert part.names == ("ring", "ball")
    assert part.ids(["sphere"]) == [1]
    assert part.thresholds == (0.4, 0.2)
    tokens, _ = part.tokens([["ball", "ring"]])
    assert torch.allclose(
        tokens[0], embed_classes(text, ["ball; sphere", "ring"], "single"), atol=1e-6
    )
    assert tags.subset(["cube"]).names == ("cube",)
    with pytest.raises(ValueError, match=r"subset must be one of \['round'\], got 'flat'"):
        tags.subset("flat")


def test_tokens_are_texts_of_tags_padded(text):
    tags = TagSet(ENTRIES).embedded(text)
    said = [["ring", "elf", "cube"], [], ["elf"], [("sphere", 0.3)]]
    tokens, mask = tags.tokens(said)
    assert tokens.shape == (4, 2, 32)
    assert mask.tolist() == [[True, True], [True, False], [True, False], [True, False]]
    with torch.no_grad():
        words = ["a photo of a ring.", "a photo of a cube.", "", "a photo of a ball."]
        pooled = text(vpd.tokenize([*words, "a photo of a sphere."], length=64).ids).pooled
    assert torch.allclose(tokens[0], pooled[:2], atol=1e-6)
    assert torch.allclose(tokens[1, 0], pooled[2], atol=1e-6)  # no tags: the empty text
    assert torch.equal(tokens[1], tokens[2])  # nor any known one
    assert torch.allclose(tokens[3, 0], pooled[3:].mean(0), atol=1e-6)  # mean of synonyms
    assert not tokens[~mask].any()
    with pytest.raises(ValueError, match="'elf' is none"):
        tags.tokens(said, unknown="error")
    with pytest.raises(ValueError, match="embedded"):
        TagSet(ENTRIES).tokens(said)
    assert tags.tokens([])[0].shape == (0, 1, 32)


def test_five_thousand_tags_on_one_picture(text):
    tags = TagSet([f"tag {i}" for i in range(5000)])
    tags.embeddings, tags.empty = torch.randn(5000, 32), torch.zeros(32)
    tokens, mask = tags.tokens([[f"tag {i}" for i in range(4999, -1, -1)], ["tag 7"], []])
    assert tokens.shape == (3, 5000, 32)
    assert mask.sum(1).tolist() == [5000, 1, 1]
    assert torch.equal(tokens[0], tags.embeddings.flip(0))
    shape = {"dim": 32, "text_dim": 32, "image_dim": None, "queries": 2, "heads": 2, "hidden": 8}
    adapter = vpd.TaggingAdapter(vpd.TaggingAdapterConfig(**shape))
    with torch.no_grad():
        alone = adapter(tokens[1:2, :1]).context
        assert torch.allclose(adapter(tokens, text_mask=mask).context[1:2], alone, atol=1e-5)


def test_texts_are_read_in_batches_of_any_size(text):
    names = ["cube", "ball; sphere", "ring"]
    whole = embed_classes(text, names, "clip80", batch=1000)
    assert torch.allclose(embed_classes(text, names, "clip80", batch=7), whole, atol=1e-6)
    with pytest.raises(ValueError, match="no projection"):
        embed_sentences(text, ["a cube"], joint=True)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{", "expected JSON, but"),
        ("3", "expected JSON with tags"),
        ('{"names": ["a"]}', "KeyError: 'tags'"),
        ('{"tags": "abc"}', "expected a sequence of names"),
        ('{"tags": ["a", 3]}', "as number 1"),
        ('{"tags": ["a", "A; b"]}', "'a' again as number 1"),
        ('{"tags": ["a", ";"]}', "expected names"),
        ('{"tags": []}', "at least one"),
        ('{"tags": ["a", "b"], "thresholds": [0.5]}', "expected 2 thresholds"),
        ('{"tags": ["a"], "thresholds": [NaN]}', "thresholds must be finite"),
        ('{"tags": ["a"], "thresholds": ["x"]}', "could not convert"),
        ('{"tags": ["a"], "subsets": {"s": ["b"]}}', "'b' is none of the tags"),
        ('{"tags": ["a"], "subsets": {"s": [[]]}}', "subset 's': expected names of tags"),
        ('{"tags": ["a"], "templates": ["x"]}', "templates must be"),
    ],
)
def test_damaged_files(tmp_path, said, message):
    path = tmp_path / "tags.json"
    path.write_text(said)
    with pytest.raises(ValueError, match=message) as error:
        TagSet.read(path)
    assert str(path) in str(error.value)


def test_damaged_text_files(tmp_path):
    (tmp_path / "a.txt").write_text("0.5\nhalf\n")
    with pytest.raises(ValueError, match=r"a\.txt: expected one number a line"):
        read_thresholds(tmp_path / "a.txt", 2)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"b\.txt: expected one entry a line in UTF-8"):
        TagSet.read(tmp_path / "b.txt")
    (tmp_path / "c.txt").write_text("cube\n\nball")
    with pytest.raises(ValueError, match=r"c\.txt: .*number 1"):
        TagSet.read(tmp_path / "c.txt")
    with pytest.raises(FileNotFoundError):
        TagSet.read(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"ending in \.json"):
        TagSet(["a"]).save(tmp_path / "a.txt")
    assert json.loads(TagSet(["ä"]).save(tmp_path / "a.json").read_text())["tags"] == ["ä"]
