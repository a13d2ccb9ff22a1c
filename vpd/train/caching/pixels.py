"""What a backbone without an autoencoder sees of the pictures of a training set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpd.tasks.dense import DenseConfig, pad_to_multiple
from vpd.train.caching.latents import content_key, squashed

__all__ = ["PicturePixels"]


class PicturePixels:
    """Stands for :class:`vpd.train.caching.latents.PictureLatents` where there are no latents.
    Pixels take some twenty times their memory, so pictures are read anew whenever they are drawn.

    Args:
        config: Of the model, which sees pictures squashed to its ``image_size``, padded with grey.
        pictures: uint8 [H, W, 3] images.
    """

    fresh = False
    """Nothing is drawn anew: there is no noise."""

    def __init__(self, config: DenseConfig, pictures: Sequence[np.ndarray]) -> None:
        own: Any = config  # each task has its own image_size
        self._size, self._multiple, self._pictures = own.image_size, config.multiple, pictures
        self._device = torch.device("cpu")

    @cached_property
    def keys(self) -> list[bytes]:
        """Content key of each picture."""
        return [content_key(picture) for picture in self._pictures]

    def to(self, device: torch.device) -> None:
        self._device = device

    def kept(self, images: Tensor) -> Tensor:
        """Pixels of some pictures, int64 [I] by number: float32 [I, 3, H, W] in [-1, 1]."""
        chosen = [self._pictures[i] for i in images.tolist()]
        return pad_to_multiple(squashed(chosen, self._size), self._multiple).to(self._device)
