"""Training of referring segmentation."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from vpd.data.tabletop.splits import cache_beside
from vpd.tasks.evaluate import evaluate_refer
from vpd.tasks.refer import ReferSegmenter
from vpd.train.caching.latents import reproducible
from vpd.train.distributed import first_in_turn, group, wait
from vpd.train.loop.config import resolve_precision
from vpd.train.loop.fit import fit_recipe
from vpd.train.loop.frozen import check_frozen, hold_frozen, restore_frozen
from vpd.train.loop.parts import begun, lasting
from vpd.train.loop.saving import save_trained
from vpd.train.loop.time_path import restore_time_path
from vpd.train.refer.cache import CachedFeatures, keeps_outputs
from vpd.train.refer.config import ReferTrainConfig
from vpd.train.refer.data import training_data, val_samples
from vpd.train.refer.footprint import footprint
from vpd.train.refer.model import build
from vpd.train.refer.table import ReferTable
from vpd.train.refer.training import ReferTraining, seeded

__all__ = ["train"]

log = logging.getLogger("vpd")


def _table(config: ReferTrainConfig, model: ReferSegmenter) -> ReferTable:
    data = training_data(config.data, config.progress)
    refs = data.refs
    if config.text_blind:
        refs = (replace(ref, sentences=("",)) for ref in refs)
    return ReferTable(
        model, data.pictures, refs, config.loop.batch, config.seed, config.together,
        cache_beside(config.data.cache_dir, "latents"), config.fresh_noise,
    )  # fmt: skip


def _cached(
    config: ReferTrainConfig, model: ReferSegmenter, table: ReferTable
) -> CachedFeatures | None:
    """The U-Net's outputs for all that the run will draw, if they are the same in every epoch."""
    if not keeps_outputs(config):
        return None
    if table.fresh or not all(map(reproducible, model.config.noises)):
        log.info("latents are drawn anew, so the U-Net's outputs are not cached")
        return None
    return CachedFeatures(
        model,
        table,
        config.loop.steps,
        cache_beside(config.data.cache_dir, "features"),
        dtype=getattr(torch, config.feature_cache),
        bf16=resolve_precision(config.loop.precision) == "bf16-mixed",
        progress=config.progress,
    )


def train(config: ReferTrainConfig) -> dict[str, float]:
    """Trains, or goes on from ``config.out/last.ckpt``; writes ``config.out/model``, which
    :func:`vpd.load` reads.

    Within :func:`vpd.train.distributed.join` all processes train together, each with its share of
    every batch and of the evaluations; the first one writes.

    Returns:
        Metrics of the trained model on the validation split.

    Raises:
        ValueError: A batch that does not divide among the processes, and other mistakes in the
            config.
    """
    config, shares, device = begun(config)
    check_frozen(config, device)
    model = build(config)
    hold_frozen(model, config)
    with first_in_turn():
        val = val_samples(config.data, config.progress)
        table = _table(config, model.to(device))
    config = lasting(config, table.steps_per_epoch)
    cached = _cached(config, model, table)
    module = ReferTraining(model, config, table, val, cached)
    log.info(
        "%d objects, %d sentences, %d steps of %d",
        table.count, table.sentences, config.loop.steps, config.loop.batch,
    )  # fmt: skip
    if cached is None and shares.processes.first:
        own = replace(config, loop=replace(config.loop, micro_batch=shares.rows))
        log.info("%s", footprint(own).table())
    best = "oIoU" if config.select == "best" else None
    fit_recipe(module, config, best)
    told = {noise.timestep for noise in model.config.noises}
    if config.trains_unet and not config.weights and len(told) == 1 and not config.denoise:
        restore_time_path(model.unet, build(config).unet.to(device), told.pop())
    restore_frozen(model, config, device, build)
    metrics = evaluate_refer(
        seeded(model.to(device), config.seed),
        val,
        batch=config.eval_batch,
        text_blind=True,
        limit=config.data.final_limit,
        progress=config.progress,
        group=group(),
    ).metrics
    if shares.processes.first:
        save_trained(model, config, metrics)
    wait()
    return metrics
