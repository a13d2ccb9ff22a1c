"""ODISE's projections against a plain twin and the published shapes, and windows joined against a
slow mean."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from heads import assert_same, feature_maps, twinned
from helpers import assert_close
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import vpd
from vpd._load import core
from vpd.tasks.windows import Overlap, slide_windows

SMALL = vpd.OdiseBackboneConfig(
    (6, 16, 5, 7), (2, 16, 32, 4), projection_dim=16, min_stride=4, max_stride=16, norm_groups=2
)
SIZES = [(20, 12), (3, 3), (2, 1), (8, 8)]
PICTURE = (48, 32)


class Normed(nn.Conv2d):
    def __init__(self, channels, out, kernel, groups):
        super().__init__(channels, out, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(groups, out)

    def forward(self, x):
        return self.norm(super().forward(x))


class Block(nn.Module):
    def __init__(self, channels, out, groups):
        super().__init__()
        self.shortcut = Normed(channels, out, 1, groups) if channels != out else nn.Identity()
        self.conv1 = Normed(channels, out // 4, 1, groups)
        self.conv2 = Normed(out // 4, out // 4, 3, groups)
        self.conv3 = Normed(out // 4, out, 1, groups)

    def forward(self, x):
        h = F.relu(self.conv2(F.relu(self.conv1(x))))
        return F.relu(self.conv3(h) + self.shortcut(x))


class Twin(nn.Module):
    """The same of PyTorch's own layers: resize first, then project."""

    def __init__(self, config):
        super().__init__()
        out, groups = config.projection_dim, config.norm_groups
        self.feature_projections = nn.ModuleList(
            nn.Sequential(
                *(Block(out if i else c, out, groups) for i in range(config.num_res_blocks))
            )
            for c in config.in_channels
        )
        self.strides = [
            min(max(s, config.min_stride), config.max_stride) for s in config.in_strides
        ]

    def forward(self, features, size):
        maps = {}
        projected = zip(self.feature_projections, features, self.strides, strict=True)
        for project, feature, stride in projected:
            found = project(F.interpolate(feature, size=[side // stride for side in size]))
            maps[stride] = maps[stride] + found if stride in maps else found
        return [maps[stride] for stride in sorted(maps)]


class At(nn.Module):
    """Of pictures of one size."""

    def __init__(self, net, size):
        super().__init__()
        self.net, self.size = net, size

    def forward(self, features):
        return self.net(features, self.size)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("blocks", [1, 2])
def test_projections_match_the_twin(blocks, recompute):
    config = replace(SMALL, num_res_blocks=blocks)
    ours, twin = twinned(vpd.OdiseBackbone(config), Twin(config))
    ours.recompute = recompute
    assert ours.strides == (4, 16)
    features = feature_maps(config.in_channels, SIZES)
    assert_same(At(ours, PICTURE), At(twin, PICTURE), features)


def test_projecting_again_keeps_less():
    net, features = (
        vpd.OdiseBackbone(SMALL),
        [f.float() for f in feature_maps((6, 16, 5, 7), SIZES)],
    )
    held = {}
    for net.recompute in (False, True):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            net(features, PICTURE)
        held[net.recompute] = sum(sizes)
    assert held[True] < held[False] / 2


def test_growing_maps_are_projected_before_they_grow():
    net = vpd.OdiseBackbone(vpd.OdiseBackboneConfig((64,), (4,), projection_dim=32, norm_groups=2))
    costs = {}
    for side in (4, 16):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net([torch.randn(1, 64, side, side)], (64, 64))
        costs[side] = counter.get_total_flops()
    pixels, wide = {4: 16, 16: 256}, 2 * 64 * (32 + 8)  # of the shortcut and the first convolution
    assert costs[16] - costs[4] == wide * (pixels[16] - pixels[4])


def test_names_and_shapes_are_those_of_the_released_model():
    with torch.device("meta"):
        net = vpd.OdiseBackbone()
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    assert net.strides == (4, 8, 16, 32)
    first = {
        name.removeprefix("feature_projections.2.0."): shape
        for name, shape in shapes.items()
        if name.startswith("feature_projections.2.")
    }
    assert first == {
        "shortcut.weight": (512, 2560, 1, 1),
        "shortcut.norm.weight": (512,),
        "shortcut.norm.bias": (512,),
        "conv1.weight": (128, 2560, 1, 1),
        "conv1.norm.weight": (128,),
        "conv1.norm.bias": (128,),
        "conv2.weight": (128, 128, 3, 3),
        "conv2.norm.weight": (128,),
        "conv2.norm.bias": (128,),
        "conv3.weight": (512, 128, 1, 1),
        "conv3.norm.weight": (512,),
        "conv3.norm.bias": (512,),
    }
    assert "feature_projections.0.0.shortcut.weight" not in shapes  # 512 to 512
    assert len(shapes) == 4 * 12 + 4 * 9


def test_start():
    net = vpd.OdiseBackbone(replace(SMALL, projection_dim=256))
    for name, parameter in net.named_parameters():
        if name.endswith("norm.weight"):
            assert (parameter == 1).all()
        elif name.endswith("norm.bias"):
            assert (parameter == 0).all()
        else:  # variance 2 / fan out (He et al. 2015)
            out, _, kernel, _ = parameter.shape
            assert abs(parameter.std() / (2 / (out * kernel**2)) ** 0.5 - 1) < 0.15, name


def test_copies_pickles_and_bfloat16():
    net, features = (
        vpd.OdiseBackbone(SMALL),
        [f.float() for f in feature_maps((6, 16, 5, 7), SIZES)],
    )
    want = net(features, PICTURE)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(features, PICTURE)[0], want[0])
    with torch.autocast("cpu", torch.bfloat16):
        near = net(features, PICTURE)
    for got, wide in zip(near, want, strict=True):
        assert_close(got.float(), wide.detach(), 0.2)
    assert copy.deepcopy(net).bfloat16()(features, PICTURE)[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(8, 8, 8), (8, 16, 8), (8, 13, 8), (13, 9, 4), (16, 12, 4), (5, 11, 5), (9, 9, 4)],
)
def test_joined_windows_are_their_mean(height, width, side):
    places = slide_windows(height, width, side, side)
    windows = torch.randn(len(places) * 2, 3, side, side, dtype=torch.double)
    overlap = Overlap(height, width)
    for window, (y, x) in zip(windows.chunk(len(places)), places, strict=True):
        overlap.add(window, y, x)
    torch.testing.assert_close(core.join_windows(windows, height, width), overlap.mean())
    torch.autograd.gradcheck(
        lambda t: core.join_windows(t, height, width), windows[..., :1, :, :].requires_grad_()
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vpd.OdiseBackbone(SMALL)([torch.ones(1, 6, 4, 4)], PICTURE), "expected 4 feature"),
        (
            lambda: vpd.OdiseBackbone(SMALL)(feature_maps((6, 15, 5, 7), SIZES), PICTURE),
            r"feature map 1 must be floating point \[B, 16, H, W\]",
        ),
        (
            lambda: vpd.OdiseBackbone(SMALL)(feature_maps((6, 16, 5, 7), SIZES), (48, 40)),
            "positive multiples of 16, got 48 x 40",
        ),
        (lambda: vpd.OdiseBackbone(replace(SMALL, in_strides=(4, 8))), "as many positive numbers"),
        (lambda: vpd.OdiseBackbone(replace(SMALL, projection_dim=6)), "multiple of 4 .* got 6"),
        (lambda: vpd.OdiseBackbone(replace(SMALL, num_res_blocks=0)), "num_res_blocks positive"),
        (lambda: vpd.OdiseBackbone(replace(SMALL, min_stride=32)), "got 32 and 16"),
        (lambda: vpd.OdiseBackbone(replace(SMALL, in_strides=(4, 6, 8, 16))), "must divide"),
        (lambda: vpd.OdiseBackbone(replace(SMALL, norm_groups=3)), "do not divide into 3"),
        (lambda: core.join_windows(torch.ones(2, 3, 4, 5), 8, 8), r"must be \[N, C, side, side\]"),
        (lambda: core.join_windows(torch.ones(3, 3, 4, 4), 8, 5), r"in 2 x 2, .* got 3"),
        (lambda: core.join_windows(torch.ones(4, 3, 4, 4), 8, 3), "4 x 4 at least, got 8 x 3"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
