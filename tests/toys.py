"""What tests of training share: a foundation of a few thousand weights, and recipes of a few
steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from vpd.data import tabletop
from vpd.models.autoencoder import AutoencoderConfig
from vpd.models.clip_text import CLIPTextConfig
from vpd.models.unet import UNetConfig
from vpd.tasks import store
from vpd.tasks.foundation import Foundation, FoundationConfig

TOY = FoundationConfig(
    unet=UNetConfig(
        model_channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(2,),
        num_heads=2, context_dim=16, norm_groups=4,
    ),
    vae=AutoencoderConfig(
        ch=8, ch_mult=(1, 1, 1), num_res_blocks=1, norm_groups=4, mid_attention=False
    ),
    text=CLIPTextConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        vocab_subset=tuple(range(256, 2048)),
    ),
    image_size=128,
    token_length=24,
)  # fmt: skip

LOOP = {
    "steps": 4, "batch": 2, "lr": 1e-2, "warmup": 1, "ema": 0.5, "log_every": 1, "val_every": 100,
    "checkpoint_every": 2, "precision": "32",
}  # fmt: skip


@contextmanager
def few_scenes() -> Iterator[pytest.MonkeyPatch]:
    """Splits of six scenes instead of hundreds, where no limit is given."""
    with pytest.MonkeyPatch.context() as patch:
        whole = tabletop.load_split

        def few(name, cache_dir=None, workers=None, limit=None, **options):
            return whole(name, cache_dir, 1, limit or 6, **options)

        patch.setattr(tabletop, "load_split", few)
        yield patch


def write_foundation(folder: Path, *, closed: bool = True) -> str:
    """A foundation with random weights on disk. Its transformers are closed by weights of zero, as
    before any training, or not."""
    torch.manual_seed(5)
    model = Foundation(TOY)
    with torch.no_grad():
        for parameter in () if closed else model.unet.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.normal_(std=0.1)
    return str(store.save(model, folder))


def recipe(foundation: str, cache: Path) -> dict[str, Any]:
    """Fields of `vpd train`, as a config file has them."""
    return {
        "foundation": foundation,
        "data": {"split": "train", "limit": 4, "val_limit": 2, "cache_dir": str(cache)},
        "loop": LOOP,
        "hidden": 8,
        "attention": [2],
    }
