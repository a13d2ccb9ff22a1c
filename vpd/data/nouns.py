"""Nouns of captions: what a picture shows, in the words that describe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vpd.data.parts_of_speech import Tagger, tag_words
from vpd.data.tabletop import dice
from vpd.data.tabletop.dice import RandomSource

__all__ = ["TEMPLATE", "CaptionWords", "caption_words", "noun_phrases", "sample_words"]

TEMPLATE = "a photo of a {w}."
"""The sentence that a text encoder is given for a word w."""


def noun_phrases(caption: str, tagger: Tagger = tag_words) -> list[str]:
    """The noun phrases of a caption (Xu et al. 2023, section 3.4).

    They are the longest runs of nouns and adjectives that end in a noun, and two runs with a
    preposition between them ("cup of coffee": "cup", "coffee", "cup of coffee"). Comparatives and
    superlatives ("the leftmost cube") are no part of them: they say which one, not what.

    Args:
        caption: In English.
        tagger: Gives words their parts of speech; :class:`vpd.data.parts_of_speech.NltkTagger` is
            the other one.

    Returns:
        Phrases in the order in which they begin, without repetitions; ``[""]`` if there is none.

    Example:
        >>> noun_phrases("A small red cube behind a ball and a cup of coffee on the left")
        ['small red cube', 'ball', 'cup', 'cup of coffee', 'coffee']
    """
    tagged = tagger(caption)
    runs = _runs([tag for _, tag in tagged])
    found = []
    for i, (first, last) in enumerate(runs):
        ends = [last]
        if i + 1 < len(runs) and runs[i + 1][0] == last + 1 and tagged[last][1] == "IN":
            ends.append(runs[i + 1][1])
        found += [" ".join(word for word, _ in tagged[first:end]) for end in ends]
    return list(dict.fromkeys(found)) or [""]


def _runs(tags: Sequence[str]) -> list[tuple[int, int]]:
    """Places [first, last) of the longest runs (noun | adjective)* noun."""
    runs = []
    first = end = 0  # of the run so far, up to its last noun
    for at, tag in enumerate([*tags, ""]):
        if tag.startswith("NN"):
            end = at + 1
        elif tag != "JJ":
            if end > first:
                runs.append((first, end))
            first = end = at + 1
    return runs


def sample_words(phrases: Sequence[str], rng: RandomSource, count: int = 8) -> list[str]:
    """``count`` of the phrases, drawn with replacement.

    Raises:
        ValueError: There is no phrase, or ``count`` is not positive.
    """
    if not phrases or count < 1:
        raise ValueError(
            f"sample_words: expected a phrase and a positive count, got {len(phrases)} and {count}"
        )
    return [dice.choice(rng, phrases) for _ in range(count)]


@dataclass(frozen=True)
class CaptionWords:
    """What an image's caption gives to learn from."""

    sentences: tuple[str, ...]
    """For the text encoder: the template with each word."""
    valid: tuple[bool, ...]
    """Whether that word is one; False where a caption has no noun."""


def caption_words(
    captions: Sequence[str],
    rng: RandomSource,
    *,
    count: int = 8,
    template: str = TEMPLATE,
    tagger: Tagger = tag_words,
) -> CaptionWords:
    """Words of one of an image's captions, drawn at random.

    Args:
        captions: Of the image; COCO has five.
        rng: What the caption and its words are drawn from; the same seed gives the same ones.
        count: How many words, drawn with replacement.
        template: A sentence with ``{w}`` in place of the word.
        tagger: As for :func:`noun_phrases`.

    Raises:
        ValueError: No caption, a template without ``{w}``, or a count that is not positive.
    """
    if not captions or "{w}" not in template:
        raise ValueError(
            "caption_words: expected captions and a template with {w}, "
            f"got {len(captions)} and {template!r}"
        )
    phrases = noun_phrases(dice.choice(rng, captions), tagger)
    words = sample_words(phrases, rng, count)
    return CaptionWords(
        tuple(template.replace("{w}", word) for word in words), tuple(bool(word) for word in words)
    )
