"""The captions of the pictures that an open-vocabulary model learns words from."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

__all__ = ["captions_of"]


def captions_of(samples: Any, path: str | None = None) -> Callable[[int], Sequence[str]]:
    """From the number of a picture to its captions, always the same.

    Args:
        samples: A data set's.
        path: JSON file by picture (:func:`vpd.tags.cached.read_captions`). None: five captions of
            each rendered scene of Tabletop.

    Raises:
        OSError: A file that cannot be opened. ValueError: It holds something else; and, when asked
            for, a picture without captions in it.
    """
    if path is None:
        return cache(lambda picture: _rendered(samples[picture]))
    from vpd.tags.cached import read_captions

    table = read_captions(path)

    def said(picture: int) -> Sequence[str]:
        found = table.of(samples[picture])
        if not found:
            raise ValueError(f"{path}: expected a caption of {samples[picture].id}, got none")
        return found

    return said


def _rendered(sample: Any) -> list[str]:
    from vpd.data import tabletop

    scene = sample.source.scene(sample.index)
    return tabletop.captions(scene, random.Random(f"captions of {scene.spec.seed}"))
