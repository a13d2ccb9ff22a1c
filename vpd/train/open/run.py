"""Training of open-vocabulary panoptic segmentation under ODISE's recipe (Xu et al. 2023), with
category labels (section 3.3) or with captions (section 3.4)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from vpd.data.panoptic import PanopticName, panoptic_samples
from vpd.data.tabletop.splits import cache_beside
from vpd.tasks.open_panoptic import OpenPanopticSegmenter
from vpd.train.distributed import first_in_turn, wait
from vpd.train.loop.fit import fit_recipe
from vpd.train.loop.parts import begun, lasting
from vpd.train.loop.saving import save_trained
from vpd.train.open.captions import captions_of
from vpd.train.open.config import OpenTrainConfig
from vpd.train.open.footprint import open_footprint
from vpd.train.open.model import build_open, names_of
from vpd.train.open.stream import OpenStream
from vpd.train.open.table import OpenPictures, OpenTable
from vpd.train.open.training import OpenRun, OpenTraining
from vpd.vocabulary import Vocabulary

__all__ = ["train"]

log = logging.getLogger("vpd")


def train(config: OpenTrainConfig) -> dict[str, float]:
    """Trains, or goes on from ``config.out/last.ckpt``; writes ``config.out/model``, which
    :func:`vpd.load` reads.

    Within :func:`vpd.train.distributed.join` all processes train together, each with its share of
    every batch and of the evaluations; the first one writes.

    Returns:
        Metrics of the trained model on the validation split (:func:`evaluate_open`).

    Raises:
        ValueError: Mistakes in the config, or a training set without pictures of what is not held
            out.
    """
    config, shares, device = begun(config)
    with first_in_turn():
        source = _samples(config, config.data.split, config.data.limit)
        val = _samples(config, config.data.val_split)
    names = names_of(config, tuple(source.names), tuple(source.things))
    kept = [i for i, own in enumerate(names.names) if own not in config.held_out]
    vocabulary = Vocabulary(
        tuple(names.categories[i] for i in kept), tuple(names.things[i] for i in kept)
    )
    places = {index: place for place, index in enumerate(kept)}
    chosen = _without(source, set(range(len(names))) - set(kept)) if config.held_out else source
    model = build_open(config, vocabulary).to(device)
    with first_in_turn():
        table = _table(config, model, chosen)
    config = lasting(config, table.steps_per_epoch)
    captions = None
    if config.supervision == "captions":
        captions = captions_of(chosen, config.captions)
    try:
        table.fill(config.loop.steps, config.progress)
        run = OpenRun(model, table, vocabulary, places, captions, val, names)
        module = OpenTraining(config, run)
        log.info("%d pictures, %d steps of %d", len(chosen), config.loop.steps, config.loop.batch)
        if shares.processes.first:
            log.info("%s", open_footprint(config, vocabulary).table())
        best = "PQ" if config.select == "best" else None
        fit_recipe(module, config, best)
    finally:
        table.close()
    model.to(device)
    metrics = module.evaluate(config.data.final_limit, config.progress)
    if shares.processes.first:
        save_trained(model, config, metrics)
    wait()
    return metrics


def _table(config: OpenTrainConfig, model: OpenPanopticSegmenter, samples: Any) -> OpenPictures:
    batch, seed, data = config.loop.batch, config.seed, config.data
    if config.augment == "full":
        return OpenStream(model, samples, config.crop, config.scale, batch, seed, data.workers)
    keeps = config.feature_cache != "none"
    return OpenTable(
        model, samples, batch, seed, flip=config.augment == "flip",
        folder=cache_beside(data.cache_dir, "features") if keeps else None,
        dtype=getattr(torch, config.feature_cache) if keeps else torch.float32,
    )  # fmt: skip


def _samples(config: OpenTrainConfig, split: str, limit: int | None = None) -> Any:
    data = config.data
    where: dict[str, Any] = {
        "root": data.root, "workers": data.workers, "progress": config.progress,
        "cache_dir": None if data.cache_dir is None else Path(data.cache_dir),
    }  # fmt: skip
    name = cast(PanopticName, data.name)  # the config refuses others
    return panoptic_samples(name, split, limit=limit, by=config.by, **where)


class _Chosen(Sequence[Any]):
    """Some samples of a data set."""

    def __init__(self, samples: Any, places: Sequence[int]) -> None:
        self._samples, self._places = samples, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        return self._samples[self._places[index]]


def _without(samples: Any, classes: set[int]) -> _Chosen:
    """Those that show none of some classes."""
    places = [
        i
        for i, sample in enumerate(samples)
        if classes.isdisjoint(segment.category for segment in sample.read_segments())
    ]
    if not places:
        raise ValueError("held_out: expected pictures that show nothing of it, got none")
    return _Chosen(samples, places)
