"""Captions and tags: what is in a picture, without saying where any mask is."""

from vpd.data.tabletop import dice
from vpd.data.tabletop.dice import RandomSource
from vpd.data.tabletop.phrases import (
    EXTREMES,
    RELATIONS,
    Labelled,
    holds,
    is_extreme,
    matching,
    phrase,
    random_attributes,
    with_article,
)
from vpd.data.tabletop.render import SceneObject
from vpd.data.tabletop.spec import COLORS, MATERIALS, SHAPES, SIZES, VISIBLE_PX

CAPTION_PX = 30  # objects with fewer visible pixels are not mentioned
# Single clauses keep short sentences in distribution; several teach the text to bind.
_CLAUSE_COUNTS = (1, 1, 2, 3, 3, 4, 4, 5, 5, 5)
_CHANCES = (0.5, 0.5, 0.95, 0.95)
_SUBJECT_CHANCES = (0.25, 0.25, 0.7, 0.8)
_LEFT, _RIGHT = -0.3, 0.3  # image x
_FRONT_M, _BACK_M = 3.45, 4.15  # depth; each side holds about 3 objects in 10

TAGS = (*SHAPES, *COLORS, *MATERIALS, *SIZES, *(f"{c} {s}" for c in COLORS for s in SHAPES))


def caption(scene: Labelled, rng: RandomSource, max_clauses: int = 5) -> str:
    """One random caption of 1 to `max_clauses` clauses joined by "and".

    A clause names an object ("a small red cube"), says where it is ("... on the left"), relates it
    to another ("a ball behind a red cube") or singles one out ("the leftmost cube is red"). All are
    true; places and relations hold by a margin. A scene without visible objects gives "".

    Raises:
        ValueError: if max_clauses < 1.
    """
    if max_clauses < 1:
        raise ValueError(f"max_clauses must be at least 1, got {max_clauses}")
    visible = [o for o in scene.objects if o.visible_px >= CAPTION_PX]
    count = min(dice.choice(rng, _CLAUSE_COUNTS), max_clauses)
    subjects = dice.sample(rng, visible, min(count, len(visible)))
    return " and ".join(_clause(rng, o, visible) for o in subjects)


def captions(scene: Labelled, rng: RandomSource, max_clauses: int = 5, count: int = 5) -> list[str]:
    """`count` captions drawn one after the other, as caption data sets keep several per image."""
    return [caption(scene, rng, max_clauses) for _ in range(count)]


def tags(scene: Labelled) -> list[str]:
    """The TAGS true of at least one visible object, in the order of TAGS."""
    true = set()
    for o in scene.objects:
        if o.visible_px >= VISIBLE_PX:
            true |= {o.shape, o.color, o.material, o.size, f"{o.color} {o.shape}"}
    return [tag for tag in TAGS if tag in true]


def _a(rng: RandomSource, o: SceneObject) -> str:
    """ "a small red cube", "an orange thing"."""
    return with_article(phrase(rng, o, random_attributes(rng, _CHANCES)))


def _clause(rng: RandomSource, o: SceneObject, visible: list[SceneObject]) -> str:
    draw = rng.random()
    others = [v for v in visible if v is not o]
    if draw >= 0.25 and others:
        if draw < 0.5:
            return f"{_a(rng, o)} {_place(rng, o)}"
        if draw < 0.8:
            other = dice.choice(rng, others)
            true = [r for r in RELATIONS if holds(r, o, other)]
            if true:
                return f"{_a(rng, o)} {dice.choice(rng, true)} {_a(rng, other)}"
        else:
            statement = _extreme_clause(rng, o, visible)
            if statement is not None:
                return statement
    return _a(rng, o)


def _place(rng: RandomSource, o: SceneObject) -> str:
    across = "on the left" if o.u < _LEFT else "on the right" if o.u > _RIGHT else "in the middle"
    along = (
        "at the front" if o.z < _FRONT_M else "at the back" if o.z > _BACK_M else "in the middle"
    )
    return dice.choice(rng, (across, along))


def _extreme_clause(rng: RandomSource, o: SceneObject, visible: list[SceneObject]) -> str | None:
    """ "the leftmost cube is red": about the extreme one of the objects that are like o."""
    named = random_attributes(rng, _SUBJECT_CHANCES)
    group = matching(visible, o, named)
    word = dice.choice(rng, tuple(EXTREMES))
    best = next((b for b in group if is_extreme(word, b, group)), None)
    if best is None or len(group) < 2:
        return None
    open_attributes = [a for a in ("size", "material", "color") if a not in named] or ["color"]
    said = getattr(best, dice.choice(rng, open_attributes))
    return f"the {word} {phrase(rng, best, named)} is {said}"
