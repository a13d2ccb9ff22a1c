"""UperNet and its auxiliary head against recorded outputs, transformers and a plain twin."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from heads import assert_dropout, assert_same, feature_maps, twinned
from helpers import assert_close, error, load_golden
from torch import nn
from torch.nn import functional as F

import vpd

CHANNELS = (4, 7, 6, 5)
SIZES = [(13, 9), (7, 5), (3, 4), (2, 3)]


class ConvNorm(nn.Module):
    def __init__(self, channels, out, kernel):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def resize(x, like):
    return F.interpolate(x, size=like.shape[2:], mode="bilinear")


class Twin(nn.Module):
    """The same head of PyTorch's own layers, under mmsegmentation's names."""

    def __init__(self, in_channels, channels, scales, classes, dropout=0.0):
        super().__init__()
        *fine, coarsest = in_channels
        self.conv_seg = nn.Conv2d(channels, classes, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvNorm(coarsest, channels, 1))
            for scale in scales
        )
        self.bottleneck = ConvNorm(coarsest + len(scales) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvNorm(c, channels, 1) for c in fine)
        self.fpn_convs = nn.ModuleList(ConvNorm(channels, channels, 3) for _ in fine)
        self.fpn_bottleneck = ConvNorm(len(in_channels) * channels, channels, 3)

    def pool(self, x):
        return self.bottleneck(torch.cat([x, *(resize(m(x), x) for m in self.psp_modules)], 1))

    def forward(self, features):
        maps = [conv(map) for conv, map in zip(self.lateral_convs, features, strict=False)]
        maps.append(self.pool(features[-1]))
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + resize(maps[i], maps[i - 1])
        outs = [conv(map) for conv, map in zip(self.fpn_convs, maps, strict=False)] + maps[-1:]
        joined = torch.cat([resize(out, features[0]) for out in outs], 1)
        return self.conv_seg(self.dropout(self.fpn_bottleneck(joined)))


class TwinFCN(nn.Module):
    def __init__(self, in_channels, channels, classes, num_convs, index):
        super().__init__()
        self.index = index
        self.conv_seg = nn.Conv2d(channels, classes, 1)
        self.convs = nn.Sequential(
            *(ConvNorm(channels if i else in_channels, channels, 3) for i in range(num_convs))
        )

    def forward(self, features):
        return self.conv_seg(self.convs(features[self.index]))


def head_of(in_channels=CHANNELS, scales=(1, 2, 3, 6), dropout=0.0) -> vpd.UperNetHead:
    config = vpd.UperNetHeadConfig(
        in_channels, num_classes=3, channels=8, pool_scales=scales, dropout=dropout
    )
    return vpd.UperNetHead(config)


def fcn_of(in_channels=6, num_convs=1, in_index=2, dropout=0.0) -> vpd.FCNHead:
    config = vpd.FCNHeadConfig(
        in_channels, 3, channels=8, num_convs=num_convs, in_index=in_index, dropout=dropout
    )
    return vpd.FCNHead(config)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("count", "scales"), [(1, (2,)), (4, (1, 2, 3, 6))])
def test_head_matches_the_twin(training, count, scales):
    channels = CHANNELS[:count]
    ours, twin = twinned(head_of(channels, scales), Twin(channels, 8, scales, 3))
    features = feature_maps(channels, SIZES[:count])
    assert_same(ours.train(training), twin.train(training), features)
    assert int(ours.state_dict()["bottleneck.bn.num_batches_tracked"]) == int(training)
    ours.eval(), twin.eval()
    assert_close(ours.pool(features[-1]), twin.pool(features[-1]), 1e-9)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("num_convs", [1, 2])
def test_auxiliary_head_matches_the_twin(training, num_convs):
    ours, twin = twinned(fcn_of(num_convs=num_convs), TwinFCN(6, 8, 3, num_convs, 2))
    assert_same(ours.train(training), twin.train(training), feature_maps(CHANNELS, SIZES))


def test_dropout_is_that_of_channels():
    ours, twin = twinned(head_of(dropout=0.5), Twin(CHANNELS, 8, (1, 2, 3, 6), 3, dropout=0.5))
    features = feature_maps(CHANNELS, SIZES)
    outs = []
    for net in (ours, twin):
        torch.manual_seed(1)
        outs.append(net.train()(features))
    assert_close(outs[0], outs[1].detach(), 1e-9)
    small = feature_maps(CHANNELS, [(5, 4), (3, 2), (2, 1), (1, 1)])
    assert_dropout(ours, small)
    assert_dropout(fcn_of(dropout=0.5).double(), small)


def test_recorded_outputs():
    case = load_golden("upernet")
    config = case.info["config"]
    head = vpd.UperNetHead(
        vpd.UperNetHeadConfig(
            tuple(config["in_channels"]), config["num_labels"], channels=config["hidden_size"]
        )
    ).eval()
    report = vpd.load_weights(head, case.weights, layout="transformers-upernet")
    assert report == vpd.weights.LoadReport([], [], [])
    features = [case.inputs[f"feat{i}"] for i in range(4)]
    with torch.no_grad():
        assert_close(head.pool(features[-1]), case.outputs["psp"])
        assert_close(head(features), case.outputs["logits"])


def transformers_heads(channels, hidden, classes):
    theirs = pytest.importorskip("transformers.models.upernet.modeling_upernet")
    config = SimpleNamespace(
        hidden_size=hidden,
        num_labels=classes,
        pool_scales=(1, 2, 3, 6),
        auxiliary_in_channels=None,
        auxiliary_channels=hidden,
        auxiliary_num_convs=2,
        auxiliary_concat_input=False,
    )
    heads = theirs.UperNetHead(config, channels), theirs.UperNetFCNHead(config, channels)
    for head in heads:
        with torch.no_grad():
            for name, buffer in head.named_buffers():
                if name.endswith(("mean", "var")):
                    buffer.uniform_(0.5, 2)
        head.double().eval()
    return heads


@pytest.mark.parametrize("sizes", [SIZES, [(20, 31), (11, 16), (5, 9), (3, 5)]])
def test_transformers_heads_give_the_same(sizes):
    theirs, their_aux = transformers_heads(CHANNELS, 8, 3)
    file = {"backbone.embeddings.weight": torch.ones(2)}
    for prefix, head in (("decode_head.", theirs), ("auxiliary_head.", their_aux)):
        file |= {prefix + name: tensor for name, tensor in head.state_dict().items()}
    model = nn.ModuleDict({"head": head_of(), "aux_head": fcn_of(num_convs=2)}).double().eval()
    assert vpd.load_weights(model, file) == vpd.weights.LoadReport([], [], [])
    features = feature_maps(CHANNELS, sizes)
    assert_close(model["head"](features), theirs(features), 1e-9)
    assert_close(model["aux_head"](features), their_aux(features), 1e-9)


def test_bfloat16():
    head, features = head_of().eval(), [map.float() for map in feature_maps(CHANNELS, SIZES)]
    want = head(features).detach()
    with torch.autocast("cpu", torch.bfloat16):
        assert error(head(features), want) < 0.1
    assert error(head.bfloat16()(features), want) < 0.1


def features(rows=2):
    return feature_maps(CHANNELS, SIZES, rows)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: head_of().double()(features()[:3]), "uper_head: expected 4 .* got 3"),
        (lambda: head_of().double()(features()[::-1]), r"map 0 must be .* \[B, 4, H, W\]"),
        (lambda: head_of().double()(features(1)), r"one value per channel, got \[1, 8, 1, 1\]"),
        (lambda: head_of().double().pool(features()[0]), r"pool: feature map 0 .* \[B, 5, H, W\]"),
        (lambda: fcn_of().double()(features()[:2]), "fcn_head: expected at least 3 .* got 2"),
        (lambda: fcn_of(7).double()(features()), r"fcn_head: .* \[B, 7, H, W\]"),
        (lambda: head_of(()), "in_channels and pool_scales"),
        (lambda: head_of(scales=(0,)), "in_channels and pool_scales"),
        (lambda: head_of(dropout=-0.1), r"UperNetHeadConfig: dropout must be in \[0, 1\)"),
        (lambda: fcn_of(num_convs=0), "num_convs must be positive"),
        (lambda: fcn_of(in_index=-1), "in_index not negative"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_rejected_batch_moves_no_statistics():
    head = head_of().double()
    before = {name: value.clone() for name, value in head.psp_modules.state_dict().items()}
    with pytest.raises(ValueError, match="one value per channel"):
        head(features(1))
    for name, value in head.psp_modules.state_dict().items():
        assert torch.equal(value, before[name])
