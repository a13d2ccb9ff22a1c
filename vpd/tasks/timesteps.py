"""One model under many noise protocols: what does it know at timestep t?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vpd.models.unet import UNetOutput
from vpd.protocol import NoiseSpec
from vpd.tasks.evaluation import Evaluation, scored, under
from vpd.tasks.passes import Pass, Passes
from vpd.tasks.refer import ReferSegmenter
from vpd.tasks.refer_scores import Scores
from vpd.tasks.samples import SamplePicture, check_counts, groups, refer_samples
from vpd.tasks.shares import Group, own_part, speaks, together

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
    group: Group = None,
) -> list[Evaluation]:
    """Scores a model under several noise protocols, usually one at several timesteps, in one pass
    over the pictures.

    The scores are those of one :func:`vpd.tasks.evaluate.evaluate_refer` under each protocol, at a
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
        group: Who shares the work (:mod:`vpd.tasks.shares`), such as processes of
            ``torch.distributed``: each reads and scores some of the pictures, in the passes that
            one process would make, and all return the scores of all. Every one calls this with the
            same arguments.

    Returns:
        One evaluation per protocol, in order. ``seconds_per_image`` is an equal share of the time
        that all took together.

    Raises:
        ValueError: No protocol, the same twice, or ``batch`` or ``limit`` below 1.
    """
    from tqdm import tqdm

    noises = list(noises)
    if not noises or len(set(noises)) < len(noises):
        raise ValueError(f"expected noise protocols, each once, got {len(noises)}: {noises}")
    check_counts(batch=batch, limit=limit)
    source = refer_samples(samples)
    own = own_part(groups(source, batch, limit), group)
    twins = [under(model, noise) for noise in noises]
    scores, blind = [Scores() for _ in twins], [Scores() for _ in twins]
    passes = Passes(model, [twin.config.noises for twin in twins], batch)
    training, seconds = model.training, 0.0
    model.eval()
    try:
        with tqdm(
            total=sum(map(len, own)),
            desc=f"{source.name} {source.split}" + f", {len(twins)} protocols" * (len(twins) > 1),
            unit="image",
            disable=not progress or not speaks(group),
        ) as bar:
            for places in own:
                pictures = [source[place] for place in places]
                found, empty = [Scores() for _ in twins], [Scores() for _ in twins]
                start = time.perf_counter()
                for one in passes(pictures, blind=text_blind):
                    out = model.attend(one.latents, one.context, one.index, one.timesteps)
                    logits = _object_logits(model, out)
                    seconds += time.perf_counter() - start
                    _score(found, empty, pictures, one, logits)
                    start = time.perf_counter()
                # As one number each, so that sums are the same wherever a group was scored.
                for total, more in zip([*scores, *blind], [*found, *empty], strict=True):
                    total.merge(more)
                bar.update(len(pictures))
    finally:
        model.train(training)
    every, seconds = together([*scores, *blind], seconds, group)
    scores, blind = every[: len(twins)], every[len(twins) :]
    share = seconds / len(twins)
    return [
        scored(twin, source, found, empty if text_blind else None, limit, share)
        for twin, found, empty in zip(twins, scores, blind, strict=True)
    ]


def _object_logits(model: ReferSegmenter, out: UNetOutput) -> Tensor:
    """Object minus background at the model's input size, float32 [B, H, W] on the CPU."""
    size = model.config.image_size
    scores = model.decode(out, (size, size)).float()
    return (scores[:, 1] - scores[:, 0]).cpu()


def _score(
    scores: list[Scores],
    blind: list[Scores],
    pictures: list[SamplePicture],
    one: Pass,
    logits: Tensor,
) -> None:
    for row, own in zip(one.rows, logits, strict=True):
        asked = pictures[row.image].questions
        if row.question < len(asked):
            scores[row.protocol].score(pictures, [(row.image, asked[row.question])], own[None])
        else:  # the empty sentence's mask stands for every question
            every = [(row.image, question) for question in asked]
            blind[row.protocol].score(pictures, every, own.expand(len(asked), -1, -1))
