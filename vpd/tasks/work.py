"""How often the parts of a model run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vpd.models.autoencoder import Posterior
from vpd.models.clip_text import CLIPTextEncoder
from vpd.models.unet import UNet, UNetOutput
from vpd.tasks.foundation import Foundation
from vpd.tasks.refer import ReferSegmenter

__all__ = ["Work", "counted"]


@dataclass
class Work:
    """What went through each part, whatever the size of the batches."""

    images: int = 0
    """Pictures through the autoencoder."""
    texts: int = 0
    """Sentences through the text encoder."""
    stems: int = 0
    """Latents through what precedes the first cross-attention of the U-Net."""
    rows: int = 0
    """Rows through the rest of it."""


@contextmanager
def counted(model: ReferSegmenter | Foundation) -> Iterator[Work]:
    """Counts what a model does inside of a ``with`` block, also through models that share its
    networks. Nothing is left behind that a forward would have to pass."""
    work = Work()
    encode = model.vae.encode

    def count_images(image: Tensor, **given: Any) -> Posterior:
        work.images += len(image)
        return encode(image, **given)

    def count_texts(_: CLIPTextEncoder, inputs: tuple[Tensor, ...], __: Any) -> None:
        work.texts += len(inputs[0])

    def count_rows(_: UNet, inputs: tuple[Any, ...], out: UNetOutput) -> None:
        work.stems += out.stem_rows
        work.rows += len(inputs[2])

    hooks = [
        model.text.register_forward_hook(count_texts),
        model.unet.register_forward_hook(count_rows),
    ]
    model.vae.encode = count_images  # type: ignore[method-assign]
    try:
        yield work
    finally:
        del model.vae.encode
        for hook in hooks:
            hook.remove()
