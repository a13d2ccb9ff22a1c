"""Frozen copies against the networks they were made from."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import vpd
from vpd import _C

SMALL = vpd.UNetConfig(
    model_channels=32, channel_mult=(1, 2), num_res_blocks=1, num_heads=4, context_dim=16,
    norm_groups=8, attention_resolutions=(1, 2),
)  # fmt: skip


def unet(dtype: torch.dtype = torch.float32) -> vpd.UNet:
    net = vpd.UNet(SMALL, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # the last layers of blocks start at zero
        for p in net.parameters():
            p.add_(torch.randn_like(p) * 0.02)
    return net.to(dtype)


def pyramid(net: vpd.UNet, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 12, 8, generator=generator).to(dtype)
    context = torch.randn(2, 5, 16, generator=generator).to(dtype)
    taps = vpd.Taps(attention=(1, 2), noise=True)
    with torch.no_grad():
        out = net(latents, 3, context, taps=taps)
    return [out.noise, *out.features, *out.attention.values()]


def packed_weights(module: torch.nn.Module) -> int:
    tensors = (t for part in module.modules() for t in vars(part).values())
    return sum(isinstance(t, torch.Tensor) and t.is_mkldnn for t in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_stay_and_weights_are_packed(dtype):
    net = unet(dtype)
    frozen = net.frozen()
    assert type(frozen) is vpd.UNet
    if dtype == torch.float32 or _C.cpu_level().startswith("avx512"):
        assert packed_weights(frozen) == sum(p.dim() > 1 for p in net.parameters())
    assert packed_weights(net) == 0
    most = 1e-5 if dtype == torch.float32 else 0.1
    for got, want in zip(pyramid(frozen, dtype), pyramid(net, dtype), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=most)


def test_nothing_of_the_original_is_shared():
    net = unet()
    frozen, want = net.frozen(), pyramid(net)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    for got, old in zip(pyramid(frozen), want, strict=True):
        torch.testing.assert_close(got, old, rtol=1e-5, atol=1e-5)


def test_low_rank_changes_are_merged():
    net = unet()
    vpd.lora.add_lora(net, vpd.lora.LoraConfig(rank=2))
    with torch.no_grad():
        for p in vpd.lora.lora_parameters(net).values():
            p.normal_(std=0.3)
    frozen = net.frozen()
    assert not any("parametrizations" in name for name, _ in frozen.named_parameters())
    for got, want in zip(pyramid(frozen), pyramid(net), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("what", "word"),
    [
        (lambda net: net.train(), "trained"),
        (lambda net: net.bfloat16(), "moved or converted"),
        (lambda net: net.to("meta"), "moved or converted"),
        (lambda net: net.state_dict(), "saved"),
        (lambda net: net.load_state_dict(unet().state_dict()), "given other weights"),
        (copy.deepcopy, "copied"),
    ],
)
def test_it_stays_as_it_is(what, word):
    frozen = unet().frozen()
    with pytest.raises(RuntimeError, match=f"a frozen UNet cannot be {word}; do that with the"):
        what(frozen)


def gradients(net: vpd.UNet, dtype: torch.dtype) -> list[torch.Tensor]:
    """Of latents and context, where all that a network gives is asked for."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 12, 8, generator=generator).to(dtype).requires_grad_()
    context = torch.randn(2, 5, 16, generator=generator).to(dtype).requires_grad_()
    taps = vpd.Taps(attention=(1, 2), noise=True, map_grad="full")
    out = net(latents, 3, context, taps=taps)
    parts = [out.noise, *out.features, *out.attention.values()]
    grads = [torch.randn(part.shape, generator=generator).to(dtype) for part in parts]
    return list(torch.autograd.grad(parts, [latents, context], grads))


@pytest.mark.parametrize("recompute", ["none", "feed_forward", "attention", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_inputs_are_those_of_the_original(dtype, recompute):
    net = unet(dtype).requires_grad_(False)
    frozen = net.frozen(gradients=True)
    frozen.recompute = recompute
    exact = gradients(unet().requires_grad_(False), torch.float32)
    for got, want, best in zip(gradients(frozen, dtype), gradients(net, dtype), exact, strict=True):
        if dtype == torch.float32:
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * want.abs().max().item())
        else:  # as far from float32 as the original's
            error, usual = ((x - best).norm() / best.norm() for x in (got, want))
            assert error < 1.5 * usual
    for got, want in zip(pyramid(frozen, dtype), pyramid(net.frozen(), dtype), strict=True):
        assert torch.equal(got, want)


def test_gradients_are_given_where_asked_for():
    frozen = unet().frozen()
    assert not any(p.requires_grad for p in frozen.parameters())
    latents = torch.randn(1, 4, 8, 8, requires_grad=True)
    with pytest.raises(ValueError, match=r"gives no gradient; .* freeze it with gradients=True"):
        frozen(latents, 3, torch.randn(1, 5, 16), taps=vpd.Taps(attention=()))


def test_a_whole_model():
    """Text encoder, autoencoder, U-Net and decoder, from a picture and a sentence to a mask."""
    model = vpd.load("vpd-mini-refer")
    picture = np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    want = model(picture, "the small red cube")
    frozen = model.frozen()
    assert packed_weights(frozen) > 50
    got = frozen(picture, "the small red cube")
    torch.testing.assert_close(got.probability, want.probability, rtol=1e-3, atol=1e-4)
    for word, grid in want.attention.items():
        torch.testing.assert_close(got.attention[word], grid, rtol=1e-3, atol=1e-5)
