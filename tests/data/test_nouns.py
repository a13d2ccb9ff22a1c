"""Noun phrases of captions against expectations written by hand, and against Tabletop's grammar."""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from types import ModuleType

import pytest

from vpd.data import tabletop
from vpd.data.nouns import caption_words, noun_phrases, sample_words
from vpd.data.parts_of_speech import NltkTagger, tag_words
from vpd.data.tabletop.phrases import ANY_NOUN, NOUNS
from vpd.data.tabletop.spec import COLORS, MATERIALS, SIZES

CAPTIONS = {
    "A man rides a wave on a surfboard in the ocean.": "man, wave, surfboard, ocean",
    "A man riding a wave on top of a surfboard.": "man, wave, surfboard",
    "A group of people standing around a table with plates of food.": (
        "group, group of people, people, table, table with plates, plates, plates of food, food"
    ),
    "Two dogs play with a red frisbee in the park": "dogs, red frisbee, park",
    "A large brown teddy bear sitting on a wooden chair": "large brown teddy bear, wooden chair",
    "a kitchen with stainless steel appliances and a dining table": (
        "kitchen, kitchen with stainless steel appliances, stainless steel appliances, dining table"
    ),
    "A plate topped with sliced bananas and an orange.": "plate, sliced bananas, orange",
    "An orange and white cat laying on a laptop keyboard": "white cat, laptop keyboard",
    "People stand on the sidewalk in front of a store while a bus passes.": (
        "people, sidewalk, store, bus"
    ),
    "A bus stop on the side of the road": "bus stop, road",
    "A woman cuts a large white sheet cake.": "woman, large white sheet cake",
    "a man skis down a snowy hill": "man, snowy hill",
    "A young girl brushes her teeth in the bathroom": "young girl, teeth, bathroom",
    "several parked cars line a city street": "parked cars, city street",
    "two giraffes eat leaves from a tall tree": "giraffes, leaves, tall tree",
    "A dog's reflection in the mirror": "dog, reflection, mirror",
    "There are many elephants walking in the water.": "elephants, water",
    "The cat is fluffy and the living room is clean": "cat, living room",
    "A man and a woman cut their wedding cake": "man, woman, wedding cake",
    "A little boy and girl sit on a bench eating ice cream": "little boy, girl, bench, ice cream",
    "Street signs on a pole next to a traffic light": "street signs, pole, traffic light",
    "A smiling woman, a vase and a vase of flowers": (
        "smiling woman, vase, vase of flowers, flowers"
    ),
    "the leftmost cube is red": "cube",
    "Running.": "",
    "red": "",
    "...": "",
    "": "",
}


@pytest.mark.parametrize("caption", CAPTIONS)
def test_captions(caption):
    want = CAPTIONS[caption].split(", ")
    assert noun_phrases(caption) == want
    assert noun_phrases(caption.rstrip(".")) == want  # the end of a caption ends a phrase


def test_captions_of_tabletop():
    """All objects that a caption names, with what it says before their noun, and nothing else."""
    said = "|".join([*SIZES, *MATERIALS, *COLORS])
    nouns = "|".join([*ANY_NOUN, *(noun for own in NOUNS.values() for noun in own)])
    named, texts = re.compile(rf"(?:(?:{said}) )*(?:{nouns})\b"), 0
    for seed in range(20):
        for caption in tabletop.captions(tabletop.render(seed), random.Random(seed), count=10):
            want = list(dict.fromkeys(named.findall(caption))) or [""]
            assert noun_phrases(caption) == want, caption
            texts += 1
    assert texts == 200


def spelled(text: str) -> list[tuple[str, str]]:
    """A tagger for words that say their tag: "cup/NN"."""
    return [tuple(word.split("/")) for word in text.split()]


@pytest.mark.parametrize(
    ("tagged", "want"),
    [
        ("big/JJ red/JJ cup/NN", ["big red cup"]),
        ("cup/NN red/JJ", ["cup"]),
        ("cup/NN red/JJ box/NNS", ["cup red box"]),
        ("red/JJ of/IN cup/NN", ["cup"]),
        ("cup/NN of/IN hot/JJ tea/NN", ["cup", "cup of hot tea", "hot tea"]),
        ("a/NN of/IN b/NN in/IN c/NN", ["a", "a of b", "b", "b in c", "c"]),
        ("cup/NN of/IN the/DT tea/NN", ["cup", "tea"]),
        ("cup/NN to/TO tea/NN", ["cup", "tea"]),
        ("cup/NN red/JJ of/IN tea/NN", ["cup", "tea"]),
        ("cup/NN and/CC cup/NN", ["cup"]),
        ("bigger/JJR cup/NNP", ["cup"]),
        ("runs/VBZ", [""]),
        ("", [""]),
    ],
)
def test_chunks(tagged, want):
    assert noun_phrases(tagged, spelled) == want


def test_tags():
    assert tag_words("It's a T-shirt, isn't it? 3 well-lit rooms") == [
        ("it", "PRP"), ("'s", "POS"), ("a", "DT"), ("t-shirt", "NN"), (",", ","), ("is", "VBZ"),
        ("n't", "RB"), ("it", "PRP"), ("?", "."), ("3", "CD"), ("well-lit", "JJ"),
        ("rooms", "NNS"),
    ]  # fmt: skip
    assert dict(tag_words("larger dogs chase the biggest cats quickly"))["larger"] == "JJR"
    assert dict(tag_words("larger dogs chase the biggest cats quickly"))["biggest"] == "JJS"
    assert dict(tag_words("larger dogs chase the biggest cats quickly"))["quickly"] == "RB"


@pytest.mark.parametrize(
    "text", ["-", "'", "a-", "--a--", "\u2019s", "日本 の 猫", "é\n\t1st", "s", "_"]
)
def test_any_text_has_tags(text):
    assert all(word and tag for word, tag in tag_words(text))
    assert noun_phrases(text)


def test_sampling():
    phrases = ["cup", "red ball", "box"]
    drawn = sample_words(phrases, random.Random(1), 3000)
    assert drawn == sample_words(phrases, random.Random(1), 3000)
    assert drawn != sample_words(phrases, random.Random(2), 3000)
    for count in Counter(drawn).values():
        assert abs(count - 1000) < 100  # four standard deviations
    assert set(sample_words(["cup"], random.Random(0))) == {"cup"}
    assert len(sample_words(["cup"], random.Random(0))) == 8


def test_words_of_an_image():
    captions = ["a cup on a table", "Running.", "two dogs"]
    seen = set()
    for seed in range(50):
        words = caption_words(captions, random.Random(seed), count=3)
        assert words == caption_words(captions, random.Random(seed), count=3)
        assert len(words.sentences) == len(words.valid) == 3
        assert len(set(words.valid)) == 1  # one caption for all words
        seen |= set(zip(words.sentences, words.valid, strict=True))
    assert seen == {
        ("a photo of a cup.", True), ("a photo of a table.", True), ("a photo of a dogs.", True),
        ("a photo of a .", False),
    }  # fmt: skip
    own = caption_words(["a cup"], random.Random(0), count=1, template="{w}, {w}", tagger=tag_words)
    assert own.sentences == ("cup, cup",)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: sample_words([], rng), "got 0 and 8"),
        (lambda rng: sample_words(["cup"], rng, 0), "positive count, got 1 and 0"),
        (lambda rng: caption_words([], rng), "expected captions .* got 0"),
        (lambda rng: caption_words(["a cup"], rng, template="a photo of a {}."), r"\{w\}, got 1"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call(random.Random(0))


@pytest.fixture
def nltk(monkeypatch):
    """In NLTK's place, as far as it is used."""
    module = ModuleType("nltk")
    module.word_tokenize = lambda text: text.replace(".", " .").split()
    tags = {"A": "DT", "on": "IN", ".": ".", "Red": "JJ"}
    module.pos_tag = lambda words: [(word, tags.get(word, "NN")) for word in words]
    monkeypatch.setitem(sys.modules, "nltk", module)
    return module


def test_nltk(nltk):
    assert noun_phrases("A Red Cup on A table.", NltkTagger()) == ["Red Cup", "table"]


def test_nltk_without_its_data(nltk):
    def missing(words):
        raise LookupError("Resource punkt_tab not found.")

    nltk.word_tokenize = missing
    with pytest.raises(OSError, match=r"nltk.downloader punkt_tab"):
        NltkTagger()("A cup")


def test_nltk_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(ImportError, match=r"pip install 'vpd\[nltk\]'"):
        NltkTagger()
