"""Training of heads on the outputs of a frozen U-Net."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from vpd.models.unet import UNetOutput
from vpd.tasks.depth import DepthEstimator
from vpd.tasks.semantic import SemanticSegmenter
from vpd.train.dense_table import ResidentTable
from vpd.train.output_cache import CachedOutputs
from vpd.train.picture_latents import latents_name
from vpd.train.row_store import digest

__all__ = ["cached_outputs", "features_of"]


def features_of(
    model: SemanticSegmenter | DepthEstimator, latents: Tensor, scenes: Tensor
) -> UNetOutput:
    """The U-Net's output for latents [B, C, h, w] of pictures of some types of scenes, int64 [B];
    those count for depth alone."""
    states = model.states(scenes) if isinstance(model, DepthEstimator) else None
    return model.features(latents, states)


def cached_outputs(
    model: SemanticSegmenter | DepthEstimator,
    table: ResidentTable,
    steps: int,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float16,
    bf16: bool = False,
    progress: bool = True,
) -> CachedOutputs:
    """The U-Net's outputs for the views that a training will draw, where nothing that trains comes
    before them.

    They are kept below ``folder`` under a name that says all that they depend on besides the
    picture and its type of scene: weights, texts, noise protocol, timestep, precision.

    Args:
        model: Its text adapter is off and its U-Net does not train.
        table: What is trained on.
        steps: As many as will be drawn; views that they do not draw are not computed.
        folder: Of the caches of all networks.
        dtype: float16; or float32, for results equal to those without a cache.
        bf16: Run the U-Net under bfloat16 autocast, as a training step would.
        progress: Show a bar.

    Raises:
        ValueError: A model with a text adapter.
    """
    config = model.config
    if config.text_adapter:
        raise ValueError("features can be cached without a text adapter only, got one")
    device = model.device
    name = digest(
        "dense features 1", latents_name(model),
        model.class_embeddings.float().cpu().numpy().tobytes(), model.unet, asdict(config.unet),
        {"t": config.noise.timestep, "attention": config.attention, "bf16": bf16,
         "dtype": str(dtype), "device": device.type},
    )  # fmt: skip
    keys = {view: table.key(view) for view in table.drawn(steps).tolist()}
    cached = CachedOutputs(folder / name, keys, config.attention, device, dtype)

    def run(views: Tensor) -> UNetOutput:
        latents, scenes = table.inputs(views)
        return features_of(model, latents.to(device), scenes.to(device))

    cached.fill(run, bf16=bf16, progress=progress)
    return cached
