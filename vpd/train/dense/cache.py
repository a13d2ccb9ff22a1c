"""Training of heads on the outputs of a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpd.models.unet import UNetOutput
from vpd.tasks.conditioned import ConditionedModel
from vpd.tasks.dense import Context, DenseModel
from vpd.train.caching.latents import latents_name
from vpd.train.caching.outputs import CachedOutputs
from vpd.train.caching.row_store import digest
from vpd.train.dense.fields import DenseTrainConfig
from vpd.train.dense.table import ResidentTable

__all__ = ["Said", "cached_outputs", "caches_outputs", "context_of"]

Said = Callable[[int], Any]
"""From a picture's number in a training set to what is said about it."""


def caches_outputs(config: DenseTrainConfig) -> bool:
    """Whether a run keeps its backbone's outputs, as far as its choices tell: nothing that trains
    comes before them, and no picture is changed."""
    trained = config.trains_unet or config.lora is not None or config.trains_adapter
    return config.feature_cache != "none" and config.augment != "full" and not trained


def context_of(
    model: DenseModel[Any],
    said: Said | None,
    pictures: Sequence[int],
    seen: Tensor | None = None,
) -> Context:
    """What the U-Net is told about some pictures of a training set.

    Args:
        model: Of the task.
        said: By a picture's number; None: nothing.
        pictures: Their numbers.
        seen: Of ``model.look``.
    """
    words = [None if said is None else said(picture) for picture in pictures]
    return model.context(words, seen)


def cached_outputs(
    model: DenseModel[Any],
    table: ResidentTable,
    said: Said | None,
    steps: int,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float16,
    bf16: bool = False,
    progress: bool = True,
) -> CachedOutputs:
    """The backbone's outputs for the views that a training will draw, where nothing that trains
    comes before them.

    They are kept below ``folder`` under a name that says all that they depend on besides the
    picture and what is said about it: weights, texts, noise protocol, timestep, precision.

    Args:
        model: Nothing in it that trains comes before the backbone's output.
        table: What is trained on.
        said: About each picture.
        steps: As many as will be drawn; views that they do not draw are not computed.
        folder: Of the caches of all networks.
        dtype: float16; or float32, for results equal to those without a cache.
        bf16: Run the backbone under bfloat16 autocast, as a training step would.
        progress: Show a bar.

    Raises:
        ValueError: A model whose adapter is in use.
    """
    config = model.config
    if model.adapts:
        raise ValueError("features can be cached without an adapter before the U-Net only, got one")
    device = model.device
    how = {"bf16": bf16, "dtype": str(dtype), "device": device.type}
    if config.vit is not None:
        shape = asdict(config.vit)
        name = digest("vit features 1", model.vit, shape, how | {"image_size": config.image_size})
    else:
        name = digest(
            "dense features 2", latents_name(model), *_told(model), model.unet,
            asdict(config.unet),
            {"t": config.noise.timestep, "attention": config.attention, **how},
        )  # fmt: skip
    drawn = table.drawn(steps)
    keys = {}
    for view, picture in zip(drawn.tolist(), table.pictures(drawn), strict=True):
        words = None if said is None else said(picture)
        keys[view] = table.key(view) + repr(words).encode()
    cached = CachedOutputs(folder / name, keys, config.attention, device, dtype)

    def run(views: Tensor) -> UNetOutput:
        context = context_of(model, said, table.pictures(views))
        return model.attend(table.latents(views).to(device), context)

    cached.fill(run, bf16=bf16, progress=progress)
    return cached


def _told(model: DenseModel[Any]) -> list[Any]:
    """All that a context depends on besides words about a picture."""
    found: list[Any] = [tensor.float().cpu().numpy().tobytes() for tensor in model.own_buffers()]
    if isinstance(model, ConditionedModel):
        config = model.config
        found.append({"condition": config.condition, "token_length": config.token_length})
        if config.text is not None:
            found += [model.text, asdict(config.text)]
    return found
