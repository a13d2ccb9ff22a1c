"""The time path of a U-Net that was fine-tuned at one timestep."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vpd._load import core
from vpd.models.unet import UNet

__all__ = ["restore_time_path"]


@torch.no_grad()
def restore_time_path(unet: UNet, base: UNet, timestep: int) -> None:
    """Gives a U-Net the time embedding and its projections back that it had before fine-tuning.

    Told a single timestep, training can use them as biases only, and unlearns what they say of
    others. What they add at that timestep now stands in the biases of the convolutions before
    them, so outputs there stay as they are; at others the pre-trained time path speaks again.

    Args:
        unet: Fine-tuned at ``timestep``; changed in place.
        base: What it was before.
        timestep: The one it was told.
    """
    mine, theirs = _embedding(unet, timestep), _embedding(base, timestep)
    own, other = dict(unet.named_parameters()), dict(base.named_parameters())
    for place in _projections(unet):
        name = f"{place}.emb_layers.1."
        now = F.linear(mine, own[name + "weight"], own[name + "bias"])
        before = F.linear(theirs, other[name + "weight"], other[name + "bias"])
        own[f"{place}.in_layers.2.bias"].add_(now - before)
    for name, parameter in own.items():
        if name.startswith("time_embed.") or ".emb_layers." in name:
            parameter.copy_(other[name])


def _projections(unet: UNet) -> Iterator[str]:
    """Residual blocks, by the names of their parameters."""
    end = ".emb_layers.1.weight"
    for name, _ in unet.named_parameters():
        if name.endswith(end):
            yield name.removesuffix(end)


def _embedding(unet: nn.Module, timestep: int) -> Tensor:
    """What every residual block projects, [4 * model_channels]."""
    p = {n: q for n, q in unet.named_parameters() if n.startswith("time_embed.")}
    weight = p["time_embed.0.weight"]
    steps = torch.tensor([timestep], device=weight.device)
    h = core.timestep_embedding(steps, weight.shape[1]).to(weight.dtype)[0]
    h = F.silu(F.linear(h, weight, p["time_embed.0.bias"]))
    return F.silu(F.linear(h, p["time_embed.2.weight"], p["time_embed.2.bias"]))
