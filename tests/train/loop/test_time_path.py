"""Folding a fine-tuned time path into biases, at the one timestep that training saw."""

from __future__ import annotations

import copy

import torch

from vpd.models.unet import Taps, UNet, UNetConfig
from vpd.train.loop.time_path import restore_time_path

CONFIG = UNetConfig(
    model_channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(2,),
    num_heads=2, context_dim=16, norm_groups=4,
)  # fmt: skip


def outputs(unet: UNet, t: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, 4, 16, 16, generator=g), torch.randn(2, 5, 16, generator=g)
    with torch.no_grad():
        return unet(x, torch.tensor([t, t]), context, taps=Taps(noise=True, attention=())).noise


def is_time(name: str) -> bool:
    return name.startswith("time_embed.") or ".emb_layers." in name


def test_outputs_stay_at_the_timestep_and_weights_return_to_the_base():
    torch.manual_seed(0)
    base = UNet(CONFIG)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.normal_(0, 0.1)
    unet = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    at, elsewhere = outputs(unet, 300), outputs(unet, 700)

    restore_time_path(unet, base, 300)

    torch.testing.assert_close(outputs(unet, 300), at, rtol=1e-4, atol=1e-4)
    assert (outputs(unet, 700) - elsewhere).abs().max() > 1e-3
    before, changed = dict(base.named_parameters()), dict(unet.named_parameters())
    assert any(is_time(name) for name in before)
    for name, parameter in changed.items():
        assert torch.equal(parameter, before[name]) == is_time(name), name
