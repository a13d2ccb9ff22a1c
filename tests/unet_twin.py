"""Small U-Nets with random weights, and diffusers' network of the same shape."""

from __future__ import annotations

from typing import Any

import torch

import vpd


def small(**changes) -> vpd.UNet:
    fields = {
        "model_channels": 16, "channel_mult": (1, 2, 2), "num_res_blocks": 1, "num_heads": 2,
        "attention_resolutions": (2, 4), "context_dim": 12, "norm_groups": 4,
    }  # fmt: skip
    net = vpd.UNet(vpd.UNetConfig(**{**fields, **changes}))
    with torch.no_grad():  # zero-initialised layers would hide what lies before them
        for p in net.parameters():
            if not p.any():
                p.normal_(0, 0.1)
    return net


def diffusers_twin(net: vpd.UNet) -> Any:
    from diffusers import UNet2DConditionModel

    c = net.config
    strides = [2**i for i in range(len(c.channel_mult))]
    cross = [s in c.attention_resolutions for s in strides]
    twin = UNet2DConditionModel(
        in_channels=c.in_channels, out_channels=c.out_channels,
        block_out_channels=[m * c.model_channels for m in c.channel_mult],
        layers_per_block=c.num_res_blocks, attention_head_dim=c.num_heads,
        cross_attention_dim=c.context_dim, norm_num_groups=c.norm_groups,
        down_block_types=["CrossAttnDownBlock2D" if x else "DownBlock2D" for x in cross],
        up_block_types=["CrossAttnUpBlock2D" if x else "UpBlock2D" for x in reversed(cross)],
    )  # fmt: skip
    return twin
