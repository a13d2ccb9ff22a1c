"""What a training of referring segmentation will need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vpd.models.unet import UNetOutput
from vpd.tasks.refer import ReferConfig, ReferSegmenter
from vpd.train.caching.latents import reproducible
from vpd.train.footprint import BlankStep, Footprint, blank_outputs, counted
from vpd.train.loop.frozen import hold_frozen
from vpd.train.refer.cache import keeps_outputs
from vpd.train.refer.config import ReferTrainConfig
from vpd.train.refer.model import empty_model
from vpd.train.refer.table import Batch
from vpd.train.refer.training import ReferTraining

__all__ = ["footprint", "refer_step"]


def footprint(config: ReferTrainConfig) -> Footprint:
    """Works out what `vpd train` will need, by a step on tensors without values.

    Nothing is read but the foundation's config, and nothing is computed, so a full-size run takes
    seconds. Not in it: the data set, the evaluation between steps, and what fills the caches of
    latents and of U-Net outputs before the first one.
    """
    with refer_step(config) as step:
        return counted(step.model, step.module, step.loop, step.loss)


@contextmanager
def refer_step(config: ReferTrainConfig) -> Iterator[BlankStep]:
    """A step of `vpd train`, as long as a ``with`` block lasts."""
    with FakeTensorMode(allow_non_fake_inputs=True):  # small constants have values
        model = empty_model(config)
        hold_frozen(model, config)
        batch = _batch(config, model.config)

        def outputs(rows: int) -> UNetOutput:
            states = model.text(batch.ids[:rows]).hidden
            return model.features(batch.latents[:rows], states)

        cached: Any = None
        # A U-Net that is only left out of the optimizer is said to cost what its gradients do.
        kept = config.freeze == "unet" and keeps_outputs(config)
        if kept and not _changes(config, model):
            with torch.no_grad():
                cached = blank_outputs(outputs(1))
        module = ReferTraining(model, config, cached=cached)

        def loss() -> Tensor:
            _encode(model, config, batch, anew=True)
            return module.loss(batch)

        def once() -> None:
            _encode(model, config, batch, anew=False)
            if cached is not None:
                outputs(1)

        yield BlankStep(model, module, config.loop, loss, once)


def _batch(config: ReferTrainConfig, model: ReferConfig) -> Batch:
    rows, size = config.loop.micro_batch or config.loop.batch, model.image_size
    side = size // 2 ** (len(model.vae.ch_mult) - 1)
    latents = torch.zeros(-(-rows // config.together), model.unet.in_channels, side, side)
    if model.attn_t_ensemble:
        latents = torch.stack([latents] * len(model.noises), dim=1)
    return Batch(
        latents=latents,
        ids=torch.zeros(rows, config.token_length, dtype=torch.int64),
        masks=torch.zeros(rows, size, size, dtype=torch.int64),
        index=torch.arange(rows) // config.together,
        samples=torch.arange(rows),
        whole_rows=config.loop.batch,
        whole_pixels=0,
    )


def _changes(config: ReferTrainConfig, model: ReferSegmenter) -> bool:
    """Whether latents of a picture differ from step to step."""
    noises = model.config.noises
    return any((config.fresh_noise and n.adds_noise) or not reproducible(n) for n in noises)


def _encode(model: ReferSegmenter, config: ReferTrainConfig, batch: Batch, anew: bool) -> None:
    """The autoencoder on the pictures of a batch in every step (``anew``), where noise on pixels is
    drawn anew, or else on one picture before the first."""
    noise, fresh = model.config.noise, config.fresh_noise
    in_steps = noise.noise_space == "pixel" and (fresh or noise.seed is None)
    if in_steps != anew:
        return
    side, weight = model.config.image_size, next(model.vae.parameters())
    rows = len(batch.latents) if anew else 1
    pictures = torch.zeros(rows, 3, side, side, dtype=weight.dtype)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        for _ in range(max(1, sum(spec.changes_pixels for spec in model.config.noises))):
            model.vae.encode(pictures)
