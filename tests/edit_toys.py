"""What tests of editing share: an editor of some ten thousand weights, and its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import torch

from vpd.tasks import store
from vpd.tasks.editor import Editor

SIZE = tiny.PARTS["image_size"]
LOOP = {
    "steps": 4, "batch": 2, "lr": 1e-2, "warmup": 1, "ema": 0.5, "log_every": 1, "val_every": 100,
    "checkpoint_every": 2, "precision": "32",
}  # fmt: skip


def editor(seed: int = 0) -> Editor:
    """An editor with random weights, also where training starts from zero."""
    model = Editor.from_foundation(tiny.foundation(seed))
    with torch.no_grad():
        model.unet.get_parameter("input_blocks.0.0.weight")[:, 4:].normal_(0, 0.1)
        for parameter in model.unet.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.normal_(0, 0.1)
    return model


def recipe(folder: Path) -> dict[str, Any]:
    """Fields of `vpd train edit`, as a config file has them."""
    return {
        "foundation": str(store.save(tiny.foundation(), folder / "foundation")),
        "data": {
            "split": "train", "limit": 4, "val_limit": 2, "cache_dir": str(folder / "cache")
        },
        "loop": LOOP,
        "crop": SIZE,
        "progress": False,
    }  # fmt: skip
