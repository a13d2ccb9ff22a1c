"""vpd.tokens against CLIP's own tokenizer (golden ids) and on awkward texts."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vpd.tokens import BOS, EOS, clean_text, token_strings, token_words, tokenize

ROWS = json.loads((Path(__file__).parent / "golden" / "clip_tokens.json").read_text())["strings"]


def expected(row, length, pad):
    """The golden row cut to another length: CLIP keeps the beginning and puts EOS last."""
    ids = row["ids" if pad == "eos" else "ids_pad0"][:length]
    if row["n_tokens"] > length:
        ids[-1] = EOS
    return ids


@pytest.mark.parametrize("pad", ["eos", "zero"])
@pytest.mark.parametrize("length", [20, 40, 77])
def test_ids_equal_clip(length, pad):
    rows = [row for row in ROWS if not row["ambiguous"]]
    assert len(rows) == 175
    tokens = tokenize([row["text"] for row in rows], length=length, pad=pad)
    assert tokens.ids.dtype == torch.int64
    for row, ids in zip(rows, tokens.ids.tolist(), strict=True):
        assert ids == expected(row, length, pad), row["text"]


def test_truncation_is_reported_as_in_golden():
    tokens = tokenize([row["text"] for row in ROWS])
    assert tokens.truncated.tolist() == [row["truncated"] for row in ROWS]
    assert tokens.truncated.any()
    assert (tokens.ids[tokens.truncated, -1] == EOS).all()


def test_open_clip_is_matched_where_tokenizers_disagree():
    rows = [row for row in ROWS if row["ambiguous"]]
    assert tokenize([row["text"] for row in rows]).ids.tolist() == [row["ids"] for row in rows]


def test_mask_covers_bos_to_first_eos():
    tokens = tokenize(["", "a cup", "a " * 200], length=10)
    assert tokens.mask.sum(1).tolist() == [2, 4, 10]
    assert tokens.truncated.tolist() == [False, False, True]
    assert tokens.mask[1].tolist() == [True] * 4 + [False] * 6


def test_one_text_and_no_text():
    assert tokenize("a red cup", length=8).ids.tolist() == [
        [BOS, 320, 736, 1937, EOS, EOS, EOS, EOS]
    ]
    assert tokenize([], length=8).ids.shape == (0, 8)


def test_nul_and_lone_surrogate_have_an_answer():
    assert clean_text("a\ud800b") == "a\ufffdb"
    assert tokenize("a\ud800b").ids.equal(tokenize("a\ufffdb").ids)
    assert tokenize("a\0b").ids[0, 0] == BOS


@pytest.mark.parametrize("texts", [None, 3, b"cup", ["a", None], [["a"]], {"a": 1}])
def test_wrong_type_is_a_type_error(texts):
    with pytest.raises(TypeError, match="must be a str"):
        tokenize(texts)


def test_wrong_length_and_pad():
    with pytest.raises(ValueError, match="at least 2"):
        tokenize("a", length=1)
    with pytest.raises(TypeError, match="length must be an int"):
        tokenize("a", length=7.0)
    with pytest.raises(ValueError, match="'eos' or 'zero'"):
        tokenize("a", pad="max")


def test_words_and_their_columns():
    spans = token_words("Two giraffes, don't touch the T-shirt!")
    words = [span.word for span in spans]
    assert words == ["two", "giraffes", ",", "don't", "touch", "the", "t-shirt", "!"]
    assert spans[0].tokens == (1,)
    columns = [column for span in spans for column in span.tokens]
    assert columns == list(range(1, len(columns) + 1))
    assert tokenize("Two giraffes, don't touch the T-shirt!").ids[0, len(columns) + 1] == EOS


def test_words_of_a_truncated_text():
    spans = token_words("red " * 10, length=6)
    assert [span.tokens for span in spans] == [(1,), (2,), (3,), (4,)]
    assert token_words("") == []


def test_token_strings():
    ids = tokenize("A red cup!", length=8).ids[0]
    strings = ["<start_of_text>", "a", "red", "cup", "!", "<end_of_text>", "", ""]
    assert token_strings(ids) == strings
    with pytest.raises(ValueError, match="got 60000"):
        token_strings([60000])
    with pytest.raises(ValueError, match=r"must be \[N\]"):
        token_strings(ids[None])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_words_cover_all_tokens_of_any_text(text):
    length = 400
    columns = [column for span in token_words(text, length) for column in span.tokens]
    tokens = tokenize(text, length=length)
    assert columns == list(range(1, len(columns) + 1))
    assert int((tokens.ids[0] == EOS).nonzero()[0]) == len(columns) + 1 or EOS in columns
