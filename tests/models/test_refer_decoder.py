"""The mask decoder against VPD's recorded outputs and a plain PyTorch twin."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import assert_close, error, key_list, load_golden, strip
from torch import nn
from torch.nn import functional as F

import vpd
from vpd.models.refer_decoder import ReferDecoderConfig

SIZES = [(13, 9), (7, 5), (3, 4), (2, 1)]


class Twin(nn.Module):
    """The same network of PyTorch's own layers."""

    def __init__(self, dims: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        channels = dims[-1]
        self.levels = range(len(dims) - 2, -1, -1)
        for level in self.levels:
            tag = level + 2
            self.add_module(
                f"conv1_{tag}", nn.Conv2d(channels + dims[level], hidden, 3, padding=1, bias=False)
            )
            self.add_module(f"bn1_{tag}", nn.BatchNorm2d(hidden))
            self.add_module(f"conv2_{tag}", nn.Conv2d(hidden, hidden, 3, padding=1, bias=False))
            self.add_module(f"bn2_{tag}", nn.BatchNorm2d(hidden))
            channels = hidden
        self.conv1_1 = nn.Conv2d(hidden, 2, 1)

    def forward(self, features):
        x = features[-1]
        for level in self.levels:
            x = F.interpolate(x, features[level].shape[-2:], mode="bilinear", align_corners=True)
            x = torch.cat([x, features[level]], 1)
            for part in ("1", "2"):
                conv, norm = (
                    self._modules[f"conv{part}_{level + 2}"],
                    self._modules[f"bn{part}_{level + 2}"],
                )
                x = F.relu(norm(conv(x)))
        return self.conv1_1(x)


def pair(dims=(4, 7, 6, 5), hidden=8) -> tuple[vpd.ReferDecoder, Twin]:
    twin = Twin(dims, hidden).double()
    ours = vpd.ReferDecoder(ReferDecoderConfig(dims=dims, hidden=hidden)).double()
    with torch.no_grad():
        for name, buffer in twin.named_buffers():
            if name.endswith(("mean", "var")):
                buffer.uniform_(0.5, 2)
        for parameter in twin.parameters():
            parameter.normal_(0, 0.5)
    ours.load_state_dict(twin.state_dict())
    return ours, twin


def maps(dims=(4, 7, 6, 5), sizes=SIZES):
    return [torch.randn(2, c, *s, dtype=torch.double) for c, s in zip(dims, sizes, strict=True)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", [2, 4])
def test_forward_gradients_and_statistics_match_the_twin(training, count):
    dims = (4, 7, 6, 5)[:count]
    ours, twin = (net.train(training) for net in pair(dims))
    features = maps(dims, SIZES[:count])
    grads = []
    for net in (ours, twin):
        inputs = [f.clone().requires_grad_() for f in features]
        out = net(inputs)
        assert out.shape == (2, 2, *SIZES[0])
        out.sin().sum().backward()
        grads.append((out, *(f.grad for f in inputs)))
    for got, want in zip(*grads, strict=True):
        assert_close(got, want, 1e-9)
    for got, want in zip(ours.parameters(), twin.parameters(), strict=True):
        assert_close(got.grad, want.grad, 1e-8)
    for name, want in twin.named_buffers():
        torch.testing.assert_close(ours.state_dict()[name], want)
    assert int(ours.state_dict()["bn1_2.num_batches_tracked"]) == int(training)


def test_whole_referring_network_matches_vpd():
    case = load_golden("vpd_refer")
    vae = vpd.AutoencoderKL(vpd.AutoencoderConfig(ch=32, ch_mult=(1, 2, 1, 1)), encode_only=True)
    unet = vpd.UNet(
        vpd.UNetConfig(model_channels=32, channel_mult=(1, 2, 2, 2), num_heads=8, context_dim=64)
    )
    vae.load_state_dict(strip(case.weights, "encoder_vq."))
    unet.load_state_dict(strip(case.weights, "unet.unet.diffusion_model."))
    head_state = strip(case.weights, "classifier.")
    head = vpd.ReferDecoder(
        ReferDecoderConfig(dims=(32, 77, 77, 64), hidden=head_state["bn1_4.weight"].shape[0])
    ).eval()
    head.load_state_dict(head_state)
    with torch.no_grad():
        latents = vae.encode(case.inputs["image"]).mode()
        pyramid = unet(latents, 1, case.outputs["context"]).pyramid()
        lowres = head(pyramid)
    assert_close(latents, case.outputs["latents"])
    for level in (1, 2, 3):
        assert_close(pyramid[level], case.outputs[f"out{level}"])
    assert_close(lowres, case.outputs["lowres_logits"])
    logits = F.interpolate(lowres, (128, 128), mode="bilinear", align_corners=True)
    assert_close(logits[:, :, ::2, ::2], case.outputs["logits"])
    assert torch.equal(logits.argmax(1).byte(), case.outputs["mask"])


@pytest.mark.parametrize(("tokens", "count"), [(40, 39_176_962), (77, 39_603_202)])
def test_full_size_keys_match_the_checkpoint(tokens, count):
    with torch.device("meta"):
        head = vpd.ReferDecoder(
            ReferDecoderConfig(dims=(320, 640 + tokens, 1280 + tokens, 1280), hidden=640)
        )
    assert sum(p.numel() for p in head.parameters()) == count
    if tokens == 77:
        official = strip(key_list("vpd_refer")["tensors"], "classifier.")
        assert {k: list(v.shape) for k, v in head.state_dict().items()} == official
    assert "bn1_4.running_mean" in dict(head.named_buffers())
    assert "bn1_4.running_mean" not in dict(head.named_parameters())


def test_gradcheck():
    head = vpd.ReferDecoder(ReferDecoderConfig(dims=(2, 3), hidden=2)).double().eval()
    features = [
        torch.randn(1, c, *s, dtype=torch.double, requires_grad=True)
        for c, s in ((2, (3, 4)), (3, (2, 1)))
    ]
    assert torch.autograd.gradcheck(lambda *f: head(f), features)


def test_bfloat16_and_frozen_statistics():
    ours, _ = pair()
    ours.float().eval()
    before = copy.deepcopy(ours.state_dict())
    features = [f.float() for f in maps()]
    want = ours(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert error(ours(features), want) < 0.1
    for name, value in ours.state_dict().items():
        assert torch.equal(value, before[name])
    got = ours.bfloat16()(features)
    assert got.dtype == torch.bfloat16
    assert error(got, want) < 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: h(maps()[:3]), "expected 4 feature maps, fine to coarse, got 3"),
        (lambda h: h(maps()[::-1]), r"map 0 must be floating point \[B, 4, H, W\]"),
        (lambda h: h([*maps()[:3], maps()[3][:1]]), "map 3 .* batch size of map 0"),
        (lambda h: vpd.ReferDecoder(ReferDecoderConfig(dims=(3,))), "at least two"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call(pair()[0])
