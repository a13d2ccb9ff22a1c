"""Training on the outputs of a frozen U-Net: each sample goes through it once, not once an
epoch."""

from __future__ import annotations

import logging
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpd.models.unet import UNetOutput
from vpd.tasks.refer import ReferConfig, ReferSegmenter
from vpd.train.refer_table import ReferTable, latents_name
from vpd.train.row_store import RowStore, digest

__all__ = ["CachedFeatures"]

log = logging.getLogger("vpd")

_GROUP = 32  # rows of a pass


def _map_names(config: ReferConfig) -> list[dict[str, Any]]:
    """What maps depend on besides. Usual choices are not named: stores made before there were
    others remain valid."""
    names: list[dict[str, Any]] = []
    if config.attn_fusion != "mean":
        names.append({"fusion": config.attn_fusion})
    if config.attn_t_ensemble:
        names.append({"ensemble": [noise.timestep for noise in config.noises[1:]]})
    return names


class CachedFeatures:
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
        self._strides = config.map_strides
        self._device = model.device
        self._keys = {sample: table.key(sample) for sample in table.drawn(steps).tolist()}
        name = digest(
            "features 1", latents_name(model), model.text, asdict(config.text),
            model.unet, asdict(config.unet),
            {"t": config.noise.timestep, "attention": self._strides, "bf16": bf16,
             "dtype": str(dtype), "device": self._device.type},
            *_map_names(config),
        )  # fmt: skip
        self.store = RowStore(folder / name, dtype)
        self._fill(model, table, bf16, progress)

    def __deepcopy__(self, memo: dict[int, Any]) -> CachedFeatures:
        return self

    def __call__(self, samples: Tensor) -> UNetOutput:
        """Outputs for samples int64 [B], float32 on the model's device."""
        rows = self.store.read(self._keys[sample] for sample in samples.tolist())
        parts = [part.to(self._device) for part in rows]
        maps = parts[len(parts) - len(self._strides) :]
        features = tuple(parts[: len(parts) - len(self._strides)])
        return UNetOutput(None, features, dict(zip(self._strides, maps, strict=True)))

    def _fill(self, model: ReferSegmenter, table: ReferTable, bf16: bool, progress: bool) -> None:
        from tqdm import tqdm

        absent = {key: s for s, key in self._keys.items() if key not in self.store}
        # Those of a picture side by side: what does not depend on the sentence runs once for them.
        samples = sorted(absent.values(), key=lambda sample: int(table.pictures[sample]))
        log.info(
            "U-Net outputs of %d samples, %d of them to be computed, in %s",
            len(self._keys), len(samples), self.store.folder,
        )  # fmt: skip
        groups = [samples[i : i + _GROUP] for i in range(0, len(samples), _GROUP)]
        # Processes that fill one store at the same time take the groups in different orders, so
        # that each finds most of what the others have done.
        random.Random().shuffle(groups)
        with tqdm(total=len(samples), desc="U-Net outputs", disable=not progress) as bar:
            for group in groups:
                todo = [sample for sample in group if self._keys[sample] not in self.store]
                if todo:
                    rows = self._run(model, table, torch.tensor(todo), bf16)
                    self.store.add([self._keys[sample] for sample in todo], rows)
                bar.update(len(group))
        self.store.flush()

    @torch.no_grad()
    def _run(
        self, model: ReferSegmenter, table: ReferTable, samples: Tensor, bf16: bool
    ) -> list[Tensor]:
        latents, ids, index = table.inputs(samples)
        device = self._device
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            states = model.text(ids.to(device)).hidden
            out = model.features(latents.to(device), states, index.to(device))
        return [*out.features, *(out.attention[stride] for stride in self._strides)]
