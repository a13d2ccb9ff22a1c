"""Triplets by rules: small edits of captions in plain English, without a language model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from vpd.data.edit_texts import CaptionTriplets, Source
from vpd.data.parts_of_speech import tag_words
from vpd.data.tabletop import dice
from vpd.data.tabletop.dice import RandomSource
from vpd.data.triplets import Triplet
from vpd.data.word_kinds import with_s

__all__ = ["RULES", "RuleTriplets"]

Change = tuple[str, str]  # instruction, edited caption

# Things that can stand in each other's place.
_KINDS = [
    words.split()
    for words in (
        "cat dog horse cow sheep elephant bear zebra giraffe lion tiger fox rabbit deer",
        "bird owl eagle parrot duck swan pigeon flamingo",
        "car truck bus taxi tractor van",
        "bicycle motorcycle scooter",
        "boat ship canoe yacht",
        "apple orange banana pear peach lemon",
        "pizza cake sandwich burger salad pie",
        "rose sunflower tulip daisy lily orchid",
        "chair bench sofa stool armchair",
        "house castle church temple barn tower lighthouse",
        "cup bowl vase bottle glass jar",
        "hat helmet crown cap",
        "ball cube cylinder cone pyramid ring",
        "man woman boy girl",
    )
]
_ADDED = (
    "a rainbow", "a hot air balloon", "fireworks", "a red dragon", "a full moon", "a snowman",
    "butterflies", "a small bird", "a campfire", "balloons", "an umbrella", "falling leaves",
)  # fmt: skip
_STYLES = (
    "a watercolor painting", "an oil painting", "a pencil sketch", "a charcoal drawing",
    "a stained glass window", "a mosaic", "a comic book panel", "a woodcut print",
    "a pixel art image", "a paper collage", "a black and white photo",
)  # fmt: skip
_TIMES = {
    "sunrise": "at", "sunset": "at", "night": "at", "dawn": "at", "dusk": "at", "noon": "at",
    "winter": "in", "spring": "in", "summer": "in", "autumn": "in",
    "snow": "in the", "rain": "in the", "fog": "in the",
}  # fmt: skip
_MATERIALS = {
    "wood": "wooden", "gold": "golden", "glass": "glass", "stone": "stone", "ice": "ice",
    "paper": "paper", "chocolate": "chocolate", "steel": "steel", "marble": "marble",
}  # fmt: skip
_MEDIUM = re.compile(
    r"^(?:an? |the )?(?:[a-z]+ ){0,2}?(?:photo|photograph|picture|image|painting|drawing|sketch|"
    r"illustration|print)s? (?:of |showing )",
    re.IGNORECASE,
)
_IRREGULAR = {"man": "men", "woman": "women", "sheep": "sheep", "deer": "deer"}
_OTHER = {word: kind for kind in _KINDS for word in kind}


class RuleTriplets(CaptionTriplets):
    """Template-based triplets: an object is replaced, added or made of another material; the
    picture gets another style, season or time of day.

    A rule is drawn for each caption; where it does not apply the next one is.

    Args:
        sources, seed, part, parts: As for :class:`vpd.data.edit_texts.CaptionTriplets`.
        rules: Names of :data:`RULES` to draw from.

    Raises:
        ValueError: No rule, or one that there is not.

    Example:
        >>> rules = RuleTriplets(["A dog on a bench"], rules=["replace"])
        >>> [(t.edit, t.output) for t in rules.triplets()]
        [('replace the bench with a sofa', 'A dog on a sofa')]
    """

    def __init__(
        self,
        sources: Iterable[Source | str],
        *,
        rules: Iterable[str] | None = None,
        seed: int = 0,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        super().__init__(sources, seed=seed, part=part, parts=parts)
        self.rules = tuple(RULES if rules is None else rules)
        unknown = [rule for rule in self.rules if rule not in RULES]
        if unknown or not self.rules:
            raise ValueError(
                f"RuleTriplets: rules must be some of {', '.join(RULES)}, got {list(self.rules)}"
            )

    def propose(self, source: Source, rng: RandomSource) -> Triplet | None:
        """See :class:`vpd.data.edit_texts.CaptionTriplets`."""
        caption = " ".join(source.caption.split())
        for name in dice.sample(rng, self.rules, len(self.rules)):
            change = RULES[name](caption, rng)
            if change is not None:
                return Triplet(source.caption, *change, source.url)
        return None


def _replace(caption: str, rng: RandomSource) -> Change | None:
    """Another thing of the same kind: "replace the cat with a dog"."""
    found = _one_of(caption, rng)
    if found is None:
        return None
    word, base = found
    many = word != base
    other = dice.choice(rng, [one for one in _OTHER[base] if one != base])
    new = _plural(other) if many else other
    named = new if many else _a(other)
    verb, link = dice.choice(rng, (("replace", "with"), ("turn", "into")))
    return f"{verb} the {word} {link} {named}", _swap(caption, word, new)


def _add(caption: str, rng: RandomSource) -> Change | None:
    """Something more: "add a rainbow"."""
    thing = dice.choice(rng, _ADDED)
    if thing.split()[-1] in caption.lower():
        return None
    body, end = _ending(caption)
    return f"add {thing}", f"{body} with {thing}{end}"


def _style(caption: str, rng: RandomSource) -> Change | None:
    """Another medium: "make it a mosaic"."""
    style = dice.choice(rng, _STYLES)
    shown = _MEDIUM.sub("", caption)
    if not shown or style.split(" ", 1)[1] in caption.lower():
        return None
    if shown == caption:  # it began with a word of the sentence
        shown = _lower_first(caption)
    upper = caption[:1].isupper()
    start = style[:1].upper() + style[1:] if upper else style
    return f"make it {style}", f"{start} of {shown}"


def _time(caption: str, rng: RandomSource) -> Change | None:
    """Another season, weather or time of day: "make it winter"."""
    time = dice.choice(rng, tuple(_TIMES))
    where = f"{_TIMES[time]} {time}"
    if re.search(rf"\b{time}\b", caption, re.IGNORECASE):
        return None
    edit = f"make it {time}" if _TIMES[time] != "in the" else f"add {time}"
    known = re.search(
        rf"\b(?:at|in|during)(?: the)? (?:{'|'.join(_TIMES)})\b", caption, re.IGNORECASE
    )
    if known:
        return edit, caption[: known.start()] + where + caption[known.end() :]
    body, end = _ending(caption)
    return edit, f"{body} {where}{end}"


def _material(caption: str, rng: RandomSource) -> Change | None:
    """Another material: "make the car out of wood"."""
    found = _one_of(caption, rng)
    if found is None:
        return None
    material = dice.choice(rng, tuple(_MATERIALS))
    adjective = _MATERIALS[material]
    words = caption.lower()
    if material in words or adjective in words:
        return None
    return (
        f"make the {found[0]} out of {material}",
        _swap(caption, found[0], f"{adjective} {found[0]}"),
    )


RULES: dict[str, Callable[[str, RandomSource], Change | None]] = {
    "replace": _replace,
    "add": _add,
    "style": _style,
    "time": _time,
    "material": _material,
}
"""From a caption to an instruction and the edited caption; None where the rule does not apply."""


def _one_of(caption: str, rng: RandomSource) -> tuple[str, str] | None:
    """A noun of the caption that has others of its kind, as it is written and as one of it.

    A word that occurs twice is left out: the instruction would not say which.
    """
    tagged = tag_words(caption)
    words = [word for word, _ in tagged]
    nouns = {_plural(base): base for base in _OTHER} | {base: base for base in _OTHER}
    found = [
        (word, nouns[word])
        for i, (word, tag) in enumerate(tagged)
        if tag.startswith("NN")
        and word in nouns
        and words.count(word) == 1
        # The first part of a compound is no thing of its own: "dog house".
        and not (i + 1 < len(tagged) and tagged[i + 1][1].startswith("NN"))
    ]
    return dice.choice(rng, found) if found else None


def _swap(caption: str, word: str, new: str) -> str:
    """The caption with a word replaced, and the article before it fitted."""
    pattern = rf"(?i)(?P<article>\ban?\s+)?\b(?P<word>{re.escape(word)})\b"

    def put(match: re.Match[str]) -> str:
        said = new[:1].upper() + new[1:] if match["word"][:1].isupper() else new
        article = match["article"]
        if article is None:
            return said
        fitted = _a(new).split()[0]
        return f"{fitted.capitalize() if article[0] == 'A' else fitted} {said}"

    return re.sub(pattern, put, caption, count=1)


def _plural(noun: str) -> str:
    return _IRREGULAR.get(noun) or with_s(noun)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _ending(caption: str) -> tuple[str, str]:
    """What comes before the last punctuation, and that."""
    body = caption.rstrip(".!? ")
    return body, caption[len(body) :].strip()


def _lower_first(caption: str) -> str:
    """Without the capital of a sentence; names and acronyms keep theirs."""
    first, _, rest = caption.partition(" ")
    known = first.lower() in ("a", "an", "the", "two", "three", "several", "some", "many")
    return f"{first.lower()} {rest}" if known else caption
