"""Training on the outputs of a frozen U-Net: each sample goes through it once, not once an
epoch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpd.models.unet import UNetOutput
from vpd.tasks.refer import ReferConfig, ReferSegmenter
from vpd.train.caching.latents import latents_name
from vpd.train.caching.outputs import CachedOutputs
from vpd.train.caching.row_store import digest
from vpd.train.refer.config import ReferTrainConfig
from vpd.train.refer.table import ReferTable

__all__ = ["CachedFeatures", "keeps_outputs"]


def keeps_outputs(config: ReferTrainConfig) -> bool:
    """Whether a run keeps its U-Net's outputs, as far as its choices tell: nothing that trains
    comes before them."""
    trained = config.trains_unet or config.lora or config.text_adapter or config.train_text
    return config.feature_cache != "none" and not trained


def _map_names(config: ReferConfig) -> list[dict[str, Any]]:
    """What maps, or features too, depend on besides. Usual choices are not named: stores made
    before there were others remain valid."""
    names: list[dict[str, Any]] = []
    if config.attn_fusion != "mean":
        names.append({"fusion": config.attn_fusion})
    if config.attn_t_ensemble:
        names.append({"ensemble": [noise.timestep for noise in config.noises[1:]]})
    if config.denoise is not None:
        names.append({"denoise": asdict(config.denoise)})
    return names


class CachedFeatures(CachedOutputs):
    """The U-Net's outputs for the samples of a training table, where nothing that trains comes
    before them.

    They are kept below ``folder`` in a :class:`RowStore` whose name says all that they depend on
    besides picture and sentence: weights, noise protocol, timestep, precision. So runs with the
    same network share them, whatever their seed, scenes and head.

    Args:
        model: A segmenter whose text adapter is off and whose U-Net does not train.
        table: What is trained on.
        steps: As many as will be drawn; samples that they do not draw are not computed.
        folder: Of the caches of all networks.
        dtype: float16; or float32, for results equal to those without a cache.
        bf16: Run the networks under bfloat16 autocast, as a training step would.
        progress: Show a bar.
    """

    def __init__(
        self,
        model: ReferSegmenter,
        table: ReferTable,
        steps: int,
        folder: Path,
        *,
        dtype: torch.dtype = torch.float16,
        bf16: bool = False,
        progress: bool = True,
    ) -> None:
        config = model.config
        if config.text_adapter:
            raise ValueError("features can be cached without a text adapter only, got one")
        device = model.device
        keys = {sample: table.key(sample) for sample in table.drawn(steps).tolist()}
        name = digest(
            "features 1", latents_name(model), model.text, asdict(config.text),
            model.unet, asdict(config.unet),
            {"t": config.noise.timestep, "attention": config.map_strides, "bf16": bf16,
             "dtype": str(dtype), "device": device.type},
            *_map_names(config),
        )  # fmt: skip
        super().__init__(folder / name, keys, config.map_strides, device, dtype)

        def run(samples: Tensor) -> UNetOutput:
            latents, ids, index = table.inputs(samples)
            states = model.text(ids.to(device)).hidden
            return model.features(latents.to(device), states, index.to(device))

        def picture(sample: int) -> int:
            # Side by side: what does not depend on the sentence runs once for a picture.
            return int(table.pictures[sample])

        self.fill(run, beside=picture, bf16=bf16, progress=progress)
