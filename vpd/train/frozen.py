"""Networks that do not train, held in half precision while others do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from vpd.lora import add_lora, lora_parameters
from vpd.train.dense_fields import DenseTrainConfig
from vpd.train.loop import resolve_precision
from vpd.train.refer_config import ReferTrainConfig
from vpd.train.refer_model import build

__all__ = ["check_frozen", "hold_frozen", "restore_frozen"]


def check_frozen(config: ReferTrainConfig | DenseTrainConfig, device: torch.device) -> None:
    """Refuses a ``frozen_dtype`` that this machine could use only by something else in its place.

    Raises:
        ValueError: float16 under autocast to bfloat16, or on a processor without it.
    """
    if config.frozen_dtype != "float16":
        return
    if device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        raise ValueError(
            "frozen_dtype=float16 needs a GPU or a processor with float16 arithmetic, got neither; "
            "bfloat16 runs anywhere"
        )
    if resolve_precision(config.loop.precision) != "32-true":
        raise ValueError(
            f"loop.precision={config.loop.precision} computes in bfloat16 here, got "
            "frozen_dtype=float16: choose bfloat16, or loop.precision=32"
        )


def hold_frozen(model: nn.Module, config: ReferTrainConfig | DenseTrainConfig) -> None:
    """Rounds the weights of the networks that do not train, in place."""
    dtype = getattr(torch, config.frozen_dtype)
    for part in config.frozen:
        for module in getattr(model, part).modules():
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(weight.detach().to(dtype), weight.requires_grad))


def restore_frozen(
    model: nn.Module,
    config: ReferTrainConfig | DenseTrainConfig,
    device: torch.device,
    build: Callable[[Any], nn.Module] = build,
) -> None:
    """Undoes :func:`hold_frozen`: whole weights, from where they came. What has trained stays.

    Args:
        model: Changed in place.
        config: Of the training.
        device: Where the weights are wanted.
        build: Makes the model that the run started from, of its config.
    """
    if config.frozen_dtype == "float32":
        return
    whole: Any = build(config).to(device)
    if config.lora is not None:
        add_lora(whole.unet, config.lora)
        trained = lora_parameters(cast(Any, model).unet)
        with torch.no_grad():
            for name, parameter in lora_parameters(whole.unet).items():
                parameter.copy_(trained[name])
    for name in config.frozen:
        setattr(model, name, getattr(whole, name))
