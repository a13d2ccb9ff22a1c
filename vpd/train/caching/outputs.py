"""The outputs of a frozen U-Net on disk: each sample goes through it once, not once an epoch."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpd.models.unet import UNetOutput
from vpd.train.caching.row_store import RowStore

__all__ = ["CachedOutputs"]

log = logging.getLogger("vpd")

_GROUP = 32  # rows of a pass


class CachedOutputs:
    """The U-Net's outputs for numbered samples, in a :class:`RowStore` that runs with the same
    network share.

    Args:
        folder: Of the store; its name says all that the outputs depend on besides the samples.
        keys: Number -> content key of each sample.
        strides: Of the attention maps among the outputs.
        device: Where outputs are wanted, and computed.
        dtype: float16; or float32, for results equal to those without a cache.
    """

    def __init__(
        self,
        folder: Path,
        keys: Mapping[int, bytes],
        strides: tuple[int, ...],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._keys, self._strides, self._device = keys, strides, device
        self.store = RowStore(folder, dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> CachedOutputs:
        return self

    def __call__(self, samples: Tensor) -> UNetOutput:
        """Outputs for samples int64 [B], float32 on the device."""
        rows = self.store.read(self._keys[sample] for sample in samples.tolist())
        parts = [part.to(self._device) for part in rows]
        maps = parts[len(parts) - len(self._strides) :]
        features = tuple(parts[: len(parts) - len(self._strides)])
        return UNetOutput(None, features, dict(zip(self._strides, maps, strict=True)))

    def fill(
        self,
        run: Callable[[Tensor], UNetOutput],
        *,
        beside: Callable[[int], int] = int,
        bf16: bool = False,
        progress: bool = True,
    ) -> None:
        """Computes what is not in the store yet.

        Args:
            run: From samples int64 [B] to the U-Net's output.
            beside: Samples of which it is the same share a pass where possible.
            bf16: Under bfloat16 autocast, as a training step would.
            progress: Show a bar.
        """
        from tqdm import tqdm

        absent = {key: s for s, key in self._keys.items() if key not in self.store}
        samples = sorted(absent.values(), key=beside)
        log.info(
            "outputs of the frozen network for %d samples, %d of them to be computed, in %s",
            len(self._keys), len(samples), self.store.folder,
        )  # fmt: skip
        groups = [samples[i : i + _GROUP] for i in range(0, len(samples), _GROUP)]
        # Processes that fill one store at the same time take the groups in different orders, so
        # that each finds most of what the others have done.
        random.Random().shuffle(groups)
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=bf16)
        with tqdm(total=len(samples), desc="frozen network", disable=not progress) as bar:
            for group in groups:
                todo = [sample for sample in group if self._keys[sample] not in self.store]
                if todo:
                    with torch.no_grad(), autocast:
                        out = run(torch.tensor(todo))
                    maps = [out.attention[stride] for stride in self._strides]
                    self.store.add([self._keys[s] for s in todo], [*out.features, *maps])
                bar.update(len(group))
        self.store.flush()
