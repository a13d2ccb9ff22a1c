"""Vocabularies on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vpd.cli.models import DType
    from vpd.tasks.open_panoptic import OpenPanopticSegmenter
    from vpd.tasks.panoptic_results import PanopticResult
    from vpd.vocabulary import Vocabulary

__all__ = ["VOCABULARY", "is_open", "open_asker", "open_model", "vocabulary_of"]

VOCABULARY = ("vocabulary", "caption", "label_sets", "stuff")
"""Options that say what to look for."""


def is_open(model: str | None, given: dict[str, Any]) -> bool:
    """Whether a panoptic model, or the default one, is one of open vocabulary."""
    from vpd.tasks.store import task_of

    if given["weights"]:
        return True
    if model is not None:
        return task_of(model) == "open-panoptic"
    return any(given[name] is not None for name in VOCABULARY)


def vocabulary_of(
    vocabulary: str | None = None,
    caption: str | None = None,
    label_sets: Sequence[str] | None = None,
    stuff: str | None = None,
) -> Vocabulary | None:
    """What options ask for: what is typed, the nouns of a caption, label sets behind them.

    Args:
        vocabulary: Typed, or a label set: its name or its file.
        caption: Its noun phrases are categories.
        label_sets: Names or files.
        stuff: Names of categories that are stuff.

    Returns:
        None if nothing is asked for.

    Raises:
        OSError, ValueError: As :class:`vpd.Vocabulary` has them; ``stuff`` without categories.
    """
    from vpd.vocabulary import LABEL_SETS, Vocabulary

    parts = []
    if vocabulary is not None:
        known = vocabulary in LABEL_SETS or Path(vocabulary).is_file()
        parts.append(Vocabulary.named(vocabulary) if known else Vocabulary.parse(vocabulary))
    if caption is not None:
        parts.append(Vocabulary.of_caption(caption))
    parts += [Vocabulary.named(name) for name in label_sets or ()]
    if not parts:
        if stuff is not None:
            raise ValueError("stuff needs categories: a vocabulary, a caption or label sets")
        return None
    found = reduce(add, parts)
    return found if stuff is None else found.with_stuff(stuff)


def open_model(
    model: str, weights: Sequence[Path] | None, device: str, dtype: DType
) -> OpenPanopticSegmenter:
    """An open-vocabulary segmenter: by name, from a folder, or built from weights of others."""
    import cv2
    import torch

    from vpd.cli.models import device_of
    from vpd.tasks import sources, store
    from vpd.tasks.open_panoptic import OpenPanopticSegmenter

    # Of a picture that it cannot decode, OpenCV warns on its own; the error that follows says it.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    where, kind = device_of(device), getattr(torch, dtype)
    if weights:
        return sources.build_open_panoptic(weights).to(device=where, dtype=kind)
    found = store.load(model, device=where, dtype=kind)
    if not isinstance(found, OpenPanopticSegmenter):
        raise ValueError(
            f"expected an open-vocabulary segmenter, got {model}: a {type(found).__name__}"
        )
    return found


def open_asker(
    model: str | None, given: dict[str, Any], device: str, dtype: DType, options: dict[str, Any]
) -> Callable[[Any], PanopticResult]:
    """Predicts one picture.

    Args:
        model: A name or a folder; the shipped one if None.
        given: Options of `vpd predict`.
        options: Of the model's call.
    """
    from vpd.cli.models import DEFAULTS

    if given["text"] is not None:
        raise ValueError(
            f"an open-vocabulary model takes no text but a vocabulary, got {given['text']!r}"
        )
    wanted = vocabulary_of(**{name: given[name] for name in VOCABULARY})
    network = open_model(model or DEFAULTS["open-panoptic"], given["weights"], device, dtype)
    sought = network.sought(wanted)
    return lambda image: network.panoptic(image, sought, **options)
