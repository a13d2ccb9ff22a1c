"""The words of Tabletop's sentences, and the facts they state about objects.

A head phrase is a list of attributes in a fixed order ("small striped red cube"); it matches the
objects that agree in all of them. Places and relations compare image x (`u`) and depth (`z`) and
hold only by a margin, so that no sentence hangs on a pixel.
"""

from collections.abc import Sequence
from typing import Protocol

from vpd.data.tabletop import dice
from vpd.data.tabletop.dice import RandomSource
from vpd.data.tabletop.render import SceneObject
from vpd.data.tabletop.spec import COLORS, MATERIALS, SHAPES, SIZES

ATTRIBUTES = ("size", "material", "color", "shape")  # in the order of their words
NOUNS = {
    **{shape: (shape,) for shape in SHAPES},
    "ball": ("ball", "sphere"),
    "cube": ("cube", "block"),
    "ring": ("ring", "torus"),
}
ANY_NOUN = ("object", "thing")
EXTREMES = {
    "leftmost": ("u", 1),
    "rightmost": ("u", -1),
    "closest": ("z", 1),
    "farthest": ("z", -1),
}
SIDES = {
    "leftmost": "on the left",
    "rightmost": "on the right",
    "closest": "at the front",
    "farthest": "at the back",
}
RELATIONS = {
    "left of": ("u", 1),
    "right of": ("u", -1),
    "in front of": ("z", 1),
    "behind": ("z", -1),
}
OPPOSITE = {
    "left of": "right of",
    "right of": "left of",
    "in front of": "behind",
    "behind": "in front of",
}
PLACE_MARGIN = {"u": 0.10, "z": 0.13}  # image x (the picture is 2 wide); metres
RELATION_MARGIN = {"u": 0.16, "z": 0.22}

_GLUE = "a an the and is on at in the middle of left right front back behind"
WORDS = tuple(
    dict.fromkeys(
        [
            *_GLUE.split(),
            *EXTREMES,
            *ANY_NOUN,
            *(noun for nouns in NOUNS.values() for noun in nouns),
            *COLORS,
            *MATERIALS,
            *SIZES,
        ]
    )
)

_MEANING = {
    **{word: ("size", word) for word in SIZES},
    **{word: ("material", word) for word in MATERIALS},
    **{word: ("color", word) for word in COLORS},
    **{noun: ("shape", shape) for shape, nouns in NOUNS.items() for noun in nouns},
}


class Labelled(Protocol):
    """Anything that knows its objects: a rendered scene, or a scene of a loaded split."""

    @property
    def objects(self) -> tuple[SceneObject, ...]: ...


def random_attributes(rng: RandomSource, chances: tuple[float, ...]) -> tuple[str, ...]:
    """Attributes to name, each with its chance (in ATTRIBUTES order); colour or shape is one."""
    while True:
        names = tuple(a for a, p in zip(ATTRIBUTES, chances, strict=True) if rng.random() < p)
        if "color" in names or "shape" in names:
            return names


def phrase(rng: RandomSource, target: SceneObject, attributes: Sequence[str]) -> str:
    """The words for some attributes of an object, ending in a noun: "small red block"."""
    words = [getattr(target, a) for a in ATTRIBUTES[:3] if a in attributes]
    nouns = NOUNS[target.shape] if "shape" in attributes else ANY_NOUN
    return " ".join([*words, dice.choice(rng, nouns)])


def with_article(words: str) -> str:
    """ "a small red cube", "an orange thing"."""
    return f"an {words}" if words.startswith("o") else f"a {words}"  # orange, object


def matching(
    objects: Sequence[SceneObject], like: SceneObject, attributes: Sequence[str]
) -> list[SceneObject]:
    """The objects that share these attributes with `like`."""
    return [o for o in objects if all(getattr(o, a) == getattr(like, a) for a in attributes)]


def holds(relation: str, a: SceneObject, b: SceneObject) -> bool:
    """Whether "a <relation> b" is true by the margin."""
    axis, sign = RELATIONS[relation]
    return sign * (getattr(b, axis) - getattr(a, axis)) > RELATION_MARGIN[axis]


def is_extreme(word: str, target: SceneObject, others: Sequence[SceneObject]) -> bool:
    """Whether the target is leftmost / ... by the margin among the others (itself not counted)."""
    axis, sign = EXTREMES[word]
    value, margin = getattr(target, axis), PLACE_MARGIN[axis]
    return all(sign * (getattr(o, axis) - value) > margin for o in others if o is not target)


def head_attributes(text: str) -> dict[str, str]:
    """What a referring sentence says about its target alone, place and relation words left out.

    "the small red block behind the ring" -> {"size": "small", "color": "red", "shape": "cube"}.

    Raises:
        ValueError: if the sentence is not of this grammar.
    """
    found: dict[str, str] = {}
    for word in text.split():
        if word in _MEANING:
            attribute, value = _MEANING[word]
            found[attribute] = value
        if word in ANY_NOUN or (word in _MEANING and _MEANING[word][0] == "shape"):
            return found  # the noun ends the head phrase
        if word not in _MEANING and word != "the" and word not in EXTREMES:
            break
    raise ValueError(f"expected a Tabletop referring sentence, got {text!r}")
