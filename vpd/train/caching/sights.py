"""What an image encoder sees in the pictures of a training set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpd.tasks.dense import DenseModel
from vpd.train.caching.latents import encode_once, squashed
from vpd.train.caching.row_store import RowStore, digest

__all__ = ["Sights", "look_plainly"]


class Sights:
    """The encoder is frozen and pictures are not changed, so each is seen once.

    With a cache, what was seen stays in its memory-mapped files: the tokens of a full-size encoder
    take 0.5 MB a picture.

    Args:
        model: With an image encoder, which sees pictures squashed to its ``image_size``.
        pictures: uint8 [H, W, 3] images.
        cache: Folder where it is kept for other runs; None for none.
    """

    def __init__(
        self, model: DenseModel[Any], pictures: Iterable[np.ndarray], cache: Path | None
    ) -> None:
        config = model.config
        self._device = torch.device("cpu")
        self._store = None
        if cache is not None:
            name = digest(
                "sights 1", model.clip, asdict(config.image),
                {"condition": config.condition, "image_size": config.image_size},
            )  # fmt: skip
            self._store = RowStore(cache / name)

        def encode(chosen: Sequence[np.ndarray]) -> Tensor:
            return look_plainly(model, squashed(chosen, config.image_size))

        self._keys, seen = encode_once(pictures, encode, self._store)
        self._seen = seen if self._store is None else None

    def __deepcopy__(self, memo: dict[int, Any]) -> Sights:
        return self

    def to(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, places: Tensor) -> Tensor:
        """Of some pictures, int64 [B] by number on the CPU: float32 [B, ...]."""
        if self._seen is not None:
            return self._seen[places].to(self._device).float()
        assert self._store is not None
        (found,) = self._store.read(self._keys[place] for place in places.tolist())
        return found.to(self._device)


def look_plainly(model: DenseModel[Any], pixels: Tensor) -> Tensor:
    """What the encoder sees in pixels [B, 3, H, W], in its own precision whatever that of training
    is: what is kept and what is seen anew must be the same."""
    with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        found = model.look(pixels.to(model.device))
    assert found is not None
    return found.float()
