"""Name maps, layout detection and matching, on the full-size key lists of the original models."""

import pytest
import torch
from helpers import key_list, load_golden
from torch import nn

import vpd
from vpd import _diffusers
from vpd._load import core
from vpd.models.refer_decoder import ReferDecoderConfig
from vpd.models.unet import feature_dims

ORIGINAL = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}


def entries(tensors):
    return [(name, list(shape)) for name, shape in tensors.items()]


def of_module(module):
    return [(name, list(tensor.shape)) for name, tensor in module.state_dict().items()]


def of_state(state):
    return [(name, list(tensor.shape)) for name, tensor in state.items()]


def assert_fits(match):
    assert match.missing == []
    assert match.unexpected == []
    assert match.mismatched == []


def expected_pairs():
    """Original key -> diffusers key of the whole model."""
    maps = key_list("ldm_to_diffusers")
    pairs = {a: f"{part}.{b}" for part in ("unet", "vae") for a, b in maps[part].items()}
    for key in key_list("sd_v1_5_diffusers")["tensors"]:
        if key.startswith("text_encoder."):
            pairs["cond_stage_model.transformer." + key.removeprefix("text_encoder.")] = key
    return pairs


def full_size(name):
    with torch.device("meta"):
        return {
            "unet": lambda: vpd.UNet(vpd.UNetConfig.sd15()),
            "unet8": lambda: vpd.UNet(vpd.UNetConfig(in_channels=8)),
            "vae": lambda: vpd.AutoencoderKL(vpd.AutoencoderConfig()),
            "encoder": lambda: vpd.AutoencoderKL(vpd.AutoencoderConfig(encode_only=True)),
            "text": lambda: vpd.CLIPTextEncoder(vpd.CLIPTextConfig()),
        }[name]()


def test_to_diffusers_agrees_pair_by_pair():
    original = key_list("sd_v1_5_ldm")["tensors"]
    published = key_list("sd_v1_5_diffusers")["tensors"]
    plan = core.plan_conversion(entries(original), "diffusers", "file")
    assert {source: target for source, target, _ in plan} == expected_pairs()
    assert {target: list(shape) for _, target, shape in plan} == published


def test_to_original_agrees_pair_by_pair():
    original = key_list("sd_v1_5_ldm")["tensors"]
    published = key_list("sd_v1_5_diffusers")["tensors"]
    plan = core.plan_conversion(entries(published), "ldm", "file")
    assert {target: source for source, target, _ in plan} == expected_pairs()
    for _, target, shape in plan:
        assert shape == original[target]


def test_older_attention_names_of_the_vae():
    lists = key_list("sd_v1_5_diffusers")
    older = lists["vae_legacy_names"]
    vae = {k[4:]: v for k, v in lists["tensors"].items() if k.startswith("vae.")}
    renamed = {older.get(name, name): shape for name, shape in vae.items()}
    assert renamed != vae
    new = {target for _, target, _ in core.plan_conversion(entries(vae), "ldm", "file")}
    assert {target for _, target, _ in core.plan_conversion(entries(renamed), "ldm", "file")} == new


@pytest.mark.parametrize(
    "options",
    [
        {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)},
        {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 3,
        },
        {
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "transformer_layers_per_block": 2,
        },
    ],
)
def test_any_unet_config_maps_onto_vpd_and_back(options):
    diffusers = pytest.importorskip("diffusers")
    levels = len(options["down_block_types"])
    with torch.device("meta"):
        theirs = diffusers.UNet2DConditionModel(
            block_out_channels=(32, 64, 64)[:levels],
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=16,
            **options,
        )
        ours = _diffusers.build(theirs)
    plan = core.plan_conversion(of_module(theirs), "ldm", "file")
    assert {t: s for _, t, s in plan} == dict(of_module(ours))
    back = core.plan_conversion([(t, s) for _, t, s in plan], "diffusers", "file")
    assert {s: t for s, t, _ in back} == {t: s for s, t, _ in plan}


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("sd_v1_5_ldm", "sd"),
        ("ip2p_ldm", "sd"),
        ("sd_v1_5_diffusers", "diffusers"),
        ("vpd_refer", "vpd-refer"),
        ("vpd_seg", "vpd-seg"),
        ("vpd_depth", "vpd-depth"),
    ],
)
def test_layouts_of_published_files(name, layout):
    assert core.detect_layout(entries(key_list(name)["tensors"])) == layout


@pytest.mark.parametrize(
    ("prefix", "source", "layout"),
    [
        ("model.diffusion_model.", "sd_v1_5_ldm", "ldm-unet"),
        ("first_stage_model.", "sd_v1_5_ldm", "ldm-vae"),
        ("cond_stage_model.transformer.", "sd_v1_5_ldm", "clip-text"),
        ("unet.", "sd_v1_5_diffusers", "diffusers-unet"),
        ("vae.", "sd_v1_5_diffusers", "diffusers-vae"),
    ],
)
def test_layouts_of_single_networks(prefix, source, layout):
    tensors = key_list(source)["tensors"]
    part = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    assert core.detect_layout(entries(part)) == layout
    assert core.detect_layout([("fc.weight", [3, 4])]) == "unknown"


@pytest.mark.parametrize(
    ("source", "network"),
    [
        *((s, n) for s in ("sd_v1_5_ldm", "sd_v1_5_diffusers") for n in ("unet", "vae", "text")),
        ("sd_v1_5_ldm", "encoder"),
        ("ip2p_ldm", "unet8"),
        ("vpd_refer", "unet"),
        ("vpd_seg", "encoder"),
        ("vpd_depth", "unet"),
        ("vpd_depth", "encoder"),
    ],
)
def test_full_size_networks_fit_published_files(source, network):
    lists = key_list(source)
    target = of_module(full_size(network))
    tensors = lists["tensors"] | lists.get("optional_keys", {})
    match = core.match_weights(entries(tensors), target, "file")
    assert_fits(match)
    absent = {name for name, _ in target if source == "vpd_depth" and name.startswith("out.")}
    assert set(match.absent) == absent
    assert len(match.pairs) == len(target) - len(absent)
    if source == "sd_v1_5_ldm" and network in ORIGINAL:
        assert all(theirs == ORIGINAL[network] + ours for ours, theirs in match.pairs)


class Refer(nn.Module):
    """The parts of a referring model under names of its own."""

    def __init__(self, tokens=77):
        super().__init__()
        self.vae = full_size("encoder")
        self.text = full_size("text")
        with torch.device("meta"):
            self.unet = full_size("unet")
            self.adapter = vpd.TextAdapter(768)
            dims = feature_dims(self.unet.feature_channels, tokens)
            self.decoder = vpd.ReferDecoder(ReferDecoderConfig(dims=dims, hidden=640))


def test_official_refer_checkpoint_fits_a_whole_model():
    module = Refer()
    match = core.match_weights(entries(key_list("vpd_refer")["tensors"]), of_module(module), "file")
    assert_fits(match)
    assert set(match.absent) == {n for n, _ in of_module(module) if n.startswith("text.")}
    pairs = dict(match.pairs)
    assert len(pairs) == len(key_list("vpd_refer")["tensors"])
    assert pairs["adapter.gamma"] == "gamma"
    assert pairs["adapter.fc.2.bias"] == "text_adapter.fc.2.bias"
    assert pairs["decoder.bn2_4.running_var"] == "classifier.bn2_4.running_var"
    assert pairs["vae.quant_conv.bias"] == "encoder_vq.quant_conv.bias"


class Semantic(nn.Module):
    """The parts of a semantic model: what it calls its head is what the file calls decode_head."""

    def __init__(self, head):
        super().__init__()
        self.vae = full_size("encoder")
        with torch.device("meta"):
            self.unet = full_size("unet")
            self.adapter = vpd.TextAdapter(768)
            self.neck = vpd.FPN(vpd.FPNConfig(feature_dims(self.unet.feature_channels, 150)))
            self.head = head()
            self.register_buffer("class_embeddings", torch.empty(150, 768))


class Depth(nn.Module):
    """The parts of a depth model."""

    def __init__(self):
        super().__init__()
        self.vae = full_size("encoder")
        with torch.device("meta"):
            self.unet = full_size("unet")
            self.adapter = vpd.TextAdapter(768)
            self.head = vpd.DepthHead()
            self.register_buffer("class_embeddings", torch.empty(27, 768))


def semantic_fpn():
    return vpd.SemanticFPNHead(vpd.SemanticFPNHeadConfig((256,) * 4, num_classes=150))


@pytest.mark.parametrize("wrapped", ["", "module."])
def test_official_semantic_checkpoint_fits_a_whole_model(wrapped):
    official = key_list("vpd_seg")["tensors"]
    module = of_module(Semantic(semantic_fpn))
    file = entries({wrapped + name: shape for name, shape in official.items()})
    match = core.match_weights(file, module, "file")
    assert_fits(match)
    assert match.absent == []
    pairs = {ours: theirs.removeprefix(wrapped) for ours, theirs in match.pairs}
    assert set(pairs.values()) == {k for k in official if not k.startswith("sd_model.")}
    assert pairs["class_embeddings"] == "class_embeddings"
    assert pairs["adapter.gamma"] == "gamma"
    assert pairs["neck.fpn_convs.3.conv.bias"] == "neck.fpn_convs.3.conv.bias"
    assert pairs["head.conv_seg.weight"] == "decode_head.conv_seg.weight"
    assert pairs["head.scale_heads.3.4.bn.bias"] == "decode_head.scale_heads.3.4.bn.bias"


@pytest.mark.parametrize("wrapped", ["", "module."])
def test_official_depth_checkpoint_fits_a_whole_model(wrapped):
    official = key_list("vpd_depth")["tensors"]
    module = of_module(Depth())
    file = entries({wrapped + name: shape for name, shape in official.items()})
    match = core.match_weights(file, module, "file")
    assert_fits(match)
    assert set(match.absent) == {n for n, _ in module if n.startswith("unet.out.")}
    pairs = {ours: theirs.removeprefix(wrapped) for ours, theirs in match.pairs}
    assert set(pairs.values()) == set(official)
    assert pairs["class_embeddings"] == "encoder.class_embeddings"
    assert pairs["adapter.gamma"] == "encoder.gamma"
    assert pairs["adapter.fc.0.bias"] == "encoder.text_adapter.fc.0.bias"
    assert pairs["head.encoder.layer1.3.weight"] == "encoder.layer1.3.weight"
    assert pairs["head.decoder.deconv_layers.4.weight"] == "decoder.deconv_layers.4.weight"
    assert pairs["head.last_layer_depth.2.bias"] == "last_layer_depth.2.bias"


def heads_of(source):
    with torch.device("meta"):
        if source == "vpd_depth":
            return {"": vpd.DepthHead()}
        neck = vpd.FPN(vpd.FPNConfig((320, 790, 1430, 1280)))
        return {"neck.": neck, "decode_head.": semantic_fpn()}


@pytest.mark.parametrize("source", ["vpd_seg", "vpd_depth"])
def test_heads_alone_fit_official_checkpoints(source):
    tensors = key_list(source)["tensors"]
    for prefix, head in heads_of(source).items():
        match = core.match_weights(entries(tensors), of_module(head), "file")
        assert_fits(match)
        assert dict(match.pairs) == {name: prefix + name for name, _ in of_module(head)}


@pytest.mark.parametrize(
    ("source", "more"),
    [
        ("vpd_seg", "decode_head.scale_heads.3.6.conv.weight"),
        ("vpd_depth", "decoder.deconv_layers.9.weight"),
    ],
)
def test_what_a_head_has_no_place_for_is_unexpected(source, more):
    module = Depth() if source == "vpd_depth" else Semantic(semantic_fpn)
    tensors = key_list(source)["tensors"] | {more: [1]}
    assert core.match_weights(entries(tensors), of_module(module), "file").unexpected == [more]
    alone = list(heads_of(source).values())[-1]
    assert core.match_weights(entries(tensors), of_module(alone), "file").unexpected == [more]


def test_heads_of_mmsegmentation_and_transformers():
    with torch.device("meta"):
        heads = nn.ModuleDict(
            {
                "head": vpd.UperNetHead(vpd.UperNetHeadConfig((8, 8, 8), num_classes=4)),
                "aux_head": vpd.FCNHead(vpd.FCNHeadConfig(8, num_classes=4)),
            }
        )
    ours = of_module(heads)

    def theirs(name):
        name = name.replace("aux_head.", "auxiliary_head.")
        return name if name.startswith("aux") else name.replace("head.", "decode_head.")

    mmseg = {theirs(name): shape for name, shape in ours} | {"backbone.norm.weight": [8]}
    hf = {
        name.replace(".bn.", ".batch_norm.").replace("conv_seg.", "classifier."): shape
        for name, shape in mmseg.items()
    }
    for file, layout in ((mmseg, "mmseg"), (hf, "transformers-upernet")):
        match = core.match_weights(entries(file), ours, "file")
        assert match.layout == core.detect_layout(entries(file)) == layout
        assert_fits(match)
        assert len(match.pairs) == len(ours)


def test_auxiliary_head_like_the_head_takes_its_own_weights():
    with torch.device("meta"):
        fcn = vpd.FCNHead(vpd.FCNHeadConfig(8, num_classes=4))
    names = of_module(nn.ModuleDict({"head": fcn, "aux_head": fcn}))
    file = [(f"{p}.{n}", s) for p in ("auxiliary_head", "decode_head") for n, s in of_module(fcn)]
    pairs = dict(core.match_weights(file, names, "file").pairs)
    assert pairs["head.conv_seg.bias"] == "decode_head.conv_seg.bias"
    assert pairs["aux_head.conv_seg.bias"] == "auxiliary_head.conv_seg.bias"


def test_other_token_length_is_a_mismatch():
    module = Refer(tokens=40)
    match = core.match_weights(entries(key_list("vpd_refer")["tensors"]), of_module(module), "file")
    assert match.mismatched == [
        ("decoder.conv1_4.weight", [640, 2600, 3, 3], [640, 2637, 3, 3]),
        ("decoder.conv1_3.weight", [640, 1320, 3, 3], [640, 1357, 3, 3]),
    ]
    assert match.missing == []
    assert match.unexpected == []


@pytest.mark.parametrize("name", ["vpd_refer", "vpd_seg", "vpd_depth"])
def test_adapter_alone_takes_gamma_from_beside_it(name):
    with torch.device("meta"):
        adapter = vpd.TextAdapter(768)
    match = core.match_weights(entries(key_list(name)["tensors"]), of_module(adapter), "file")
    stem = "encoder." if name == "vpd_depth" else ""
    assert dict(match.pairs)["gamma"] == stem + "gamma"
    assert dict(match.pairs)["fc.0.weight"] == stem + "text_adapter.fc.0.weight"
    assert_fits(match)


def test_missing_unexpected_and_ignored_keys():
    target = of_module(full_size("vae"))
    tensors = key_list("sd_v1_5_ldm")["tensors"] | {
        "first_stage_model.loss.logvar": [],
        "first_stage_model.decoder.up.9.block.0.norm1.weight": [4],
        "model.diffusion_model.output_blocks.99.0.weight": [4],
        "betas": [1000],
    }
    del tensors["first_stage_model.encoder.conv_in.bias"]
    match = core.match_weights(entries(tensors), target, "file")
    assert match.missing == ["encoder.conv_in.bias"]
    assert match.unexpected == ["first_stage_model.decoder.up.9.block.0.norm1.weight"]
    alone = dict(target) | {"head.weight": [1]}
    assert core.match_weights(entries(alone), target, "file").unexpected == ["head.weight"]


def test_a_head_is_never_matched_by_chance():
    tensors = key_list("vpd_refer")["tensors"]
    match = core.match_weights(entries(tensors), [("head.weight", [2, 640, 1, 1])], "file")
    assert match.missing == ["head.weight"]


def test_two_unets_are_ambiguous():
    unet = dict(of_module(full_size("unet")))
    both = {f"{name}.{key}": shape for name in ("a", "b") for key, shape in unet.items()}
    with pytest.raises(ValueError, match=r"got several, below the prefixes 'a\.' 'b\.'"):
        core.match_weights(entries(both), list(unet.items()), "file")
    inside = [(f"b.{key}", shape) for key, shape in unet.items()]
    assert (
        dict(core.match_weights(entries(both), inside, "file").pairs)["b.out.2.bias"]
        == "b.out.2.bias"
    )


@pytest.mark.parametrize(
    ("extra", "model"),
    [
        ({"conditioner.embedders.0.transformer.text_model.x": [1]}, "XL"),
        ({"model.diffusion_model.label_emb.0.0.weight": [1280, 2816]}, "XL"),
        ({"unet.add_embedding.linear_1.weight": [1280, 2816]}, "XL"),
        ({"cond_stage_model.model.transformer.resblocks.0.ln_1.weight": [1024]}, r"2\.x"),
    ],
)
def test_other_models_are_refused_by_name(extra, model):
    with pytest.raises(ValueError, match=f"v1-5.* got a Stable Diffusion {model}"):
        core.match_weights(entries(key_list("sd_v1_5_ldm")["tensors"] | extra), [], "file")


def test_stable_diffusion_2_unet_is_known_by_its_context():
    wide = {
        name: [shape[0], 1024] if "attn2.to_k" in name or "attn2.to_v" in name else shape
        for name, shape in key_list("sd_v1_5_diffusers")["tensors"].items()
    }
    with pytest.raises(ValueError, match="context width 1024"):
        core.plan_conversion(entries(wide), "ldm", "file")


def test_what_cannot_be_converted():
    with pytest.raises(ValueError, match="'gamma' belongs to no U-Net"):
        core.plan_conversion([("gamma", [768])], "ldm", "file")
    with pytest.raises(ValueError, match="found none"):
        core.plan_conversion([("betas", [1000])], "ldm", "file")


def test_golden_models_fit_tiny_networks():
    """The official tiny modules, with their own quirks of equal widths."""
    for case in ("ldm_unet", "ldm_vae"):
        names = of_state(load_golden(case).weights)
        back = core.plan_conversion(names, "diffusers", "file")
        again = core.plan_conversion([(t, s) for _, t, s in back], "ldm", "file")
        assert {t: s for _, t, s in again} == dict(names)
