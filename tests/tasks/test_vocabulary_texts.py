"""Texts of vocabularies: the encoder's projected states of each sentence, each read once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import vpd
from vpd.tasks.class_texts import embed_classes
from vpd.tasks.vocabulary_texts import VocabularyTexts
from vpd.vocabulary import Vocabulary

TINY = vpd.CLIPTextConfig(
    hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
    projection_dim=5,
)  # fmt: skip


class Counting(torch.nn.Module):
    """A text encoder that counts what it reads."""

    def __init__(self, config=TINY) -> None:
        super().__init__()
        self.net, self.config, self.rows = vpd.CLIPTextEncoder(config), config, []

    def forward(self, ids):
        self.rows.append(len(ids))
        return self.net(ids)


@pytest.fixture
def encoder():
    return Counting()


def plain(encoder, sentence: str) -> torch.Tensor:
    with torch.no_grad():
        return encoder.net(vpd.tokenize([sentence]).ids).projected[0]


def test_texts_are_projected_states_in_order(encoder):
    words = Vocabulary.parse("cube, box; ring")
    found = VocabularyTexts(encoder)(words.words)
    want = torch.stack([plain(encoder, word) for word in ("cube", "box", "ring")])
    torch.testing.assert_close(found, want)
    said = VocabularyTexts(encoder)(words.words, "single")
    torch.testing.assert_close(said[1], plain(encoder, "a photo of a box."))
    several = VocabularyTexts(encoder)(words.words, ["a {}.", "the {}."])
    want = (plain(encoder, "a ring.") + plain(encoder, "the ring.")) / 2
    torch.testing.assert_close(several[2], want)
    torch.testing.assert_close(
        F.normalize(said[2:], dim=-1), embed_classes(encoder, ["ring"], "single", joint=True)
    )
    empty = VocabularyTexts(encoder)([""])
    torch.testing.assert_close(empty[0], plain(encoder, ""))


def test_only_new_words_are_read(encoder):
    texts = VocabularyTexts(encoder, batch=4)
    first = texts(["cube", "box", "ring", "cube", "floor", "sky"])
    assert encoder.rows == [4, 1]
    assert torch.equal(first[0], first[3])
    again = texts(["sky", "cube"])
    assert encoder.rows == [4, 1]
    assert torch.equal(again, first[[5, 0]])
    texts(["sky", "cone"])
    texts(["sky"], "single")  # another sentence
    assert encoder.rows == [4, 1, 1, 1]
    texts.clear()
    texts(["sky"])
    assert encoder.rows == [4, 1, 1, 1, 1]


def test_a_large_vocabulary_and_little_memory(encoder):
    many = [f"word {i}" for i in range(300)]
    texts = VocabularyTexts(encoder, batch=128, limit=10)
    assert texts(many).shape == (300, 5)
    assert encoder.rows == [128, 128, 44]
    texts(many[-10:])
    assert encoder.rows == [128, 128, 44]
    texts(many[:1])
    assert encoder.rows == [128, 128, 44, 1]


def test_bad_input_is_explained(encoder):
    texts = VocabularyTexts(encoder)
    with pytest.raises(ValueError, match="at least one name"):
        texts([])
    with pytest.raises(ValueError, match=r"fit 77 tokens, got one of 400 characters: 'cat cat"):
        texts(["cube", "cat " * 100])
    assert len(texts(["cube"])) == 1
    with pytest.raises(ValueError, match=r"templates must be"):
        texts(["cube"], "many")
    without = replace(TINY, projection_dim=None)
    with pytest.raises(ValueError, match="no projection"):
        VocabularyTexts(Counting(without))(["cube"])
    with pytest.raises(ValueError, match="batch >= 1"):
        VocabularyTexts(encoder, batch=0)
