"""Training of an editor, from its config to the model on disk."""

from __future__ import annotations

import logging
from dataclasses import replace

from vpd.data.edit import EditAugmentation
from vpd.data.tabletop.splits import cache_beside
from vpd.tasks.editor import Editor
from vpd.train.distributed import first_in_turn, wait
from vpd.train.edit.config import EditTrainConfig
from vpd.train.edit.footprint import edit_footprint
from vpd.train.edit.model import build
from vpd.train.edit.pairs import Pairs, training_pairs, val_pairs
from vpd.train.edit.table import (
    Draws,
    EditTable,
    PairLatents,
    ResidentPairs,
    StreamedPairs,
)
from vpd.train.edit.training import EditRun, EditTraining, Instructions, edit_probe
from vpd.train.loop.fit import fit_recipe
from vpd.train.loop.parts import begun, lasting
from vpd.train.loop.saving import save_trained

__all__ = ["train"]

log = logging.getLogger("vpd")


def train(config: EditTrainConfig) -> dict[str, float]:
    """Trains, or goes on from ``config.out/last.ckpt``; writes ``config.out/model``, which
    :func:`vpd.load` reads.

    Within :func:`vpd.train.distributed.join` all processes train together, each with its share of
    every batch; the first one writes.

    Returns:
        :func:`vpd.train.edit.training.edit_probe` of the trained model.

    Raises:
        ValueError: A batch that does not divide among the processes, and other mistakes in the
            config.
    """
    config, shares, device = begun(config)
    model = build(config).to(device)
    with first_in_turn():
        pairs = training_pairs(config.data, config.progress)
        shown = val_pairs(config.data, config.progress)
        table = _table(config, model, pairs)
        val = _latents(config, model, shown, mirrored=False)
    known = () if config.streamed else (*table.texts, *val.texts)
    instructions = Instructions(model, known, config.train_text)
    config = lasting(config, table.steps_per_epoch)
    try:
        module = EditTraining(config, EditRun(model, table, instructions, val, shown))
        log.info(
            "%d pairs, %d entries, %d steps of %d",
            sum(pairs.counts), len(pairs.counts), config.loop.steps, config.loop.batch,
        )  # fmt: skip
        if shares.processes.first:
            own = replace(config, loop=replace(config.loop, micro_batch=shares.rows))
            log.info("%s", edit_footprint(own).table())
        fit_recipe(module, config)
    finally:
        table.close()
    module.to(device)
    module.setup("fit")
    metrics = edit_probe(module)
    if shares.processes.first:
        save_trained(model, config, metrics)
    wait()
    return metrics


def _latents(
    config: EditTrainConfig, model: Editor, pairs: Pairs, *, mirrored: bool
) -> PairLatents:
    cache = cache_beside(config.data.cache_dir, "latents")
    return PairLatents(model.vae, pairs, config.crop, mirrored, cache, config.progress)


def _table(config: EditTrainConfig, model: Editor, pairs: Pairs) -> EditTable:
    batch, seed = config.loop.batch, config.seed
    if config.sizes is not None and config.streamed:
        augmentation = EditAugmentation(config.sizes, config.crop, 0.5 * config.flip)
        encode, workers = model.vae.encode, config.data.workers
        return StreamedPairs(encode, pairs, augmentation, batch, seed, workers)
    draws = Draws(pairs.counts, 1 + config.flip, batch, seed)
    return ResidentPairs(_latents(config, model, pairs, mirrored=config.flip), draws)
