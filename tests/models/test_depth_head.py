"""The depth head against VPD's recorded outputs and a plain PyTorch twin."""

from __future__ import annotations

import pytest
import torch
from heads import assert_same, feature_maps, twinned
from helpers import assert_close, key_list, load_golden
from torch import nn
from torch.nn import functional as F

import vpd

DIMS = (4, 6, 5, 7)
SIZES = [(16, 24), (8, 12), (4, 6), (2, 3)]


class Twin(nn.Module):
    """The same head of PyTorch's own layers."""

    def __init__(self, dims=DIMS, embed=4, filters=(6, 5), max_depth=10.0, groups=2, crop=(0, 0)):
        super().__init__()
        self.max_depth, self.crop = max_depth, crop
        self.encoder = nn.ModuleDict(
            {
                "layer1": nn.Sequential(
                    nn.Conv2d(dims[0], dims[0], 3, 2, 1),
                    nn.GroupNorm(groups, dims[0]),
                    nn.ReLU(),
                    nn.Conv2d(dims[0], dims[0], 3, 2, 1),
                ),
                "layer2": nn.Sequential(nn.Conv2d(dims[1], dims[1], 3, 2, 1)),
                "out_layer": nn.Sequential(
                    nn.Conv2d(sum(dims), 8 * embed, 1), nn.GroupNorm(groups, 8 * embed), nn.ReLU()
                ),
            }
        )
        widths = (8 * embed, *filters)
        deconvs = []
        for before, after in zip(widths, filters, strict=False):
            deconvs += [
                nn.ConvTranspose2d(before, after, 2, 2, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.decoder = nn.ModuleDict(
            {
                "deconv_layers": nn.Sequential(*deconvs),
                "conv_layers": nn.Sequential(
                    nn.Conv2d(filters[-1], embed, 3, 1, 1), nn.BatchNorm2d(embed), nn.ReLU()
                ),
            }
        )
        self.last_layer_depth = nn.Sequential(
            nn.Conv2d(embed, embed, 3, 1, 1), nn.ReLU(), nn.Conv2d(embed, 1, 3, 1, 1)
        )

    def encode(self, features):
        fine, middle, coarse, coarsest = features
        maps = [
            self.encoder["layer1"](fine),
            self.encoder["layer2"](middle),
            coarse,
            F.interpolate(coarsest, scale_factor=2),
        ]
        return self.encoder["out_layer"](torch.cat(maps, 1))

    def forward(self, features):
        x = self.encode(features)
        x = x[:, :, : x.shape[2] - self.crop[0], : x.shape[3] - self.crop[1]]
        x = self.decoder["conv_layers"](self.decoder["deconv_layers"](x))
        for _ in range(2):
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
        return self.last_layer_depth(x).sigmoid() * self.max_depth


class Cropping(vpd.DepthHead):
    crop = (0, 0)

    def forward(self, features):
        return super().forward(features, crop=self.crop)


def head_of(**options) -> Cropping:
    options = {"dims": DIMS, "embed_dim": 4, "num_filters": (6, 5), "norm_groups": 2} | options
    return Cropping(vpd.DepthHeadConfig(**options))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("crop", [(0, 0), (1, 2)])
def test_head_matches_the_twin(training, crop):
    ours, twin = twinned(head_of(), Twin(crop=crop))
    ours.crop = crop
    features = feature_maps(DIMS, SIZES)
    out = ours.eval()(features)
    assert out.std() > 0.3
    assert out.shape == (2, 1, 16 * (4 - crop[0]), 16 * (6 - crop[1]))
    assert_close(out, ours.decode(ours.encode(features), crop=crop), 1e-12)
    assert_close(ours.encode(features), twin.encode(features), 1e-9)
    assert_same(ours.train(training), twin.train(training), features)
    assert int(ours.state_dict()["decoder.conv_layers.1.num_batches_tracked"]) == int(training)


class Estimator(nn.Module):
    """The parts of a depth model under names of its own."""

    def __init__(self, config):
        super().__init__()
        self.vae = vpd.AutoencoderKL(
            vpd.AutoencoderConfig(ch=32, ch_mult=(1, 2, 1, 1)), encode_only=True
        )
        self.unet = vpd.UNet(
            vpd.UNetConfig(
                model_channels=32, channel_mult=(1, 2, 2, 2), num_heads=8, context_dim=64
            )
        )
        self.adapter = vpd.TextAdapter(64)
        self.head = vpd.DepthHead(
            vpd.DepthHeadConfig(
                dims=self.unet.feature_channels,
                embed_dim=config["embed_dim"],
                num_filters=tuple(config["num_filters"]),
                max_depth=config["max_depth"],
                norm_groups=config["group_norm_groups"],
            )
        )
        self.register_buffer("class_embeddings", torch.zeros(7, 64))


def test_whole_network_matches_vpd():
    case = load_golden("vpd_depth")
    model = Estimator(case.info["config"]).eval()
    report = vpd.load_weights(model, case.weights, layout="vpd-depth")
    assert report.unexpected == report.mismatched == []
    assert set(report.missing) == {
        f"unet.{name}" for name in model.unet.state_dict() if name.startswith("out.")
    }
    assert torch.equal(model.class_embeddings, case.weights["encoder.class_embeddings"])
    image = case.inputs["image_low"].repeat_interleave(4, 2).repeat_interleave(4, 3)
    image = F.pad(2 * image - 1, (0, 384 - 352, 0, 384 - 352))
    with torch.no_grad():
        states = model.class_embeddings[case.inputs["class_ids"]][:, None]
        latents = model.vae.encode(image).mode()
        features = model.unet(
            latents, 1, model.adapter(states), taps=vpd.Taps(attention=())
        ).features
        encoded = model.head.encode(features)
        depth = model.head.decode(encoded, crop=(1, 1))
    assert_close(encoded, case.outputs["conv_feats"])
    assert depth.shape == (1, 1, 352, 352)
    assert_close(depth[:, :, ::2, ::2], case.outputs["pred_d"])


def test_full_size_keys_match_the_checkpoint():
    with torch.device("meta"):
        own = {k: list(v.shape) for k, v in vpd.DepthHead().state_dict().items()}
    other = ("encoder.encoder_vq.", "encoder.unet.", "encoder.text_adapter.")
    official = {
        k: v for k, v in key_list("vpd_depth")["tensors"].items() if not k.startswith(other)
    }
    assert own == {
        k: v for k, v in official.items() if k not in ("encoder.gamma", "encoder.class_embeddings")
    }


def test_initial_weights():
    head = vpd.DepthHead(vpd.DepthHeadConfig(dims=(64, 64, 64, 64), embed_dim=32))
    state = head.state_dict()
    for name, std in (
        ("encoder.layer1.0.weight", 0.02),
        ("encoder.layer2.0.weight", 0.02),
        ("encoder.out_layer.0.weight", 0.02),
        ("decoder.deconv_layers.0.weight", 0.001),
        ("decoder.conv_layers.0.weight", 0.001),
        ("last_layer_depth.0.weight", 0.001),
    ):
        assert state[name].std() == pytest.approx(std, rel=0.05), name
    assert not any(state[name].any() for name in state if name.endswith("0.bias"))
    features = [map.float() for map in feature_maps((64,) * 4, SIZES)]
    torch.testing.assert_close(head(features), torch.full((2, 1, 128, 192), 5.0), rtol=0, atol=0.01)


def test_depth_is_float32_at_least():
    head, _ = twinned(head_of(), Twin())
    head.float().eval()
    features = [map.float() for map in feature_maps(DIMS, SIZES)]
    want = head(features).detach()
    assert 0 < float(want.min()) < float(want.max()) < 10
    with torch.autocast("cpu", torch.bfloat16):
        autocast = head(features)
    for got in (autocast, head.bfloat16()(features)):
        assert got.dtype == torch.float32
        assert (got - want).abs().mean() < 0.03 * want.std()


def wrong_size():
    features = feature_maps(DIMS, SIZES)
    return [features[0][..., 1:], *features[1:]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: h(feature_maps(DIMS, SIZES)[:3]), "depth_head: expected 4 .* got 3"),
        (lambda h: h(feature_maps(DIMS, SIZES)[::-1]), r"map 0 must be .* \[B, 4, H, W\]"),
        (lambda h: h(wrong_size()), "map 0 must be 8 times .* 16 x 24, got 16 x 23"),
        (lambda h: h.decode(torch.ones(1, 31, 2, 2)), r"decode: .* \[B, 32, H, W\]"),
        (lambda h: h.decode(torch.ones(1, 32, 2, 3).double(), crop=(0, 3)), "2 rows and 3 columns"),
        (lambda h: h.decode(torch.ones(1, 32, 2, 3).double(), crop=(-1, 0)), "got -1 and 0"),
        (lambda h: head_of(dims=(4, 4, 4)), "dims must be four"),
        (lambda h: head_of(num_filters=()), "num_filters must be at least one"),
        (lambda h: head_of(max_depth=0.0), "max_depth must be positive, got 0"),
        (lambda h: head_of(norm_groups=3), "do not divide into 3"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call(head_of().double())
