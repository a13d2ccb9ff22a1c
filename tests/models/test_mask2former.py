"""Mask2Former's head against recorded outputs and a plain twin."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest
import torch
from heads import assert_same, feature_maps, twinned
from helpers import assert_close, error, load_golden, strip
from mask2former_cases import official, transformers
from mask2former_twin import Mask2Former
from torch import nn

import vpd
from vpd.models.mask2former import PixelFeatures
from vpd.weights import LoadReport

CHANNELS = (4, 7, 6, 5)
SIZES = [(13, 9), (7, 5), (4, 3), (2, 2)]
SMALL = vpd.Mask2FormerConfig(
    CHANNELS,
    num_classes=3,
    conv_dim=8,
    mask_dim=6,
    hidden_dim=8,
    num_queries=5,
    nheads=2,
    dim_feedforward=12,
    dec_layers=4,
    transformer_nheads=2,
    transformer_dim_feedforward=10,
    transformer_enc_layers=2,
    norm_groups=2,
)
# One of everything that a config can say.
CONFIGS = {
    "as the original": SMALL,
    "pre_norm, other widths": replace(SMALL, pre_norm=True, hidden_dim=12, nheads=3),
    "projected": replace(SMALL, enforce_input_project=True, num_classes=None, n_points=1),
    "one map in the encoder": replace(SMALL, transformer_levels=1),
    "all maps in the encoder": replace(SMALL, transformer_levels=4, num_feature_levels=2),
    "one map": replace(SMALL, in_channels=(4,), transformer_levels=1, num_feature_levels=1),
}


def features(config=SMALL, rows=2, dtype=torch.double):
    count = len(config.in_channels)
    return [map.to(dtype) for map in feature_maps(config.in_channels, SIZES[:count], rows)]


class Flat(nn.Module):
    """All outputs of a head as one list."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, maps):
        out = self.head(maps)
        return [*out.logits, *out.masks, *out.queries, out.mask_features]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_head_matches_the_twin(config):
    ours, twin = twinned(Flat(vpd.Mask2FormerHead(config)), Flat(Mask2Former(config)))
    assert_same(ours, twin, features(config))


@pytest.mark.parametrize("sizes", [[(9, 16), (5, 7), (5, 2), (1, 1)], [(3, 3)] * 4])
def test_sizes_need_not_halve(sizes):
    ours, twin = twinned(Flat(vpd.Mask2FormerHead(SMALL)), Flat(Mask2Former(SMALL)))
    maps = feature_maps(CHANNELS, sizes, rows=3)
    for got, want in zip(ours(maps), twin(maps), strict=True):
        assert_close(got, want.detach(), 1e-8)


def assert_recorded(head, case, outputs):
    maps = [case.inputs[f"res{i}"] for i in range(2, 6)]
    with torch.no_grad():
        pixels, out = head.pixels(maps), head(maps)
        assert_close(pixels.mask_features, case.outputs["mask_features"])
        assert torch.equal(out.mask_features, pixels.mask_features)
        for i, level in enumerate(pixels.levels):
            assert_close(level, case.outputs[f"multi_scale{i}"])
        assert len(out.logits) == len(out.masks) == len(outputs)
        for logits, masks, (want_logits, want_masks) in zip(
            out.logits, out.masks, outputs, strict=True
        ):
            assert_close(logits, case.outputs[want_logits])
            assert_close(masks, case.outputs[want_masks], 1e-3)
        last = head(maps, last_only=True)
    for got, want in zip(last[:3], out[:3], strict=True):
        assert len(got) == 1
        assert torch.equal(got[0], want[-1])


def test_recorded_outputs():
    case, head = official()
    head.load_state_dict(case.weights)
    prefixes = ["aux0.", "aux1.", "aux2.", "aux3.", ""]
    assert_recorded(head, case, [(f"{p}pred_logits", f"{p}pred_masks") for p in prefixes])


def test_recorded_outputs_of_transformers():
    case, head = transformers()
    report = vpd.load_weights(head, case.weights, layout="transformers-mask2former")
    assert report == LoadReport([], [], [])
    outputs = [(f"layer{i}.class_logits", f"layer{i}.mask_logits") for i in range(4)]
    assert_recorded(head, case, outputs)


def test_recorded_masks_of_odise():
    """Its decoder is this one; what it adds takes queries, masks and mask features."""
    case, config = load_golden("odise_head"), load_golden("odise_head").info["config"]
    head = vpd.Mask2FormerHead(
        replace(
            SMALL,
            num_classes=None,
            conv_dim=config["conv_dim"],
            mask_dim=config["mask_dim"],
            hidden_dim=config["hidden"],
            num_queries=config["Q"],
            nheads=config["heads"],
            dim_feedforward=config["ff"],
            dec_layers=config["dec"],
        )
    )
    report = vpd.load_weights(head, case.weights, strict=False)
    assert all(name.startswith("pixel_decoder.") for name in report.missing)
    levels = [case.inputs[f"multi_scale{i}"] for i in range(3)]
    out = head.decode(PixelFeatures(case.inputs["mask_features"], levels))
    assert out.logits == []
    names = [*(f"aux{i}.pred_masks" for i in range(3)), "pred_masks"]
    for masks, name in zip(out.masks, names, strict=True):
        assert_close(masks.detach(), case.outputs[name], 1e-3)


def test_queries_without_a_mask_look_everywhere():
    head = vpd.Mask2FormerHead(SMALL).double()
    found = []
    for sign in (-1.0, 1.0):  # masks that hide, and that show, every pixel
        with torch.no_grad():
            for layer, bias in (
                (head.pixel_decoder.mask_features, 1.0),
                (head.predictor.mask_embed.layers.get_submodule("2"), sign),
            ):
                layer.weight.zero_()
                layer.bias.fill_(bias)
            torch.manual_seed(1)
            found.append(head(features()))
    assert (found[0].masks[-1] == -6).all()
    assert (found[1].masks[-1] == 6).all()
    for hidden, shown in zip(found[0].queries, found[1].queries, strict=True):
        assert torch.equal(hidden, shown)


def test_criterion_reaches_every_weight():
    head = vpd.Mask2FormerHead(SMALL)
    out = head(features(dtype=torch.float32))
    labels = [torch.tensor([0, 2]), torch.tensor([], dtype=torch.long)]
    targets = [torch.rand(2, 26, 18) > 0.5, torch.zeros(0, 26, 18, dtype=torch.bool)]
    loss = vpd.losses.mask2former_loss(out.logits, out.masks, labels, targets, points=50)
    assert len(loss.mask) == 5
    loss.total.backward()
    for name, parameter in head.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def test_no_probabilities_are_kept_for_the_backward():
    config = replace(SMALL, num_queries=11, hidden_dim=16)
    head, shapes = vpd.Mask2FormerHead(config), []
    maps = features(config, dtype=torch.float32)

    def keep(tensor):
        shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        head(maps)
    assert (2, 2, 11, 8) in shapes  # queries by head
    for others in (11, *(h * w for h, w in SIZES[1:])):
        assert (2, 2, 11, others) not in shapes


def test_bfloat16():
    head, maps = vpd.Mask2FormerHead(SMALL), features(dtype=torch.float32)
    want = head(maps)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = head(maps)
    weights = head.bfloat16()(maps)
    assert weights.masks[-1].dtype == torch.bfloat16
    for got in (autocast, weights):
        # Behind the first layer a mask of another sign lets a query look elsewhere.
        assert error(got.mask_features, want.mask_features.detach()) < 0.1
        assert error(got.masks[0], want.masks[0].detach()) < 0.1
        assert error(got.logits[0], want.logits[0].detach()) < 0.1
        assert all(torch.isfinite(t).all() for t in (*got.masks, *got.logits))


def test_start():
    config = replace(SMALL, conv_dim=16, transformer_nheads=8)
    heads = [
        vpd.Mask2FormerHead(config, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    states = [head.state_dict() for head in heads]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    name = "pixel_decoder.transformer.encoder.layers.1.self_attn."
    assert not torch.equal(
        states[0][name + "value_proj.weight"], states[2][name + "value_proj.weight"]
    )
    spread = states[0][name + "sampling_offsets.bias"].view(8, 3, 4, 2)
    around = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, (x, y) in enumerate(around):
        for point in range(4):
            want = torch.tensor([x, y]).float() * (point + 1)
            torch.testing.assert_close(spread[head, :, point], want.expand(3, 2))
    assert not states[0][name + "sampling_offsets.weight"].any()
    assert not states[0][name + "attention_weights.bias"].any()
    bound = math.sqrt(6 / 32)
    assert 0.9 * bound < states[0][name + "output_proj.weight"].abs().max() <= bound
    with torch.device("meta"):
        assert vpd.Mask2FormerHead(SMALL).predictor.query_feat.weight.is_meta


def test_names_are_the_originals():
    case, head = official()
    shapes = {name: tensor.shape for name, tensor in head.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in case.weights.items()}
    assert strip(case.weights, "predictor.query_feat.")["weight"].shape == (10, 32)
    assert set(asdict(head.config)) == set(asdict(SMALL))


def head_of(**changes):
    return vpd.Mask2FormerHead(replace(SMALL, **changes)).double()


def other_batch():
    maps = features()
    return [*maps[:3], maps[3][:1]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: head_of()(features()[:3]), "mask2former: expected 4 .* got 3"),
        (lambda: head_of()(features()[::-1]), r"feature map 0 must be .* \[B, 4, H, W\]"),
        (lambda: head_of()(other_batch()), "batch size of map 0"),
        (
            lambda: head_of()(feature_maps(CHANNELS, SIZES[::-1])),
            r"from fine to coarse, got \[4, 3\] behind \[2, 2\]",
        ),
        (
            lambda: head_of().decode(PixelFeatures(torch.ones(1, 6, 4, 4), [])),
            "mask features and levels: expected 4 .* got 1",
        ),
        (lambda: head_of(in_channels=()), "in_channels must be at least one"),
        (lambda: head_of(num_classes=0), "num_classes must be positive, got 0"),
        (lambda: head_of(num_queries=0), "num_queries must be positive"),
        (lambda: head_of(dec_layers=0), "dec_layers must be positive"),
        (lambda: head_of(transformer_levels=5), "transformer_levels must be from 1 to the 4 maps"),
        (lambda: head_of(num_feature_levels=0), "num_feature_levels must be from 1"),
        (lambda: head_of(conv_dim=6), "conv_dim must be .* multiple of 4 .* got 6 and 2"),
        (lambda: head_of(nheads=3), "hidden_dim must be .* of nheads, got 8 and 3"),
        (lambda: head_of(norm_groups=3), r"normalisation groups \(norm_groups\)"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
