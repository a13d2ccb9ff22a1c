"""Counted FLOP and bytes against closed forms and PyTorch's own counter; the roofline by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import vpd
from vpd import reference
from vpd.cost import FORMULAS, Operation, Operations, scaled, summed
from vpd.cost_time import Device, Reach, all_reduce, devices_of, seconds
from vpd.memory import LiveBytes
from vpd.models.unet import UNetConfig

SMALL = UNetConfig(
    model_channels=16, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(1,),
    num_heads=2, context_dim=24, norm_groups=8,
)  # fmt: skip


def count(run, model=None):
    with Operations(model) as operations:
        run()
    return operations.found


def total(found, *kinds):
    return sum(own.flop for own in found if not kinds or own.kind in kinds)


def test_a_convolution():
    x, weight = torch.zeros(2, 6, 10, 12), torch.zeros(8, 3, 3, 3)
    (own,) = count(lambda: F.conv2d(x, weight, stride=2, padding=1, groups=2))
    assert own.kind == "convolution"
    assert own.flop == 2 * (2 * 8 * 5 * 6) * 3 * 9  # multiply-adds of each output, times two
    assert own.bytes == 4 * (x.numel() + weight.numel() + 2 * 8 * 5 * 6)


def test_a_linear_layer_forward_and_backward():
    x, layer = torch.zeros(7, 5, requires_grad=True), torch.nn.Linear(5, 3)
    found = count(lambda: layer(x).sum().backward())
    product = 2 * 7 * 5 * 3
    assert total([own for own in found if own.phase == "forward"]) == product
    assert total([own for own in found if own.phase == "backward"]) == 2 * product  # x and weight
    assert {own.kind for own in found if own.flop} == {"matrix"}


def test_attention():
    q, k = torch.zeros(2, 64, 24), torch.zeros(2, 7, 24)
    product = 2 * 2 * 64 * 7 * 24
    for run in (
        lambda: vpd.ops.attention(q, k, k, None, 3),
        lambda: vpd.ops.cross_attention(q, k, k, None, 3),
    ):
        found = count(run)
        assert total(found) == total(found, "attention") == 2 * product  # scores, and values
    q.requires_grad_()
    found = count(lambda: vpd.ops.cross_attention(q, k, k, None, 3)[0].sum().backward())
    backward = [own for own in found if own.phase == "backward"]
    assert total(backward) == 3 * product  # scores again, their gradient, that of q


def test_pytorchs_counter_agrees_on_a_plain_twin():
    def run(ops):
        draw = torch.Generator().manual_seed(0)
        x = torch.rand(2, 64, 24, generator=draw, requires_grad=True)
        tokens = torch.rand(2, 7, 24, generator=draw, requires_grad=True)
        weight = torch.rand(48, 24, 1, 1, generator=draw, requires_grad=True)
        image = x.transpose(1, 2).unflatten(2, (8, 8))
        y = F.conv2d(ops.group_norm_silu(image, torch.ones(24), torch.zeros(24), 4), weight)
        y = ops.geglu(y.flatten(2).transpose(1, 2))
        out, maps = ops.cross_attention(y, tokens, tokens, None, 3)
        (out.sum() + maps.square().sum()).backward()

    with FlopCounterMode(display=False) as plain:
        run(reference)
    again = 2 * 2 * 64 * 7 * 24  # scores, which the operator computes again for its backward
    found = count(lambda: run(vpd.ops))
    assert total(found) == plain.get_total_flops() + again
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as own:
        run(vpd.ops)
    assert own.get_total_flops() == total(found)


def test_deformable_attention():
    shapes = torch.tensor([[4, 4], [2, 2]])
    value = torch.zeros(1, 20, 2, 6, requires_grad=True)
    at, weights = torch.zeros(1, 5, 2, 2, 3, 2), torch.zeros(1, 5, 2, 2, 3)
    found = count(lambda: vpd.ops.deformable_attention(value, shapes, at, weights).sum().backward())
    samples = 5 * 2 * 2 * 3 * 6
    assert [own.flop for own in found if own.flop] == [10 * samples, 30 * samples]


def test_published_counts_of_stable_diffusion_at_512():
    """677 and 1082 GFLOP: products with weights; what attention multiplies comes on top."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        net = vpd.UNet()
        latents, context = torch.zeros(1, 4, 64, 64), torch.zeros(1, 77, 768)
        unet = count(lambda: net(latents, 1, context, taps=vpd.Taps(noise=True)))
        vae = vpd.AutoencoderKL(vpd.AutoencoderConfig(encode_only=True))
        encoder = count(lambda: vae.encode(torch.zeros(1, 3, 512, 512)))
    assert total(unet, "convolution", "matrix") == pytest.approx(677e9, rel=0.01)
    assert total(encoder, "convolution", "matrix") == pytest.approx(1082e9, rel=0.01)
    grids = ((64, 320, 5), (32, 640, 5), (16, 1280, 5), (8, 1280, 1))  # side, width, blocks
    attention = sum(n * 4 * side**2 * (side**2 + 77) * width for side, width, n in grids)
    assert total(unet, "attention") == attention
    assert total(encoder, "attention") == 4 * 4096**2 * 512


@pytest.mark.parametrize("gradients", [False, True])
def test_a_frozen_network_counts_like_the_one_it_was_made_from(gradients):
    net = vpd.UNet(SMALL)
    latents, context = torch.zeros(2, 4, 16, 16, requires_grad=gradients), torch.zeros(2, 5, 24)
    taps = vpd.Taps(noise=True, features=False, attention=())

    def run(own):
        with torch.set_grad_enabled(gradients):
            found = own(latents, 1, context, taps=taps).noise
            if gradients:
                torch.autograd.grad(found.sum(), latents)

    plain = count(lambda: run(net.requires_grad_(False)))
    with LiveBytes(net.parameters()) as plain_bytes:
        run(net)
    frozen = net.frozen(gradients=gradients)
    found = count(lambda: run(frozen))
    for phase in ("forward", "backward"):
        for kind in ("convolution", "matrix", "attention"):
            flops = [
                total([own for own in of if own.phase == phase], kind) for of in (plain, found)
            ]
            assert flops[0] == flops[1], (phase, kind)
            assert bool(flops[0]) == (gradients or phase == "forward")
    with LiveBytes() as live:
        run(frozen)
    assert live.peak <= 1.05 * plain_bytes.peak


def test_bytes():
    x, y = torch.zeros(100), torch.zeros(100)
    assert [own.bytes for own in count(lambda: x + y)] == [1200]
    assert [own.bytes for own in count(lambda: x.add_(y))] == [1200]
    assert [own.bytes for own in count(lambda: x.view(10, 10).t()[:3])] == []
    one = torch.zeros(1).expand(100)  # shares its memory
    assert [own.bytes for own in count(lambda: x + one)] == [804]


class _Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.adapter = vpd.TextAdapter(24)
        self.unet = vpd.UNet(SMALL)

    def forward(self, rows):
        context = self.adapter(torch.zeros(rows, 5, 24))
        taps = vpd.Taps(noise=True, features=False, attention=())
        return self.unet(torch.zeros(rows, 4, 16, 16), 1, context, taps=taps).noise.sum()


def test_a_backward_belongs_to_the_part_of_its_forward():
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = _Two()
        found = summed((own, 1) for own in count(lambda: model(1).backward(), model))
        model.unet.recompute = "all"
        again = summed((own, 1) for own in count(lambda: model(1).backward(), model))
        alone = count(lambda: model.adapter(torch.zeros(1, 5, 24)))
    flops = {key: flop for key, (flop, _) in found.items() if flop}
    assert list(flops) == [
        ("adapter", "forward"), ("unet", "forward"), ("unet", "backward"), ("adapter", "backward"),
    ]  # fmt: skip
    assert flops["adapter", "forward"] == total(alone)
    assert flops["adapter", "backward"] == pytest.approx(2 * total(alone), rel=0.51)
    assert 1.5 < flops["unet", "backward"] / flops["unet", "forward"] < 2.3
    for part in ("adapter", "unet"):
        assert again[part, "forward"][0] == flops[part, "forward"]
    assert again["adapter", "backward"][0] == flops["adapter", "backward"]
    extra = again["unet", "backward"][0] - flops["unet", "backward"]
    assert extra == pytest.approx(flops["unet", "forward"], rel=0.05)
    assert "core_tensors" not in vars(model.unet)  # nothing stays behind


def test_more_rows_from_one_and_two():
    def rows(n):
        with FakeTensorMode(allow_non_fake_inputs=True):
            model = _Two()

            def step():
                found = model(n)
                for row in range(n):  # once for each row
                    found = found + torch.zeros(50).cumsum(0)[row]
                found.backward()

            return count(step, model)

    one, two, five = rows(1), rows(2), rows(5)
    grown = list(scaled(one, two, 5))
    assert sum(times * own.flop for own, times in grown) == total(five)
    assert sum(times * own.bytes for own, times in grown) == sum(own.bytes for own in five)
    assert sum(times for _, times in grown) == len(five)


CARD = Device(
    "card", {"float32": 10e12, "tf32": 40e12, "bfloat16": 80e12}, 1e12, 10e9, 50e9,
    Reach(0.5, 0.5, 0.25, 0.8), 5e-6,
)  # fmt: skip


def operation(kind, flop, moved, dtype=torch.float32):
    return [(Operation("aten.x", "", "forward", kind, dtype, flop, moved), 1.0)]


@pytest.mark.parametrize(
    ("call", "autocast", "expected"),
    [
        (operation("matrix", 1e12, 1e6), None, 1 / 5),
        (operation("convolution", 1e12, 1e6), None, 1 / 20),  # TF32
        (operation("matrix", 1e12, 1e6, torch.bfloat16), None, 1 / 40),
        (operation("matrix", 1e12, 1e6, torch.float16), None, 1 / 5),  # has none: float32
        (operation("attention", 1e12, 1e6), torch.bfloat16, 1 / 20),  # as a GPU runs it
        (operation("matrix", 1e9, 8e9), None, 1 / 100),  # waits for memory
        (operation("other", 0, 8e9), None, 1 / 100),
        (operation("other", 0, 8), None, 5e-6),
        (operation("matrix", 1e12, 1e6) * 3, None, 3 / 5),
    ],
)
def test_time_of_an_operator(call, autocast, expected):
    assert seconds(call, CARD, autocast) == pytest.approx(expected)


def test_all_reduce_in_a_ring():
    sent, took = all_reduce(1_000_000, CARD, 8)
    assert sent == 2 * 7 / 8 * 4_000_000
    assert took == pytest.approx(sent / 50e9)
    assert all_reduce(1_000_000, CARD, 1) == (0, 0)


def test_devices_by_name():
    (t4, here) = devices_of(["T4", "here"])
    assert t4.peaks["float16"] == 65e12
    assert min(here.bandwidth, here.peaks["float32"], here.memory) > 1e8
    assert 0 < here.overhead < 1e-2
    with pytest.raises(ValueError, match=r"device must be one of here, T4, .*got 'T5'"):
        devices_of(["T5"])
