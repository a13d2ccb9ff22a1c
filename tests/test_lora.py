"""LoRA: against its formula, against peft in diffusers, through files and merging."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import vpd
from vpd.lora import LoraConfig, add_lora, load_lora, lora_parameters, merge_lora, save_lora

SMALL = vpd.UNetConfig(model_channels=32, num_heads=4, context_dim=24, norm_groups=8)


def network(seed: int = 0) -> vpd.UNet:
    net = vpd.UNet(SMALL, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.abs().max() == 0:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(seed))
    return net


def output(net: vpd.UNet) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, 16, 16, generator=draw)
    context = torch.randn(1, 5, 24, generator=draw)
    with torch.no_grad():
        return net(latents, 3, context, taps=vpd.Taps(noise=True)).noise


def trained(net: vpd.UNet, **config) -> vpd.UNet:
    """A U-Net whose A and B are no longer what they start as."""
    add_lora(net, LoraConfig(**config), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for parameter in lora_parameters(net).values():
            draw = torch.Generator().manual_seed(3)
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return net


def test_nothing_changes_at_first():
    net = network()
    expected = output(net)
    names = add_lora(net)
    torch.testing.assert_close(output(net), expected, rtol=0, atol=0)
    assert len(names) == 3 * len(net.attention_layers())
    assert all(".attn2.to_" in name and name.endswith(".weight") for name in names)
    own = {id(p) for p in lora_parameters(net).values()}
    assert {id(p) for p in net.parameters() if p.requires_grad} == own


@pytest.mark.parametrize("rank", [1, 4])
def test_parameters_at_full_size(rank):
    with torch.device("meta"):
        net = vpd.UNet()
        add_lora(net, LoraConfig(rank=rank))
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 74_496 * rank


@pytest.mark.parametrize("alpha", [None, 12.0])
def test_weights_follow_the_formula(alpha):
    net = network()
    plain = copy.deepcopy(net)
    names = add_lora(
        net,
        LoraConfig(rank=2, alpha=alpha, targets=("to_q", "to_out"), attention=("self", "cross")),
    )
    assert len(names) == 4 * len(net.attention_layers())
    parts = lora_parameters(net)
    with torch.no_grad():
        for parameter in parts.values():
            parameter.normal_()
    expected = dict(plain.named_parameters())
    for name in names:
        owner, _, leaf = name.rpartition(".")
        change = (alpha or 2) / 2 * parts[f"{name}:B"] @ parts[f"{name}:A"]
        torch.testing.assert_close(getattr(net.get_submodule(owner), leaf), expected[name] + change)


def test_a_and_b_train_and_nothing_else_does():
    net = trained(network())
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    out = net(torch.randn(1, 4, 16, 16), 3, torch.randn(1, 5, 24), taps=vpd.Taps(noise=True))
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1.0)
    out.noise.square().sum().backward()
    optimizer.step()
    changed = {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n, p in net.named_parameters() if p.requires_grad}
    assert len(changed) == 6 * len(net.attention_layers())


def test_merging_keeps_outputs():
    net = trained(network(), attention=("self", "cross"))
    expected = output(net)
    merge_lora(net)
    torch.testing.assert_close(output(net), expected, rtol=1e-5, atol=1e-5)
    assert list(net.state_dict()) == list(network().state_dict())
    assert not lora_parameters(net)


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_through_a_file(tmp_path, alpha):
    net = trained(network(), alpha=alpha)
    save_lora(net, tmp_path / "lora.safetensors")
    again = network()
    assert load_lora(again, tmp_path / "lora.safetensors") == [
        name.removesuffix(":A") for name in lora_parameters(net) if name.endswith(":A")
    ]
    torch.testing.assert_close(output(again), output(net), rtol=1e-5, atol=1e-6)
    assert (output(again) - output(network())).abs().max() > 1e-3


def test_alphas_of_a_file(tmp_path):
    net = trained(network(), rank=4)
    save_lora(net, tmp_path / "plain.safetensors")
    tensors, _ = vpd.weights.read_state_dict(tmp_path / "plain.safetensors")
    places = [name.removesuffix(".lora_A.weight") for name in tensors if "lora_A" in name]
    tensors |= {f"{place}.alpha": torch.tensor(2.0) for place in places}
    vpd.save_weights(tensors, tmp_path / "alpha.safetensors")
    again = network()
    load_lora(again, tmp_path / "alpha.safetensors")
    torch.testing.assert_close(output(again), output(trained(network(), rank=4, alpha=2.0)))


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_diffusers_reads_the_file(tmp_path, alpha):
    """With peft's own implementation."""
    pytest.importorskip("peft")
    from diffusers import UNet2DConditionModel
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    net = network()
    vpd.save_weights(net, tmp_path / "ldm.safetensors")
    vpd.weights.convert(tmp_path / "ldm.safetensors", tmp_path / "twin.safetensors", "diffusers")
    twin = UNet2DConditionModel(
        block_out_channels=[32, 64, 128, 128], cross_attention_dim=24, attention_head_dim=4,
        norm_num_groups=8, sample_size=16,
    )  # fmt: skip
    tensors, _ = vpd.weights.read_state_dict(tmp_path / "twin.safetensors")
    twin.load_state_dict(tensors)
    trained(net, alpha=alpha)
    save_lora(net, tmp_path / "lora.safetensors")
    loader = StableDiffusionLoraLoaderMixin
    state, alphas = loader.lora_state_dict(str(tmp_path / "lora.safetensors"))
    loader.load_lora_into_unet(state, alphas, twin)
    draw = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, 16, 16, generator=draw)
    context = torch.randn(1, 5, 24, generator=draw)
    with torch.no_grad():
        expected = twin(latents, 3, context).sample
    torch.testing.assert_close(output(net), expected, rtol=1e-4, atol=1e-4)


def test_copies_and_recomputation():
    net = trained(network())
    torch.testing.assert_close(output(copy.deepcopy(net)), output(net), rtol=0, atol=0)
    gradients = []
    for mode in ("none", "all"):
        net.recompute = mode
        net.zero_grad()
        out = net(torch.ones(1, 4, 16, 16), 3, torch.ones(1, 5, 24))
        sum(f.square().mean() for f in out.features).backward()
        gradients.append([p.grad.clone() for p in lora_parameters(net).values()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"targets": ("to_x",)}, "targets must be some of"),
        ({"attention": ()}, "attention must be some of"),
    ],
)
def test_bad_configs(change, message):
    with pytest.raises(ValueError, match=message):
        LoraConfig(**change)


def test_bad_use(tmp_path):
    net = network()
    path = tmp_path / "lora.safetensors"
    with pytest.raises(ValueError, match="has no LoRA"):
        save_lora(net, path)
    add_lora(net)
    with pytest.raises(ValueError, match="has LoRA already"):
        add_lora(net)
    save_lora(net, path)
    with pytest.raises(ValueError, match="has LoRA already"):
        load_lora(net, path)
    other = vpd.UNet(vpd.UNetConfig(model_channels=16, num_heads=4, context_dim=24, norm_groups=8))
    before = list(other.state_dict())
    with pytest.raises(ValueError, match="does not fit this U-Net: expected A"):
        load_lora(other, path)
    tensors, _ = vpd.weights.read_state_dict(path)
    for name, change in {
        "half": {k: v for k, v in tensors.items() if "lora_B" not in k},
        "more": {**tensors, "unet.extra": torch.zeros(1)},
        "strange": {
            "unet.nowhere.lora_A.weight": torch.zeros(1, 1),
            "unet.nowhere.lora_B.weight": torch.zeros(1, 1),
        },
        "none": {"a": torch.zeros(1)},
    }.items():
        vpd.save_weights(change, tmp_path / f"{name}.safetensors")
        with pytest.raises(ValueError, match=f"{name}.safetensors: "):
            load_lora(other, tmp_path / f"{name}.safetensors")
    assert list(other.state_dict()) == before
    assert isinstance(other.get_submodule("input_blocks"), nn.Module)
