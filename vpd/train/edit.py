"""Training of an editor, from its config to the model on disk."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vpd.data.edit import EditAugmentation
from vpd.data.tabletop.splits import cache_beside
from vpd.tasks import store
from vpd.tasks.editor import Editor, EditorConfig
from vpd.train.distributed import first_in_turn, wait
from vpd.train.edit_config import EditData, EditTrainConfig
from vpd.train.edit_pairs import Pairs, training_pairs, val_pairs
from vpd.train.edit_table import (
    Draws,
    EditBatch,
    EditTable,
    PairLatents,
    ResidentPairs,
    StreamedPairs,
)
from vpd.train.edit_training import EditRun, EditTraining, Instructions, edit_probe
from vpd.train.footprint import Footprint, counted
from vpd.train.loop import fit
from vpd.train.parts import begun
from vpd.train.saving import save_trained

__all__ = ["EditData", "EditTrainConfig", "build", "edit_footprint", "train"]

log = logging.getLogger("vpd")


def build(config: EditTrainConfig) -> Editor:
    """The editor that a run starts from."""
    if config.weights:
        from vpd.tasks.sources import build_editor

        return build_editor(config.weight_files, token_length=config.token_length).train()
    base = store.load_foundation(config.foundation)
    return Editor.from_foundation(base, token_length=config.token_length).train()


def train(config: EditTrainConfig) -> dict[str, float]:
    """Trains, or goes on from ``config.out/last.ckpt``; writes ``config.out/model``, which
    :func:`vpd.load` reads.

    Within :func:`vpd.train.distributed.join` all processes train together, each with its share of
    every batch; the first one writes.

    Returns:
        :func:`vpd.train.edit_training.edit_probe` of the trained model.

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
    if config.epochs is not None:
        steps = config.epochs * table.steps_per_epoch
        config = replace(config, loop=replace(config.loop, steps=steps))
    try:
        module = EditTraining(config, EditRun(model, table, instructions, val, shown))
        log.info(
            "%d pairs, %d entries, %d steps of %d",
            sum(pairs.counts), len(pairs.counts), config.loop.steps, config.loop.batch,
        )  # fmt: skip
        if shares.processes.first:
            own = replace(config, loop=replace(config.loop, micro_batch=shares.rows))
            log.info("%s", edit_footprint(own).table())
        fit(module, config.loop, Path(config.out), progress=config.progress)
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


def edit_footprint(config: EditTrainConfig) -> Footprint:
    """Works out what `vpd train edit` will need, by a step on tensors without values: see
    :func:`vpd.train.footprint.footprint`.

    Nothing is read but the foundation's config. Not in it: the data set, and the pictures that are
    sampled between steps.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):  # small constants have values
        model = Editor(_shape(config))
        table = _BlankPairs(config, model)
        known = () if config.streamed else ("",)
        run = EditRun(model, table, Instructions(model, known, config.train_text))
        module = EditTraining(config, run)
        rows = slice(0, module.shares.rows)

        def loss() -> Tensor:
            batch = table.draw(0, rows)
            t = torch.zeros(module.shares.rows, dtype=torch.int64)
            return module.prediction_errors(batch, batch.mean, batch.std, t, t + 1.0).sum()

        return counted(model, module, config.loop, loss)


def _shape(config: EditTrainConfig) -> EditorConfig:
    """Of the model that a run starts from, known without its weights."""
    if config.weights:
        own = EditorConfig()
    else:
        base = store.read_config(config.foundation)
        channels = base.unet.out_channels + base.vae.embed_dim
        own = EditorConfig(
            replace(base.unet, in_channels=channels), base.vae, base.text,
            token_length=base.token_length,
        )  # fmt: skip
    return replace(own, token_length=config.token_length or own.token_length)


class _BlankPairs:
    """Stands for a data set: batches of its shapes, without meaning. Where pictures are encoded in
    every step, it does so too."""

    steps_per_epoch = 1
    texts: Sequence[str] = ("",)

    def __init__(self, config: EditTrainConfig, model: Editor) -> None:
        self._config, self._model = config, model

    def to(self, device: torch.device) -> None:
        """It has nothing to move."""

    def draw(self, step: int, part: slice = slice(None)) -> EditBatch:
        rows, crop, vae = part.stop - part.start, self._config.crop, self._model.config.vae
        if self._config.streamed:
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                self._model.vae.encode(torch.zeros(rows, 3, crop, crop))
        side = crop // vae.stride

        def latents() -> Tensor:
            return torch.zeros(rows, vae.embed_dim, side, side)

        return EditBatch(latents(), latents(), latents(), [""] * rows)

    def close(self) -> None:
        """Nothing works ahead here."""
