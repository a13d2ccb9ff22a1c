"""Semantic FPN against VPD's recorded outputs and a plain PyTorch twin."""

from __future__ import annotations

import pytest
import torch
from heads import assert_dropout, assert_same, feature_maps, twinned
from helpers import assert_close, error, key_list, load_golden, strip
from torch import nn
from torch.nn import functional as F

import vpd

SIZES = [(13, 9), (7, 5), (3, 4), (2, 1)]


def conv_norm(channels: int, out: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {"conv": nn.Conv2d(channels, out, 3, padding=1, bias=False), "bn": nn.BatchNorm2d(out)}
    )


class TwinNeck(nn.Module):
    def __init__(self, channels, out):
        super().__init__()
        self.lateral_convs = nn.ModuleList(
            nn.ModuleDict({"conv": nn.Conv2d(c, out, 1)}) for c in channels
        )
        self.fpn_convs = nn.ModuleList(
            nn.ModuleDict({"conv": nn.Conv2d(out, out, 3, padding=1)}) for _ in channels
        )

    def forward(self, features):
        maps = [part["conv"](map) for part, map in zip(self.lateral_convs, features, strict=True)]
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], size=maps[i - 1].shape[2:])
        return [part["conv"](map) for part, map in zip(self.fpn_convs, maps, strict=True)]


class TwinHead(nn.Module):
    def __init__(self, in_channels, channels, classes, dropout=0.0):
        super().__init__()
        self.conv_seg = nn.Conv2d(channels, classes, 1)
        self.scale_heads = nn.ModuleList()
        for i, width in enumerate(in_channels):
            parts = nn.ModuleDict()
            for k in range(max(i, 1)):
                parts[str(2 * k)] = conv_norm(width if k == 0 else channels, channels)
            self.scale_heads.append(parts)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, features):
        total = 0
        for i, (parts, x) in enumerate(zip(self.scale_heads, features, strict=True)):
            for part in parts.values():
                x = F.relu(part["bn"](part["conv"](x)))
                if i > 0:
                    x = F.interpolate(x, scale_factor=2, mode="bilinear")
            total = total + F.interpolate(x, size=features[0].shape[2:], mode="bilinear")
        return self.conv_seg(self.dropout(total))


def head_of(channels=(4, 5, 3, 6), dropout=0.0) -> vpd.SemanticFPNHead:
    config = vpd.SemanticFPNHeadConfig(channels, num_classes=3, channels=8, dropout=dropout)
    return vpd.SemanticFPNHead(config)


@pytest.mark.parametrize("count", [1, 4])
def test_neck_matches_the_twin(count):
    channels = (4, 7, 6, 5)[:count]
    ours, twin = twinned(vpd.FPN(vpd.FPNConfig(channels, out_channels=8)), TwinNeck(channels, 8))
    assert_same(ours, twin, feature_maps(channels, SIZES[:count]))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", [1, 4])
def test_head_matches_the_twin(training, count):
    channels = (4, 5, 3, 6)[:count]
    ours, twin = twinned(head_of(channels), TwinHead(channels, 8, 3))
    assert_same(ours.train(training), twin.train(training), feature_maps(channels, SIZES[:count]))
    assert int(ours.state_dict()["scale_heads.0.0.bn.num_batches_tracked"]) == int(training)


def test_dropout_is_that_of_channels():
    ours, twin = twinned(head_of(dropout=0.5), TwinHead((4, 5, 3, 6), 8, 3, dropout=0.5))
    features = feature_maps((4, 5, 3, 6), SIZES)
    outs = []
    for net in (ours, twin):
        torch.manual_seed(1)
        outs.append(net.train()(features))
    assert_close(outs[0], outs[1].detach(), 1e-9)
    assert_dropout(ours, feature_maps((4, 5, 3, 6), [(5, 4), (3, 2), (2, 1), (1, 1)]))


class Segmenter(nn.Module):
    """The parts of a semantic model under names of its own."""

    def __init__(self, case):
        super().__init__()
        unet = vpd.UNetConfig(
            model_channels=32, channel_mult=(1, 2, 2, 2), num_heads=8, context_dim=64
        )
        vae = vpd.AutoencoderConfig(ch=32, ch_mult=(1, 2, 1, 1))
        self.vae = vpd.AutoencoderKL(vae, encode_only=True)
        self.unet = vpd.UNet(unet)
        self.adapter = vpd.TextAdapter(64)
        config = case.info["config"]
        self.neck = vpd.FPN(vpd.FPNConfig(tuple(config["neck"]["in_channels"]), out_channels=32))
        self.head = vpd.SemanticFPNHead(
            vpd.SemanticFPNHeadConfig((32,) * 4, num_classes=5, channels=32)
        )
        self.register_buffer("class_embeddings", torch.zeros(11, 64))


def test_whole_network_matches_vpd():
    case = load_golden("vpd_seg")
    model = Segmenter(case).eval()
    report = vpd.load_weights(model, case.weights, layout="vpd-seg")
    assert report == vpd.weights.LoadReport([], [], [])
    assert torch.equal(model.class_embeddings, case.weights["class_embeddings"])
    image = case.inputs["image_wide"][..., :128]
    with torch.no_grad():
        context = model.adapter(model.class_embeddings)[None]
        pyramid = model.unet(model.vae.encode(image).mode(), 1, context).pyramid()
        maps = model.neck(pyramid)
        lowres = model.head(maps)
    for level in (2, 3):
        assert_close(pyramid[level], case.outputs[f"feat{level}"])
    for level in (0, 2, 3):
        assert_close(maps[level], case.outputs[f"neck{level}"])
    assert_close(lowres, case.outputs["lowres_logits"])
    logits = F.interpolate(lowres, (128, 128), mode="bilinear")
    assert_close(logits[:, :, ::2, ::2], case.outputs["logits"])


def test_full_size_keys_match_the_checkpoint():
    with torch.device("meta"):
        neck = vpd.FPN(vpd.FPNConfig((320, 790, 1430, 1280)))
        head = vpd.SemanticFPNHead(vpd.SemanticFPNHeadConfig((256,) * 4, num_classes=150))
    official = key_list("vpd_seg")["tensors"]
    for module, prefix in ((neck, "neck."), (head, "decode_head.")):
        own = {k: list(v.shape) for k, v in module.state_dict().items()}
        assert own == strip(official, prefix)


def test_initial_weights():
    neck = vpd.FPN(vpd.FPNConfig((64, 32), out_channels=96)).state_dict()
    for name, bound in (
        ("lateral_convs.0.conv.weight", (6 / (64 + 96)) ** 0.5),
        ("fpn_convs.1.conv.weight", (6 / (9 * 2 * 96)) ** 0.5),
    ):
        assert 0.99 * bound < neck[name].abs().max() <= bound
        assert neck[name].std() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert not neck["fpn_convs.0.conv.bias"].any()
    head = vpd.SemanticFPNHead(
        vpd.SemanticFPNHeadConfig((64, 64), num_classes=50, channels=64)
    ).state_dict()
    assert head["conv_seg.weight"].std() == pytest.approx(0.01, rel=0.05)
    assert not head["conv_seg.bias"].any()
    first = head["scale_heads.1.0.conv.weight"]
    assert first.std() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    assert (head["scale_heads.1.0.bn.weight"] == 1).all()


def test_bfloat16_and_frozen_statistics():
    neck = vpd.FPN(vpd.FPNConfig((4, 5, 3, 6), out_channels=8))
    head = head_of((8,) * 4).eval()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    features = [map.float() for map in feature_maps((4, 5, 3, 6), SIZES)]
    want = head(neck(features)).detach()
    with torch.autocast("cpu", torch.bfloat16):
        maps = neck(features)
        assert {map.dtype for map in maps} == {torch.bfloat16}
        assert error(head(maps), want) < 0.1
    for name, value in head.state_dict().items():
        assert torch.equal(value, before[name])
    got = head.bfloat16()(neck.bfloat16()(features))
    assert got.dtype == torch.bfloat16
    assert error(got, want) < 0.1


def features(count=4):
    return feature_maps((4, 5, 3, 6), SIZES)[:count]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: head_of().double()(features(3)), "semantic_fpn_head: expected 4 .* got 3"),
        (lambda: head_of().double()(features()[::-1]), r"map 0 must be .* \[B, 4, H, W\]"),
        (lambda: head_of().double()([*features(3), features()[3][:1]]), "map 3 .* of map 0"),
        (lambda: head_of((4,)).double()([features()[0][:1, :, :1, :1]]), "one value per channel"),
        (lambda: vpd.FPN(vpd.FPNConfig((4, 5))).double()(features(3)), "fpn: expected 2 .* got 3"),
        (lambda: vpd.FPN(vpd.FPNConfig(())), "in_channels must be at least one"),
        (lambda: vpd.FPN(vpd.FPNConfig((4,), out_channels=0)), "out_channels 0"),
        (lambda: head_of(()), "in_channels must be at least one"),
        (lambda: head_of(dropout=1.0), r"dropout must be in \[0, 1\), got 1"),
        (
            lambda: vpd.SemanticFPNHead(vpd.SemanticFPNHeadConfig((4,), num_classes=0)),
            "num_classes must be positive, got 256 and 0",
        ),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
