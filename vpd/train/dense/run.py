"""Runs a training of a model with a value for every pixel, from its config to the model on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vpd.data.dense import DenseTask, dense_samples
from vpd.data.tabletop.splits import cache_beside
from vpd.train.caching.latents import reproducible
from vpd.train.caching.outputs import CachedOutputs
from vpd.train.dense.cache import Said, cached_outputs, caches_outputs
from vpd.train.dense.fields import DenseData
from vpd.train.dense.footprint import dense_footprint
from vpd.train.dense.stream import Augment, StreamedTable
from vpd.train.dense.table import DenseTable, ResidentTable, Target
from vpd.train.dense.training import DenseRun, DenseTraining
from vpd.train.distributed import first_in_turn, wait
from vpd.train.loop.config import resolve_precision
from vpd.train.loop.fit import fit_recipe
from vpd.train.loop.frozen import check_frozen, hold_frozen, restore_frozen
from vpd.train.loop.parts import begun, lasting
from vpd.train.loop.saving import save_trained
from vpd.train.loop.time_path import restore_time_path

__all__ = ["Recipe", "run", "samples"]

log = logging.getLogger("vpd")


@dataclass(frozen=True)
class Recipe:
    """What a task brings to a run."""

    task: DenseTask
    build: Callable[[Any, Sequence[Any]], Any]
    """From a config and the names of classes or of types of scenes, or ``kinds``."""
    empty: Callable[[Any, Sequence[str]], Any]
    """The same of names alone, without weights."""
    training: type[DenseTraining]
    target: Target
    augment: Callable[[Any, Any], Augment]
    """VPD's augmentation, of a config and a data set."""
    words: Callable[[Any, Any], Callable[[Any], Any] | None]
    """Of a config and a data set: from a sample to what the U-Net is told about it."""
    present: Callable[[Any, Any], Callable[[Any], Any] | None] = lambda config, data: None
    """The same, to the classes or segments in its label where they are needed besides."""
    kinds: Callable[[Any], Sequence[Any]] | None = None
    """From a data set: what ``build`` takes instead of its names."""
    blank: type[DenseTraining] | None = None
    """Stands for ``training`` where a step is only counted, on targets without values."""


def samples(task: DenseTask, data: DenseData, progress: bool = True) -> Any:
    """The pictures that are trained on and those that are scored.

    Raises:
        ValueError: A data set without its folder, or two that have other names of classes.
        OSError: Files that are not there.
    """
    where: dict[str, Any] = {
        "root": data.root, "names": data.names, "workers": data.workers, "progress": progress,
        "reduce_zero_label": data.reduce_zero_label, "units_per_metre": data.units_per_metre,
        "scene": data.scene,
        "cache_dir": None if data.cache_dir is None else Path(data.cache_dir),
    }  # fmt: skip
    if data.name == "folder" and (data.val_images is None or data.val_targets is None):
        raise ValueError("data.name=folder needs data.val_images and data.val_targets")
    train = dense_samples(
        task, data.name, data.split, images=data.images, targets=data.targets,
        limit=data.limit, **where,
    )  # fmt: skip
    val = dense_samples(
        task, data.name, data.val_split, images=data.val_images, targets=data.val_targets, **where
    )
    known, asked = _names(task, train), _names(task, val)
    strange = [name for name in asked if name not in known]
    if strange or (task != "depth" and known != asked):
        raise ValueError(
            f"{data.val_split} has {len(asked)} names ({', '.join((strange or asked)[:3])}, ...), "
            f"{data.split} has {len(known)} ({', '.join(known[:3])}, ...): expected the same"
        )
    return train, val


def _names(task: str, data: Any) -> tuple[str, ...]:
    return tuple(data.scenes if task == "depth" else data.names)


def run(config: Any, recipe: Recipe) -> dict[str, float]:
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
    with first_in_turn():
        train, val = samples(recipe.task, config.data, config.progress)
    names = _names(recipe.task, train)
    said = _by_number(recipe.words(config, train), train)
    labels = _by_number(recipe.present(config, train), train)
    kinds = names if recipe.kinds is None else recipe.kinds(train)
    model = recipe.build(config, kinds)
    hold_frozen(model, config)
    with first_in_turn():
        table = _table(config, recipe, model.to(device), train)
    config = lasting(config, table.steps_per_epoch)
    try:
        cached = _cached(config, model, table, said)
        module = recipe.training(config, DenseRun(model, table, val, cached, said, labels))
        log.info("%d pictures, %d steps of %d", len(train), config.loop.steps, config.loop.batch)
        if shares.processes.first:
            counted = recipe.blank or recipe.training
            need = dense_footprint(config, recipe.empty, counted, names)
            log.info("%s", need.table())
        best = module.monitor if config.select == "best" else None
        fit_recipe(module, config, best, module.mode)
    finally:
        table.close()
    if config.trains_unet and config.keeps_time and not config.weights:
        start = recipe.build(config, kinds).to(device)
        restore_time_path(model.unet, start.unet, model.config.noise.timestep)
    restore_frozen(model, config, device, lambda own: recipe.build(own, kinds))
    model.to(device)
    metrics = module.evaluate(config.data.final_limit, config.progress)
    if shares.processes.first:
        save_trained(model, config, metrics)
    wait()
    return metrics


def _table(config: Any, recipe: Recipe, model: Any, train: Any) -> DenseTable:
    batch, seed, data = config.loop.batch, config.seed, config.data
    if config.augment == "full":
        augment = recipe.augment(config, train)
        fresh = config.fresh_noise
        return StreamedTable(model, train, augment, batch, seed, fresh=fresh, workers=data.workers)
    return ResidentTable(
        model, train, recipe.target, batch, seed, flip=config.augment == "flip",
        cache=cache_beside(data.cache_dir, "latents"), fresh=config.fresh_noise,
    )  # fmt: skip


def _by_number(words: Callable[[Any], Any] | None, train: Any) -> Said | None:
    """Words about a sample as words about the number of a picture."""
    return None if words is None else lambda picture: words(train[picture])


def _cached(config: Any, model: Any, table: DenseTable, said: Said | None) -> CachedOutputs | None:
    """The U-Net's outputs for all that the run will draw, if they are the same in every epoch."""
    if not caches_outputs(config) or not isinstance(table, ResidentTable):
        return None
    if table.fresh or not reproducible(model.config.noise):
        log.info("latents are drawn anew, so the U-Net's outputs are not cached")
        return None
    return cached_outputs(
        model, table, said, config.loop.steps, cache_beside(config.data.cache_dir, "features"),
        dtype=getattr(torch, config.feature_cache),
        bf16=resolve_precision(config.loop.precision) == "bf16-mixed",
        progress=config.progress,
    )  # fmt: skip
