"""Activation recomputation: the same gradients, out of less memory."""

from __future__ import annotations

import gc

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import vpd

SMALL = vpd.UNetConfig(model_channels=32, num_heads=4, context_dim=24, norm_groups=8)
MODES = ("feed_forward", "attention", "all")


def network() -> vpd.UNet:
    net = vpd.UNet(SMALL, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # the original's zero layers would hide most of the gradients
        for index, parameter in enumerate(net.parameters()):
            if parameter.abs().max() == 0:
                generator = torch.Generator().manual_seed(index)
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return net


def inputs(images: int = 2, rows: int = 2) -> dict:
    draw = torch.Generator().manual_seed(1)
    return {
        "latents": torch.randn(images, 4, 16, 16, generator=draw),
        "context": torch.randn(rows, 5, 24, generator=draw, requires_grad=True),
        "timesteps": 7,
    }


def total(out: vpd.models.unet.UNetOutput) -> torch.Tensor:
    """A number that depends on every output, each with its own weights."""
    parts = [*out.features, *out.attention.values(), *out.blocks.values()]
    parts += [out.noise] if out.noise is not None else []
    weights = torch.Generator().manual_seed(2)
    return sum((p.float() * torch.randn(p.shape, generator=weights)).sum() for p in parts)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6, name


def gradients(net: vpd.UNet, mode: str, taps: vpd.Taps, **given) -> dict[str, torch.Tensor]:
    net.recompute = mode
    net.zero_grad()
    given = given or inputs()
    given["context"] = given["context"].detach().requires_grad_()
    loss = total(net(**given, taps=taps))
    loss.backward()
    found = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    return {**found, "context": given["context"].grad, "loss": loss.detach()}


TAPS = {
    "features": vpd.Taps(),
    "noise": vpd.Taps(noise=True, features=False, attention=()),
    "maps": vpd.Taps(attention=(1, 2, 4, 8), map_grad="full", selector="up_cross+mid_cross"),
    "blocks": vpd.Taps(
        block_inputs=("output_blocks.5", "input_blocks.4"), block_outputs=("output_blocks.8",)
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("taps", TAPS.values(), ids=TAPS)
def test_gradients_are_those_of_a_plain_backward(mode, taps):
    net = network()
    expected, found = gradients(net, "none", taps), gradients(net, mode, taps)
    assert len(found) > 100
    assert_same(found, expected)


@pytest.mark.parametrize("mode", MODES)
def test_one_image_with_several_sentences(mode):
    net = network()
    index = torch.tensor([0, 1, 1, 0])
    given = {**inputs(rows=4), "image_index": index}
    expected = gradients(net, "none", vpd.Taps(), **given)
    assert_same(gradients(net, mode, vpd.Taps(), **given), expected)


@pytest.mark.parametrize("mode", MODES)
def test_frozen_weights_get_no_gradient(mode):
    net = network().requires_grad_(False)
    expected = gradients(net, "none", vpd.Taps())
    found = gradients(net, mode, vpd.Taps())
    assert found.keys() == {"context", "loss"}
    assert_same(found, expected)


class Convolutions(TorchDispatchMode):
    """Notes the precision that convolutions run in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.dtype] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.seen.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


def test_the_second_run_sees_the_first_ones_autocast():
    net = network()
    net.recompute = "all"
    with torch.autocast("cpu", torch.bfloat16):
        loss = total(net(**inputs()))
    with Convolutions() as second:
        loss.backward()  # outside of autocast
    assert len(second.seen) > 20
    assert set(second.seen) == {torch.bfloat16}
    assert not torch.is_autocast_enabled("cpu")
    loss = total(net(**inputs()))
    with Convolutions() as second, torch.autocast("cpu", torch.bfloat16):
        loss.backward()
        assert torch.is_autocast_enabled("cpu")
    assert set(second.seen) == {torch.float32}


def kept(net: vpd.UNet, mode: str) -> int:
    """Bytes that a forward keeps for its backward, weights apart."""
    net.recompute = mode
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = net(**inputs())
    del out
    return sum(seen.values())


def test_less_is_kept():
    for frozen in (False, True):
        net = network().requires_grad_(not frozen)
        some, hidden, attention, whole = (kept(net, mode) for mode in ("none", *MODES))
        assert whole < 0.25 * some
        assert whole < attention < 0.6 * some
        assert attention < hidden < 0.75 * some


def test_frozen_convolutions_keep_nothing_of_their_input():
    net = network()
    trained = kept(net, "none")
    frozen = kept(net.requires_grad_(False), "none")
    assert frozen < 0.85 * trained


def test_what_is_frozen_before_the_text_keeps_nothing():
    net = network().requires_grad_(False)
    out = net(torch.zeros(1, 4, 16, 16), 1, torch.zeros(1, 5, 24))
    assert not any(f.requires_grad for f in out.features)


def test_the_network_may_be_gone_before_its_backward():
    net, given = network(), inputs()
    expected = gradients(net, "none", vpd.Taps(), **inputs())
    net.recompute = "all"
    loss = total(net(**given))
    del net
    gc.collect()
    loss.backward()
    torch.testing.assert_close(given["context"].grad, expected["context"], rtol=1e-4, atol=1e-4)


def test_second_derivatives_are_refused():
    net, given = network(), inputs()
    net.recompute = "all"
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(total(net(**given)), given["context"], create_graph=True)


def test_changing_a_weight_before_the_backward_is_an_error():
    net, given = network(), inputs()
    net.recompute = "all"
    loss = total(net(**given))
    with torch.no_grad():
        next(net.output_blocks.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_unknown_mode():
    with pytest.raises(ValueError, match=r"recompute must be one of.*got 'some'"):
        network().recompute = "some"


def test_copies_keep_the_mode():
    import copy

    net = network()
    net.recompute = "attention"
    assert copy.deepcopy(net).recompute == "attention"
