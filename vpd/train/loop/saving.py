"""What is left of a training: the model's folder, with the recipe that made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from vpd.lora import merge_lora, save_lora
from vpd.tasks import store
from vpd.train.loop.recipe import recipe

__all__ = ["save_trained"]


def save_trained(model: nn.Module, config: Any, metrics: dict[str, float]) -> None:
    """Writes ``config.out/model``, and low-rank changes to ``config.out/lora.safetensors`` too.

    Args:
        model: A task's; left on the CPU, changes merged.
        config: Of its training.
        metrics: What it scores.
    """
    out = Path(config.out)
    if getattr(config, "lora", None) is not None:  # an editor's has no such choice
        unet: Any = model.unet
        save_lora(unet, out / "lora.safetensors")
        merge_lora(unet)
    founded = hasattr(model, "unet") and not config.weights  # or it has a vision transformer
    shipped = store.founded_on(config.foundation) if founded else None
    card = {
        "command": "vpd train, with the config below",
        "config": recipe(config),
        "metrics": metrics,
        "licence": "Apache-2.0",
    }
    store.save(model.float().cpu(), out / "model", foundation=shipped, card=card)
