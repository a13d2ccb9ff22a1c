"""The optimizer of a config, and its groups: which parameters share a learning rate and a weight
decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from vpd.train.loop.config import LoopConfig

__all__ = ["Rule", "grouped", "matrix_rule", "norms", "optimizer_of", "semantic_rule"]

Named = Iterable[tuple[str, nn.Parameter]]
Rule = Callable[[str, nn.Parameter], tuple[float, bool]]
"""From a parameter and its name: the factor of its learning rate, and whether it decays."""


def grouped(named: Named, rule: Rule, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimizer, in the order in which their first parameters come."""
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in named:
        factor, decays = rule(name, parameter)
        own = {"params": [], "lr": lr * factor, "weight_decay": weight_decay if decays else 0.0}
        groups.setdefault((factor, decays), own)["params"].append(parameter)
    return list(groups.values())


def norms(named: Named) -> set[str]:
    """Names of all parameters of normalisations: weights of one dimension, and the biases beside
    them."""
    owners = {
        name.removesuffix(".weight")
        for name, parameter in named
        if name.endswith(".weight") and parameter.dim() == 1
    }
    return {f"{owner}.{leaf}" for owner in owners for leaf in ("weight", "bias")}


def _of_unet(name: str) -> bool:
    return name.startswith(("unet.", "lora."))


def semantic_rule(named: Named, unet_factor: float, mmcv_key_quirk: bool) -> Rule:
    """VPD's groups of segmentation: a factor for the U-Net, no decay for norms.

    Args:
        named: All parameters.
        unet_factor: Of the U-Net's learning rate.
        mmcv_key_quirk: As the released code has them. mmcv looks for the keys ``norm`` and
            ``unet`` in a name; both are of one length, so the first of the alphabet wins, and every
            parameter of a transformer's norm trains at the full rate. Norms that are called
            otherwise (``in_layers.0``, ``bn``) are not found.
    """
    if mmcv_key_quirk:

        def quirk(name: str, parameter: nn.Parameter) -> tuple[float, bool]:
            if "norm" in name:
                return 1.0, False
            return (unet_factor if _of_unet(name) else 1.0), True

        return quirk
    undecayed = norms(named)

    def rule(name: str, parameter: nn.Parameter) -> tuple[float, bool]:
        # A single number, such as the scale of cosines, is no matrix that decay keeps small.
        decays = name not in undecayed and parameter.dim() > 0
        return (unet_factor if _of_unet(name) else 1.0), decays

    return rule


def matrix_rule(unet_factor: float) -> Rule:
    """Groups of VPD's depth and of Mask2Former: a factor for the U-Net, no decay for biases and
    what else has one dimension."""

    def rule(name: str, parameter: nn.Parameter) -> tuple[float, bool]:
        decays = parameter.dim() > 1 and not name.endswith(".bias")
        return (unet_factor if _of_unet(name) else 1.0), decays

    return rule


def optimizer_of(
    groups: list[dict[str, Any]], config: LoopConfig, schedule: Callable[[int], float]
) -> dict[str, Any]:
    """The config's optimizer, with a learning rate that follows ``schedule(step)`` (a factor) after
    the warm-up."""
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
    optimizer = kind(
        groups,
        lr=config.lr,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / max(1, config.warmup)) * schedule(step)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}
