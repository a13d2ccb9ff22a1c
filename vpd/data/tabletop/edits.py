"""Edits of scenes, with instructions: the edited picture is rendered, so it is known exactly.

One object is recoloured, removed, replaced by another shape, or made large or small; what the
instruction does not name stays as it is, light, textures and sensor noise included. Shadows and
what the object hid change with it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vpd.data.edit_files import EditPair
from vpd.data.tabletop import dice
from vpd.data.tabletop.captions import CAPTION_PX
from vpd.data.tabletop.dice import RandomSource
from vpd.data.tabletop.expressions import expressions
from vpd.data.tabletop.phrases import ATTRIBUTES, NOUNS, phrase, random_attributes, with_article
from vpd.data.tabletop.render import Scene, SceneObject, render
from vpd.data.tabletop.sampling import RADIUS_M, SPACING
from vpd.data.tabletop.spec import COLORS, SHAPES, SIZES, VERSION, ObjectSpec, SceneSpec
from vpd.data.tabletop.splits import TabletopSplit
from vpd.data.triplets import Triplet

__all__ = ["EDIT_KINDS", "EDIT_WORDS", "SceneEdit", "TabletopEdits", "edit_scene", "edits"]

EDIT_KINDS = ("recolor", "remove", "replace", "resize")
EDIT_WORDS = ("make", "turn", "remove", "take", "away", "replace", "with", "into")
"""What instructions need beyond the words of `vpd.data.tabletop.WORDS`."""
_CHANCES = (0.5, 0.5, 0.95, 0.95)  # of attributes in captions


class Described(Protocol):
    """A scene with its objects: rendered, or of a loaded split."""

    @property
    def spec(self) -> SceneSpec: ...
    @property
    def objects(self) -> tuple[SceneObject, ...]: ...


@dataclass(frozen=True, eq=False)
class SceneEdit:
    """An edit of a scene.

    Attributes:
        kind: one of EDIT_KINDS.
        target: position of the edited object in the scene before.
        triplet: captions of both pictures, which mention the object, and the instruction, which
            picks it by its attributes alone (so pictures and pairs may be mirrored).
        after: the edited scene, rendered; of a removal it lacks the object.
    """

    kind: str
    target: int
    triplet: Triplet
    after: Scene

    def mask(self, instance: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Where the edited object is in either picture, bool [128, 128].

        Args:
            instance: uint8 [128, 128], the scene's before.
        """
        before = instance == self.target + 1
        if self.kind == "remove":
            return before
        return before | (self.after.instance == self.target + 1)


@dataclass(frozen=True)
class _Change:
    """The object afterwards (None: gone), the attributes that differ, and the instruction."""

    object: ObjectSpec | None
    attributes: tuple[str, ...]
    instruction: str


def edit_scene(scene: Described, rng: RandomSource) -> SceneEdit | None:
    """A random edit, all kinds equally likely where they are possible.

    The object has at least 60 visible pixels and a visible distractor of its shape or colour, and
    stays in sight. It is made large only where its neighbours leave room.

    Returns:
        None where no object can be picked by its attributes.
    """
    spoken = expressions(scene, rng, kinds=("attribute",))
    if not spoken:
        return None
    target, text = spoken[0].target, spoken[0].text
    for kind in dice.sample(rng, EDIT_KINDS, len(EDIT_KINDS)):
        change = _CHANGES[kind](rng, scene.spec, target, text)
        if change is None:
            continue
        objects = list(scene.spec.objects)
        objects[target : target + 1] = [] if change.object is None else [change.object]
        after = render(replace(scene.spec, objects=tuple(objects)))
        captions = _captions(rng, scene, after, target, change)
        if captions is not None:
            triplet = Triplet(captions[0], change.instruction, captions[1])
            return SceneEdit(kind, target, triplet, after)
    return None


def _recolor(rng: RandomSource, spec: SceneSpec, target: int, text: str) -> _Change:
    o = spec.objects[target]
    color = dice.choice(rng, [c for c in COLORS if c != o.color])
    verb = dice.choice(rng, ("make", "turn"))
    return _Change(replace(o, color=color), ("color",), f"{verb} {text} {color}")


def _remove(rng: RandomSource, spec: SceneSpec, target: int, text: str) -> _Change:
    return _Change(None, (), f"{dice.choice(rng, ('remove', 'take away'))} {text}")


def _replace(rng: RandomSource, spec: SceneSpec, target: int, text: str) -> _Change:
    """By another shape, half of the time of another colour."""
    o = spec.objects[target]
    shape = dice.choice(rng, [s for s in SHAPES if s != o.shape])
    new = replace(o, shape=shape)
    words = dice.choice(rng, NOUNS[shape])
    changed: tuple[str, ...] = ("shape",)
    if rng.random() < 0.5:
        new = replace(new, color=dice.choice(rng, [c for c in COLORS if c != o.color]))
        words, changed = f"{new.color} {words}", ("color", "shape")
    verb, link = dice.choice(rng, (("replace", "with"), ("turn", "into")))
    return _Change(new, changed, f"{verb} {text} {link} {with_article(words)}")


def _resize(rng: RandomSource, spec: SceneSpec, target: int, text: str) -> _Change | None:
    """To the other size; None where it would run into a neighbour."""
    o = spec.objects[target]
    size = next(s for s in SIZES if s != o.size)
    new = replace(o, size=size, radius=o.radius * RADIUS_M[size] / RADIUS_M[o.size])
    if new.radius > o.radius and any(
        math.hypot(o.x - n.x, o.y - n.y) < SPACING * (new.radius + n.radius)
        for n in spec.objects
        if n is not o
    ):
        return None
    return _Change(new, ("size",), f"make {text} {size}")


_CHANGES: dict[str, Callable[[RandomSource, SceneSpec, int, str], _Change | None]] = {
    "recolor": _recolor,
    "remove": _remove,
    "replace": _replace,
    "resize": _resize,
}


def _captions(
    rng: RandomSource, scene: Described, after: Scene, target: int, change: _Change
) -> tuple[str, str] | None:
    """What both pictures show: the object (unless it is gone) and one or two others, in the same
    words where nothing changed. None if the object or all others are out of sight."""
    seen: list[SceneObject | None] = list(after.objects)
    if change.object is None:
        seen.insert(target, None)
    new = seen[target]
    others = [
        o
        for o, later in zip(scene.objects, seen, strict=True)
        if later is not None
        and o is not scene.objects[target]
        and min(o.visible_px, later.visible_px) >= CAPTION_PX
    ]
    if (new is None and not others) or (new is not None and new.visible_px < CAPTION_PX):
        return None
    count = min(dice.choice(rng, (1, 2, 2)), len(others))
    clauses = [
        with_article(phrase(rng, o, random_attributes(rng, _CHANCES)))
        for o in dice.sample(rng, others, count)
    ]
    old = scene.objects[target]
    said = {"shape", *change.attributes, *random_attributes(rng, _CHANCES)}
    attributes = tuple(a for a in ATTRIBUTES if a in said)
    place = dice.below(rng, count + 1)
    first = phrase(rng, old, attributes)
    before = " and ".join([*clauses[:place], with_article(first), *clauses[place:]])
    if new is None:
        return before, " and ".join(clauses)
    second = phrase(rng, new, attributes)
    if new.shape == old.shape:  # under the same name
        second = " ".join([*second.split()[:-1], first.split()[-1]])
    edited = " and ".join([*clauses[:place], with_article(second), *clauses[place:]])
    return before, edited


class TabletopEdits:
    """Edited pairs of a split's scenes; see `edits`."""

    def __init__(self, source: TabletopSplit, per_scene: int) -> None:
        self.source, self.per_scene = source, per_scene
        self._rows = [
            (i, number)
            for i, scene in enumerate(source)
            for number in range(per_scene)
            if expressions(scene, _dice(scene.spec, number), kinds=("attribute",))
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def id(self, index: int) -> str:
        """What `pair` calls a pair, without rendering it."""
        i, number = self._rows[index]
        return f"tabletop-{VERSION}/{self.source.seeds[i]}/{number}"

    def edit(self, index: int) -> SceneEdit:
        """The edit of a pair; renders its picture, some 15 ms."""
        i, number = self._rows[index]
        scene = self.source.scene(i)
        edit = edit_scene(scene, _dice(scene.spec, number))
        assert edit is not None  # a recolouring is always possible
        return edit

    def triplet(self, index: int) -> Triplet:
        """The texts of a pair."""
        return self.edit(index).triplet

    def pair(self, index: int, generator: np.random.Generator | None = None) -> EditPair:
        """A pair with the region of its edit, as `vpd.data.EditDataset` gives pairs without; always
        the same, so the generator is not used."""
        i, _ = self._rows[index]
        edit = self.edit(index)
        return EditPair(
            self.id(index),
            edit.triplet,
            np.array(self.source.images[i]),
            edit.after.image,
            edit.mask(self.source.instances[i]),
        )

    def scene_seed(self, index: int) -> int:
        """The seed of a pair's scene."""
        return self.source.seeds[self._rows[index][0]]


def edits(source: TabletopSplit, per_scene: int = 1) -> TabletopEdits:
    """Edited pairs of the scenes of a split: `per_scene` of each scene that allows one.

    They depend on the scenes' seeds alone, so splits do not overlap, and a part of a split has the
    same ones as the whole.

    Raises:
        ValueError: per_scene < 1, or `pretrain`, whose scenes have captions only.
    """
    if per_scene < 1:
        raise ValueError(f"per_scene must be at least 1, got {per_scene}")
    if source.name == "pretrain":
        raise ValueError("the split 'pretrain' has captions only, no labels")
    return TabletopEdits(source, per_scene)


def _dice(spec: SceneSpec, number: int) -> random.Random:
    return random.Random(1_000 * spec.seed + 17 + number)
