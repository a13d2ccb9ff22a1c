"""Referring sentences that pick exactly one object, by attribute, by place or by relation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vpd.data.tabletop import dice
from vpd.data.tabletop.dice import RandomSource
from vpd.data.tabletop.phrases import (
    EXTREMES,
    OPPOSITE,
    RELATIONS,
    SIDES,
    Labelled,
    head_attributes,
    holds,
    is_extreme,
    matching,
    phrase,
    random_attributes,
)
from vpd.data.tabletop.render import SceneObject
from vpd.data.tabletop.spec import TARGET_PX, VISIBLE_PX

KINDS = ("attribute", "place", "relation")
_TRIES_PER_KIND = 8
_TRIES_PER_TARGET = 25
_TARGET_CHANCES = (0.25, 0.25, 0.7, 0.8)
_LANDMARK_CHANCES = (0.15, 0.15, 0.75, 0.85)


@dataclass(frozen=True)
class Expression:
    """A sentence and the object it picks.

    Attributes:
        text: lower-case words without punctuation.
        kind: one of KINDS.
        target: position in `scene.objects`; the instance map holds target + 1.
    """

    text: str
    kind: str
    target: int


def expressions(
    scene: Labelled, rng: RandomSource, per_kind: int = 1, kinds: Sequence[str] = KINDS
) -> list[Expression]:
    """Up to `per_kind` different sentences of each kind; fewer where a scene does not allow them.

    Each target has at least 60 visible pixels and a visible distractor of its shape or colour. A
    sentence of kind place or relation has a head phrase that fits two objects or more.
    """
    seen = [o for o in scene.objects if o.visible_px > 0]
    targets = [i for i, o in enumerate(scene.objects) if o.visible_px >= TARGET_PX]
    found: list[Expression] = []
    for kind in kinds:
        texts: set[str] = set()
        for _ in range(_TRIES_PER_KIND):
            if len(texts) >= per_kind or not targets:
                break
            target = dice.choice(rng, targets)
            text = _refer(rng, seen, scene.objects[target], kind)
            if text is not None and text not in texts:
                texts.add(text)
                found.append(Expression(text, kind, target))
    return found


def _distractors(group: Sequence[SceneObject], target: SceneObject) -> int:
    """How many others a person would notice; a hidden sliver does not make a sentence harder."""
    return sum(o is not target and o.visible_px >= VISIBLE_PX for o in group)


def _refer(
    rng: RandomSource, seen: list[SceneObject], target: SceneObject, kind: str
) -> str | None:
    """A sentence for the target, or None after too many tries.

    `seen` holds every object with a visible pixel: all of them can make a sentence ambiguous.
    """
    alike = [o for o in seen if o.shape == target.shape or o.color == target.color]
    if not _distractors(alike, target):
        return None
    for _ in range(_TRIES_PER_TARGET):
        attributes = random_attributes(rng, _TARGET_CHANCES)
        group = matching(seen, target, attributes)
        text = None
        if kind == "attribute":
            if len(group) == 1:
                text = f"the {phrase(rng, target, attributes)}"
        elif _distractors(group, target):
            head = phrase(rng, target, attributes)
            by = _by_place if kind == "place" else _by_relation
            text = by(rng, seen, target, group, head)
        if text is not None:
            return text
    return None


def _by_place(
    rng: RandomSource,
    seen: list[SceneObject],
    target: SceneObject,
    group: list[SceneObject],
    head: str,
) -> str | None:
    word = dice.choice(rng, tuple(EXTREMES))
    if not is_extreme(word, target, group):
        return None
    return dice.choice(
        rng, (f"the {word} {head}", f"the {word} {head}", f"the {head} {SIDES[word]}")
    )


def _by_relation(
    rng: RandomSource,
    seen: list[SceneObject],
    target: SceneObject,
    group: list[SceneObject],
    head: str,
) -> str | None:
    landmark = dice.choice(rng, seen)
    attributes = random_attributes(rng, _LANDMARK_CHANCES)
    relation = dice.choice(rng, tuple(RELATIONS))
    if landmark is target or landmark.visible_px < VISIBLE_PX:
        return None
    if len(matching(seen, landmark, attributes)) != 1 or not holds(relation, target, landmark):
        return None
    rivals = (o for o in group if o is not target and o is not landmark)
    if not all(holds(OPPOSITE[relation], o, landmark) for o in rivals):
        return None
    return f"the {head} {relation} the {phrase(rng, landmark, attributes)}"


def floors(
    scenes: Iterable[Labelled], sentences: Iterable[Sequence[Expression]]
) -> dict[str, float]:
    """Scores (0-1) of perfect masks on objects picked without reading the whole sentence.

    A model that does not beat `head` need not have read a place or relation word.

    Args:
        scenes: scenes with their objects.
        sentences: the expressions of each scene, in the same order.

    Returns:
        `random`: any visible object; `head` and `head/<kind>`: any object that fits the head
        phrase; `head/mean_of_kinds`: mean over the kinds present.

    Raises:
        ValueError: if there is no sentence at all.
    """
    random_hits: list[float] = []
    head_hits: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for scene, spoken in zip(scenes, sentences, strict=True):
        visible = [o for o in scene.objects if o.visible_px >= VISIBLE_PX]
        for e in spoken:
            said = head_attributes(e.text)
            fitting = [o for o in visible if all(getattr(o, a) == v for a, v in said.items())]
            random_hits.append(1 / len(visible))
            head_hits[e.kind].append(1 / len(fitting))
    if not random_hits:
        raise ValueError("floors need at least one sentence, got none")
    by_kind = {f"head/{k}": sum(h) / len(h) for k, h in head_hits.items() if h}
    every = [hit for hits in head_hits.values() for hit in hits]
    return {
        "random": sum(random_hits) / len(random_hits),
        "head": sum(every) / len(every),
        **by_kind,
        "head/mean_of_kinds": sum(by_kind.values()) / len(by_kind),
    }
