"""One model under many noise protocols: what does it know at timestep t?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vpd.protocol import NoiseSpec
from vpd.tasks.evaluate import Evaluation, evaluate_refer, object_logits, scored, under
from vpd.tasks.passes import Pass, Passes
from vpd.tasks.refer import ReferSegmenter
from vpd.tasks.refer_scores import Scores
from vpd.tasks.samples import SamplePicture, check_counts, first, groups, refer_samples

__all__ = ["STEPS", "evaluate_timesteps"]

STEPS = (0, 5, 100, 200, 500)
"""Of the published study."""


@torch.inference_mode()
def evaluate_timesteps(
    model: ReferSegmenter,
    samples: Any,
    noises: Sequence[NoiseSpec],
    *,
    batch: int = 16,
    text_blind: bool = False,
    limit: int | None = None,
    progress: bool = True,
) -> list[Evaluation]:
    """Scores a model under several noise protocols, usually one at several timesteps, in one pass
    over the pictures.

    The scores are those of :func:`vpd.tasks.evaluate.evaluate_refer` under each protocol, at a
    fraction of the time: a picture is encoded once (once per timestep under noise on its pixels),
    each distinct sentence once for the whole split, and what precedes the text in the U-Net runs
    once per picture and timestep (:mod:`vpd.tasks.passes`). Noise is paired: a picture meets the
    same at every timestep.

    Args:
        model: Any referring segmenter.
        samples: A :class:`vpd.data.ReferDataset`, or a Tabletop split of
            ``vpd.data.tabletop.load_split``.
        noises: Protocols, such as ``[at_timestep("latent_match", t, model.config.noise) for t in
            STEPS]`` (:func:`vpd.tasks.maps.at_timestep`).
        batch: Rows (sentence and timestep) per pass.
        text_blind: Score the empty sentence too (``text_blind/...``).
        limit: Only the first so many pictures.
        progress: Show a bar.

    Returns:
        One evaluation per protocol, in order. ``seconds_per_image`` is an equal share of the time
        that all took together. A model with an ``attn_t_ensemble``, which runs its U-Net at several
        timesteps under each protocol already, is scored under one after the other.

    Raises:
        ValueError: No protocol, the same twice, or ``batch`` or ``limit`` below 1.
    """
    from tqdm import tqdm

    noises = list(noises)
    if not noises or len(set(noises)) < len(noises):
        raise ValueError(f"expected noise protocols, each once, got {len(noises)}: {noises}")
    check_counts(batch=batch, limit=limit)
    source = refer_samples(samples)
    if model.config.attn_t_ensemble:
        return [
            evaluate_refer(
                under(model, noise), source,
                batch=batch, text_blind=text_blind, limit=limit, progress=progress,
            )
            for noise in noises
        ]  # fmt: skip
    scores, blind = [Scores() for _ in noises], [Scores() for _ in noises]
    passes = Passes(model, noises, batch)
    training, seconds = model.training, 0.0
    model.eval()
    try:
        with tqdm(
            total=min(len(source), limit or len(source)),
            desc=f"{source.name} {source.split}, {len(noises)} protocols",
            unit="image",
            disable=not progress,
        ) as bar:
            for group in groups(first(source, limit), batch):
                start = time.perf_counter()
                for one in passes(group, blind=text_blind):
                    out = model.attend(one.latents, one.context, one.index, one.timesteps)
                    logits = object_logits(model, out)
                    seconds += time.perf_counter() - start
                    _score(scores, blind, group, one, logits)
                    start = time.perf_counter()
                bar.update(len(group))
    finally:
        model.train(training)
    share = seconds / len(noises)
    return [
        scored(under(model, noise), source, own, empty if text_blind else None, limit, share)
        for noise, own, empty in zip(noises, scores, blind, strict=True)
    ]


def _score(
    scores: list[Scores],
    blind: list[Scores],
    group: list[SamplePicture],
    one: Pass,
    logits: Tensor,
) -> None:
    for row, own in zip(one.rows, logits, strict=True):
        asked = group[row.image].questions
        if row.question < len(asked):
            scores[row.noise].score(group, [(row.image, asked[row.question])], own[None])
        else:  # the empty sentence's mask stands for every question
            every = [(row.image, question) for question in asked]
            blind[row.noise].score(group, every, own.expand(len(asked), -1, -1))
