"""The core's byte-pair encoding against the tokenizer that Python uses."""

from __future__ import annotations

import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instant_clip_tokenizer import Tokenizer

from vpd._load import core
from vpd.data import tabletop
from vpd.tokens import BOS, EOS, clean_text, tokenize

ROOT = Path(__file__).parent.parent
SAME_TABLES = unicodedata.unidata_version == "14.0.0"
CURLY = set("\u02bc") | {chr(code) for code in range(0x2018, 0x2020)}
TEXTS = [
    "a photo of a cat",
    "The small RED cube left of the metal ball.",
    "don't won't I'M they're we've he'll she'd rock'n'roll 's",
    "t-shirt, hello!!! (what?) #hashtag @user http://a.b/c?d=e&f=g",
    "3.14159 12,000 1st 2nd",
    "café naïve Ångström ÜBER œuvre ﬁne",
    "Привет, мир! Καλημέρα ΟΔΟΣ ΣΊΣΥΦΟΣ İstanbul ǅ",
    "你好世界 こんにちは 안녕하세요 שלום مرحبا हिन्दी ภาษาไทย",
    "🙂 👩‍👩‍👧‍👦 ❤️ 🇩🇪 ½ ² Ⅷ ٣",
    "  tabs\tand\nlines\u00a0\u3000 ",
    "<start_of_text> a <END_OF_TEXT> b <|endoftext|>!<end_of_text>",
    "supercalifragilisticexpialidocious antidisestablishmentarianism " * 3,
    "",
    "\u200b\ufeff zero\u200dwidth \x01\x7f",
]


@pytest.fixture(scope="module")
def native():
    return core.Tokenizer(str(ROOT / "vpd" / "zoo" / "merges.txt"))


@pytest.fixture(scope="module")
def reference():
    """Byte-pair encoding alone: it splits and lowers, but has no ftfy before it."""
    return Tokenizer()


def straight(text: str) -> str:
    """Curly quotes as the core's cleaning makes them."""
    single = str.maketrans(dict.fromkeys("\u02bc\u2018\u2019\u201a\u201b", "'"))
    return text.translate(single).translate(str.maketrans(dict.fromkeys("“”„‟", '"')))


@pytest.mark.parametrize("text", TEXTS)
def test_texts_have_the_same_ids(native, reference, text):
    assert native.encode(text) == reference.encode(straight(text))


def test_every_character_has_the_same_ids(native, reference):
    """Alone, between letters and behind a number; surrogates cannot be written."""
    known = unicodedata if SAME_TABLES else unicodedata.ucd_3_2_0
    codes = [chr(c) for c in range(0x110000) if known.category(chr(c)) not in ("Cn", "Cs")]
    codes = [c for c in codes if not "\ue000" <= c <= "\uf8ff" and c < "\U000e0000"]
    codes = [c for c in codes if c not in CURLY]
    for begin in range(0, len(codes), 512):
        text = " ".join(f"{c} a{c}b 1{c}" for c in codes[begin : begin + 512])
        if native.encode(text) != reference.encode(text):
            wrong = [c for c in codes if native.encode(f"a{c}b") != reference.encode(f"a{c}b")]
            raise AssertionError([hex(ord(c)) for c in wrong[:20]])


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec="utf-8", max_codepoint=0x2FFF), max_size=60))
def test_any_text_has_the_same_ids(native, reference, text):
    text = "".join(c for c in text if unicodedata.ucd_3_2_0.category(c) != "Cn" and c != "Σ")
    assert native.encode(text) == reference.encode(straight(text))


def test_sentences_of_tabletop_are_tokenised_as_in_python(native):
    source = random.Random(0)
    texts = [
        expression.text
        for seed in range(3_000_000, 3_000_006)
        for expression in tabletop.expressions(tabletop.render(seed), source)
    ]
    assert len(texts) > 10
    for length in (8, 24, 77):
        ids, truncated = native(texts, length)
        expected = tokenize(texts, length=length)
        assert ids.equal(expected.ids)
        assert truncated.equal(expected.truncated)


def test_what_is_cleaned_and_what_is_not(native):
    assert core.clean_text("  It\u2019s a\t\u201cCAT\u201d \n") == 'it\'s a "cat"'
    for text in ("It\u2019s a \u201cCAT\u201d", "ÀÉÎ õü", "tabs\tand  spaces"):
        assert core.clean_text(text) == clean_text(text)
    # vpd.tokens goes further: HTML, composed characters, wide letters, mended bytes.
    for text, python in {
        "a &amp; b": "a & b",
        "e\u0301": "é",
        "ＡＢ": "ab",
        "schÃ¶n": "schön",
    }.items():
        assert clean_text(text) == python
        assert core.clean_text(text) == text.lower()


def test_markers_and_errors(native, tmp_path):
    ids, truncated = native(["", "a " * 9], 6)
    assert ids.tolist() == [[BOS, EOS, EOS, EOS, EOS, EOS], [BOS, 320, 320, 320, 320, EOS]]
    assert truncated.tolist() == [False, True]
    with pytest.raises(ValueError, match="length must be at least 2"):
        native(["a"], 1)
    with pytest.raises(FileNotFoundError, match="none"):
        core.Tokenizer(str(tmp_path / "none"))
    (tmp_path / "merges.txt").write_text("a b\nthis is no merge\n")
    with pytest.raises(ValueError, match=r"merges.txt, line 2: expected two tokens"):
        core.Tokenizer(str(tmp_path / "merges.txt"))


@pytest.mark.skipif(not SAME_TABLES, reason="tables are of Unicode 14, as Python 3.11's")
def test_tables_are_what_the_tool_writes():
    tool = ROOT / "tools" / "unicode_tables.py"
    subprocess.run([sys.executable, tool, "--check"], check=True)
