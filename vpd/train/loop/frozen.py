"""Networks that do not train, held in half precision while others do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import nn

from vpd.lora import LoraConfig, add_lora, lora_parameters
from vpd.train.loop.config import LoopConfig, resolve_precision

__all__ = ["FrozenConfig", "check_frozen", "hold_frozen", "restore_frozen"]


class FrozenConfig(Protocol):
    """Of a training whose networks may be held so."""

    @property
    def frozen_dtype(self) -> str:
        """A dtype of PyTorch."""

    @property
    def frozen(self) -> tuple[str, ...]:
        """Networks whose weights have no part in the training."""

    @property
    def lora(self) -> LoraConfig | None: ...
    @property
    def loop(self) -> LoopConfig: ...


def check_frozen(config: FrozenConfig, device: torch.device) -> None:
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


def hold_frozen(model: nn.Module, config: FrozenConfig) -> None:
    """Rounds the weights of the networks that do not train, in place."""
    dtype = getattr(torch, config.frozen_dtype)
    for part in config.frozen:
        for module in getattr(model, part).modules():
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(weight.detach().to(dtype), weight.requires_grad))


def restore_frozen(
    model: nn.Module,
    config: FrozenConfig,
    device: torch.device,
    build: Callable[[Any], nn.Module],
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
