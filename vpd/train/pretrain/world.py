"""Tabletop as pre-training sees it: pictures and captions, never a mask."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from vpd.data import tabletop
from vpd.tokens import tokenize

_CHUNK = 500


@lru_cache
def vocabulary() -> tuple[int, ...]:
    """Sorted token ids that Tabletop's sentences are made of, start and end included."""
    ids = tokenize([f"a {word}" for word in tabletop.WORDS], length=16).ids
    return tuple(sorted(set(ids.flatten().tolist())))


def _captions_of(job: tuple[tabletop.TabletopSplit, int, int, int, int]) -> np.ndarray:
    torch.set_num_threads(1)
    split, first, count, per_scene, length = job
    rows = []
    for index in range(first, first + count):
        rng = random.Random(13 * split.seeds[index] + 5)
        rows += tabletop.captions(split.scene(index), rng, count=per_scene)
    return tokenize(rows, length=length).ids.to(torch.int32).view(count, per_scene, length).numpy()


def caption_bank(
    split: tabletop.TabletopSplit, per_scene: int, length: int, workers: int | None = None
) -> Tensor:
    """Draws and tokenises captions for every scene of a split, in parallel; the same for the same
    scenes.

    Returns:
        int32 [N, per_scene, length].
    """
    total = len(split)
    jobs = [
        (split, first, min(_CHUNK, total - first), per_scene, length)
        for first in range(0, total, _CHUNK)
    ]
    workers = workers or len(os.sched_getaffinity(0))
    if workers == 1 or len(jobs) == 1:
        parts = [_captions_of(job) for job in jobs]
    else:
        import multiprocessing

        # Not fork: the parent's OpenMP threads would not survive it.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            parts = list(pool.map(_captions_of, jobs))
    return torch.from_numpy(np.concatenate(parts))


def images_tensor(split: tabletop.TabletopSplit, rows: Sequence[int] | slice) -> Tensor:
    """Pictures of some scenes as the networks see them: float32 [n, 3, 128, 128] in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(split.images[rows]))
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)
