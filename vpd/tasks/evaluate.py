"""Scores a referring segmenter: every sentence of every picture, masks compared at the model's
input size."""

from __future__ import annotations

from typing import Any

from vpd.tasks.evaluation import COLUMNS, Evaluation, preset_name, under
from vpd.tasks.refer import ReferSegmenter
from vpd.tasks.shares import Group
from vpd.tasks.timesteps import evaluate_timesteps

__all__ = ["COLUMNS", "Evaluation", "evaluate_refer", "preset_name", "under"]


def evaluate_refer(
    model: ReferSegmenter,
    samples: Any,
    *,
    batch: int = 16,
    text_blind: bool = False,
    limit: int | None = None,
    progress: bool = True,
    group: Group = None,
) -> Evaluation:
    """Scores every (object, sentence) pair of a split under the model's own noise protocol
    (specification of LAVT and VPD: see :mod:`vpd.metrics`).

    Predictions are arg-max masks at the model's input size; true masks are resized to it (nearest).
    Each picture is encoded once, each distinct sentence too; the sentences of several pictures
    share a pass of the U-Net.

    Args:
        model: Any referring segmenter.
        samples: A :class:`vpd.data.ReferDataset`, or a Tabletop split of
            ``vpd.data.tabletop.load_split``.
        batch: Sentences per pass.
        text_blind: Score the empty sentence too: what the model does without reading
            (``text_blind/...``).
        limit: Only the first so many pictures.
        progress: Show a bar.
        group: Who shares the work: see :func:`vpd.tasks.timesteps.evaluate_timesteps`.

    Raises:
        ValueError: ``batch`` or ``limit`` below 1.
    """
    (found,) = evaluate_timesteps(
        model,
        samples,
        [model.config.noise],
        batch=batch,
        text_blind=text_blind,
        limit=limit,
        progress=progress,
        group=group,
    )
    return found
