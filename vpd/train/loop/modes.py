"""Training modes: which parts of a model train, and choices about them that contradict each
other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vpd.lora import add_lora, lora_parameters
from vpd.protocol import NoiseSpec

__all__ = ["check_modes", "own_parts"]


def check_modes(config: Any, before: Mapping[str, bool]) -> None:
    """Refuses what no training can be.

    Args:
        config: Of the training, whatever its task.
        before: Choices that let something train in front of the U-Net, and whether they are made.

    Raises:
        ValueError: Choices that contradict each other; names them.
    """
    if config.protocol is not None and config.noise is not None:
        raise ValueError("protocol and noise were both given: choose one")
    NoiseSpec.check(config.protocol, config.t)
    if config.lora is not None and config.freeze == "optimizer_only":
        raise ValueError("lora freezes the U-Net's weights: freeze=optimizer_only has no meaning")
    if config.frozen_dtype == "float16" and "unet" in config.frozen and any(before.values()):
        *names, last = before
        raise ValueError(
            "frozen_dtype=float16 would lose small gradients that pass through the frozen U-Net to "
            f"{', '.join(names)} or {last}: choose bfloat16"
        )


def own_parts(module: nn.Module, model: Any, parts: Mapping[str, bool], config: Any) -> None:
    """Makes the parts of a model that train those of a training: nothing else is optimised,
    averaged and saved in checkpoints.

    Args:
        module: The training.
        model: Of a task; which of its weights need gradients is decided here.
        parts: Names of the model's networks, and whether they train.
        config: Of the training.
    """
    if hasattr(model, "unet"):  # or it has a vision transformer, which never trains
        model.unet.recompute = config.recompute
    model.requires_grad_(False)
    for name, trains in parts.items():
        if trains:
            module.add_module(name, getattr(model, name).requires_grad_(True))
    if config.freeze == "optimizer_only":
        model.unet.requires_grad_(True)
    if config.lora is not None:
        add_lora(model.unet, config.lora, generator=torch.Generator().manual_seed(config.seed))
        module.lora = nn.ParameterList(lora_parameters(model.unet).values())
