"""Tabletop's true tags, and what a tagger that errs as often as asked would say."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from vpd.data import tabletop
from vpd.data.tabletop.phrases import Labelled
from vpd.tags.tag_set import TagSet
from vpd.tags.tagger import Tag, Tagger, picture_name

__all__ = ["TabletopTagger"]


class TabletopTagger(Tagger):
    """The true tags of a Tabletop scene, some of them missed, some false ones added.

    Errors depend on the seed, the scene and the tag alone. A higher rate makes the same ones and
    others.

    Args:
        vocabulary: Of :data:`vpd.data.tabletop.TAGS`.
        miss: Chance in [0, 1] that a true tag is not said.
        false_alarm: Chance in [0, 1] that a tag which is not true is said.
        seed: Of the errors.

    Raises:
        ValueError: A chance out of range, or a word that is no tag of Tabletop.
    """

    def __init__(
        self,
        vocabulary: Sequence[str] = tabletop.TAGS,
        *,
        miss: float = 0.0,
        false_alarm: float = 0.0,
        seed: int = 0,
    ) -> None:
        for name, chance in (("miss", miss), ("false_alarm", false_alarm)):
            if not 0 <= chance <= 1:
                raise ValueError(f"TabletopTagger: {name} must be in [0, 1], got {chance}")
        self.tag_set = TagSet(tabletop.TAGS).subset(vocabulary)
        self.miss, self.false_alarm, self.seed = miss, false_alarm, seed

    def truth(self, picture: Any) -> list[str]:
        """The true tags, in the order of the vocabulary.

        Args:
            picture: As for :meth:`tags`.
        """
        _, scene = _scene(picture)
        true = set(tabletop.tags(scene))
        return [name for name in self.tag_set.names if name in true]

    def tags(self, picture: Any) -> list[Tag]:
        """See :meth:`Tagger.tags`; each tag with a score of 1.

        Args:
            picture: A sample of :func:`vpd.data.tabletop.semantic` or ``depth``; a scene; or the
                name of a file, or an id, that ends in the number of the scene, as those of ``vpd
                data make tabletop`` do.

        Raises:
            ValueError: A name without a number. TypeError: Pixels alone.
        """
        number, scene = _scene(picture)
        true = set(tabletop.tags(scene))
        said = []
        for name in self.tag_set.names:
            draw = random.Random(f"{self.seed}/{number}/{name}").random()
            if draw >= self.miss if name in true else draw < self.false_alarm:
                said.append((name, 1.0))
        return said


def _scene(picture: Any) -> tuple[int, Labelled]:
    """The number of a scene and its objects."""
    if hasattr(picture, "source") and hasattr(picture, "index"):
        scene = picture.source.scene(picture.index)
        return scene.spec.seed, scene
    if hasattr(picture, "spec") and hasattr(picture, "objects"):
        return picture.spec.seed, picture
    name = picture_name(picture)
    digits = re.search(r"(\d+)$", PurePath(name).stem)
    if digits is None:
        raise ValueError(f"expected a name that ends in the number of a scene, got {name!r}")
    number = int(digits.group(1))
    return number, tabletop.render(number)
