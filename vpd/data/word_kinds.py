"""What English words may be, by lists of words and by their endings."""

from __future__ import annotations

import functools
from pathlib import Path

__all__ = ["compounds", "kind_of", "with_s"]

_FOLDER = Path(__file__).parent / "words"
_FUNCTION = {
    "DT": "a an the this these those some any no every each another both all either neither half "
    "several many few other others more most much various different multiple numerous assorted "
    "such same own enough lots certain",
    "CD": "one two three four five six seven eight nine ten eleven twelve twenty thirty forty "
    "fifty hundred thousand dozen",
    "PRP": "i you he she it we they me him them us himself herself itself themselves someone "
    "everyone nobody",
    "PRP$": "my your his her its our their",
    "IN": "of in on at by with from into onto over under above below behind beside besides between "
    "among amongst amid amidst through throughout across along alongside around about against near "
    "toward towards upon beneath underneath beyond within without past during "
    "before after for like via per atop off aboard",
    "TO": "to",
    "CC": "and or but nor plus while as because than if although though until since so whereas &",
    "MD": "can ca could may might will wo would shall should must",
    "VBZ": "is are was were be been being am has have had having do does did doing done",
    "POS": "'s",
    "VBN": "made seen worn shown driven held taken given built eaten drawn lit sat stood laid hung "
    "kept caught thrown ridden flown woven grown known written torn broken frozen hidden set left "
    "spread fed led met sent spent cut put",
    "WDT": "that which who whom whose what where when how why",
    "EX": "there here",
    "RB": "not very too also just only together apart away out up down upside outdoors indoors "
    "next close close-up closeup ahead aside forward backwards forwards "
    "sideways nearly almost quite really still then now again ever never even well else once "
    "outward inward upward downward upwards downwards rather instead n't",
    "NNS": "people men women children feet teeth mice geese sheep deer cattle police folks",
    "JJS": "farthest furthest nearest best worst least",
}
# Where something is, not something: "in front of", "on the left". Adjectives before a noun.
_PLACES = (
    "left right middle front back top bottom center centre side sides background foreground "
    "distance rear inside outside"
)
# Both adjectives and nouns.
_EITHER = (
    "orange adult male female human individual professional private general antique retro manual "
    "square gold silver wood lime rose peach cream salmon light dark cold young fat blond blonde "
    "brunette final junior senior"
)
_ADJECTIVE_ENDS = ("ous", "less", "ish", "ible", "able", "ful", "ic", "al", "ive", "esque")


def kind_of(word: str) -> str:
    """What a word in lower case may be: a tag of the Penn Treebank; "JN", an adjective or a noun;
    "PLACE", a place or an adjective; of words of the lists of verbs their form behind "V:", or "N:"
    if they can be nouns as well, as in "N:VBZ"."""
    known = _lexicon().get(word)
    if known is not None:
        return known
    if not word[0].isalnum():
        return word if word in ",." else "."
    if word[0].isdigit():
        return "CD"
    if "-" in word:
        return _hyphenated(word)
    if word.endswith("most"):
        return "JJS"
    for end, tag in (("est", "JJS"), ("er", "JJR")):
        if word.endswith(end) and _is_adjective(word.removesuffix(end)):
            return tag
    if len(word) > 3 and word.endswith("ly"):
        return "RB"
    if len(word) > 4 and word.endswith("ing"):
        return "VBG"
    if len(word) > 4 and word.endswith("ed") and not word.endswith("eed"):
        return "VBN"
    if len(word) > 4 and word.endswith(_ADJECTIVE_ENDS):
        return "JJ"
    plural = word.endswith("s") and not word.endswith(("ss", "us")) and len(word) > 3
    return "NNS" if plural else "NN"


def _hyphenated(word: str) -> str:
    """What the last part says: "a t-shirt", "a well-lit room", "a two-story house"."""
    parts = word.split("-")
    last = kind_of(parts[-1]) if parts[-1] else "NN"
    if last in ("VBN", "VBG", "JJ", "JN") or _lexicon().get(parts[0]) == "CD":
        return "JJ"
    return "NNS" if last == "NNS" or last.endswith("VBZ") else "NN"


def _is_adjective(stem: str) -> bool:
    """Whether an adjective has this stem before -er and -est: "small", "big" of "bigg", "happy" of
    "happi"."""
    stems = [stem, stem + "e"]
    if stem.endswith("i"):
        stems.append(stem[:-1] + "y")
    if len(stem) > 2 and stem[-1] == stem[-2]:
        stems.append(stem[:-1])
    return any(_lexicon().get(one) in ("JJ", "JN") or one == "close" for one in stems)


@functools.cache
def _lexicon() -> dict[str, str]:
    """From a word to its kind."""
    kinds: dict[str, str] = {}
    for name, mark in (("verbs_or_nouns", "N"), ("verbs", "V")):
        for base in _read(name):
            kinds[base] = f"{mark}:VB"
            kinds[with_s(base)] = f"{mark}:VBZ"
    kinds |= dict.fromkeys(_read("adjectives"), "JJ")
    kinds |= dict.fromkeys(_EITHER.split(), "JN")
    for word in _read("nouns"):
        kinds[word] = "NN"
        kinds[with_s(word)] = "NNS"  # plurals are formed alike
    for tag, words in _FUNCTION.items():
        kinds |= dict.fromkeys(words.split(), tag)
    kinds |= dict.fromkeys(_PLACES.split(), "PLACE")
    return kinds


@functools.cache
def compounds() -> dict[str, frozenset[str]]:
    """From a gerund to the nouns that it names something with: dining - table, room, ..."""
    lines = (_FOLDER / "compounds.txt").read_text(encoding="utf-8").splitlines()
    return {line.split()[0]: frozenset(line.split()[1:]) for line in lines}


def _read(name: str) -> list[str]:
    return (_FOLDER / f"{name}.txt").read_text(encoding="utf-8").split()


def with_s(base: str) -> str:
    """The third person of a verb, and the plural of a noun that has a regular one."""
    if base.endswith(("s", "x", "z", "ch", "sh")):
        return base + "es"
    if base.endswith("y") and base[-2] not in "aeiou":
        return base[:-1] + "ies"
    return base + "s"
