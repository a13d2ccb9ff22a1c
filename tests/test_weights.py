"""Loading, saving and converting weights of whole modules."""

import json
from types import SimpleNamespace

import pytest
import safetensors.torch as reference
import torch
from helpers import load_golden
from torch import nn
from torch.nn.utils import parametrize

import vpd
from vpd.models.refer_decoder import ReferDecoderConfig
from vpd.models.unet import feature_dims
from vpd.weights import convert, find_weights, load_weights, read_state_dict, save_weights

SD = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text": "cond_stage_model.transformer.",
}


def make_unet():
    return vpd.UNet(
        vpd.UNetConfig(
            model_channels=16,
            channel_mult=(1, 2),
            num_res_blocks=1,
            attention_resolutions=(2, 1),
            num_heads=2,
            context_dim=24,
            norm_groups=8,
        )
    )


def make_vae(**options):
    config = vpd.AutoencoderConfig(ch=8, ch_mult=(1, 2), num_res_blocks=1, norm_groups=4, **options)
    return vpd.AutoencoderKL(config)


def make_text():
    return vpd.CLIPTextEncoder(
        vpd.CLIPTextConfig(
            vocab_size=99,
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            eos_token_id=98,
        )
    )


def stable_diffusion(unet, vae, text):
    """The state dict of a Stable Diffusion file made of three networks."""
    state = {"model_ema.decay": torch.tensor(0.5), "betas": torch.zeros(1000)}
    for module, prefix in ((unet, SD["unet"]), (vae, SD["vae"]), (text, SD["text"])):
        state |= {prefix + name: tensor for name, tensor in module.state_dict().items()}
    state[SD["text"] + "text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return state


def assert_equal(module, state):
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(7)
    return make_unet(), make_vae(), make_text()


@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
def test_stable_diffusion_file_into_each_network(tmp_path, networks, ending):
    state = stable_diffusion(*networks)
    path = tmp_path / f"sd.{ending}"
    if ending == "ckpt":
        torch.save({"state_dict": state, "global_step": 3}, path)
    else:
        reference.save_file(state, path)
    for source, make in zip(networks, (make_unet, make_vae, make_text), strict=True):
        module = make()
        report = load_weights(module, path)
        assert report == vpd.weights.LoadReport([], [], [])
        assert_equal(module, source.state_dict())
    encoder = make_vae(encode_only=True)
    load_weights(encoder, path, layout="sd")
    assert_equal(encoder, networks[1].state_dict())
    assert read_state_dict(path)[1].layout == "sd"


def test_half_precision_files_and_modules(networks):
    half = {name: tensor.half() for name, tensor in networks[0].state_dict().items()}
    module = make_unet()
    load_weights(module, half)
    assert all(p.dtype == torch.float32 for p in module.parameters())
    assert_equal(module, {name: tensor.float() for name, tensor in half.items()})
    narrow = make_unet().bfloat16()
    load_weights(narrow, half)
    assert_equal(narrow, {name: tensor.bfloat16() for name, tensor in half.items()})


def test_shared_weights_are_views_of_the_file(tmp_path, networks):
    plain = networks[0]
    assert any("out.2" in key for key in plain.state_dict())
    state = {
        key: value.half() if "out.2" in key else value for key, value in plain.state_dict().items()
    }
    save_weights(state, tmp_path / "unet.safetensors")
    before = (tmp_path / "unet.safetensors").read_bytes()
    model = make_unet()
    places = {key: value.data_ptr() for key, value in model.named_parameters()}
    load_weights(model, tmp_path / "unet.safetensors", share=True)
    for key, value in model.named_parameters():
        torch.testing.assert_close(value, state[key].float(), rtol=0, atol=0)
        assert value.requires_grad
        # Half precision is widened into the memory that was there.
        assert (value.data_ptr() == places[key]) == ("out.2" in key)
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    assert (tmp_path / "unet.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("out.2.bias"), r"1 missing from the file: out\.2\.bias; nothing was"),
        (lambda s: s.update({"out.3.bias": torch.ones(1)}), r"1 not in the module: out\.3\.bias"),
        (
            lambda s: s.update({"out.2.bias": torch.ones(5)}),
            r"1 of another shape: out\.2\.bias expected \[4\] got \[5\]",
        ),
        (lambda s: [s.pop(k) for k in list(s)[:9]], r"9 missing .*, \.\.\. \(9 in all\)"),
        (lambda s: s.update({"out.2.bias": torch.ones(4) * 1j}), "convertible to torch.float32"),
    ],
)
def test_strict_loads_all_or_nothing(networks, damage, message):
    state = dict(networks[0].state_dict())
    damage(state)
    module = make_unet()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_weights(module, state)
    assert_equal(module, before)


def test_lenient_loads_what_fits_and_reports(networks):
    state = dict(networks[0].state_dict())
    del state["out.0.bias"]
    state |= {"out.2.bias": torch.ones(5), "out.9.bias": torch.ones(1)}
    module = make_unet()
    kept = module.state_dict()["out.2.bias"].clone()
    report = load_weights(module, state, strict=False)
    assert report.missing == ["out.0.bias"]
    assert report.unexpected == ["out.9.bias"]
    assert report.mismatched == [("out.2.bias", (4,), (5,))]
    assert torch.equal(module.state_dict()["out.2.bias"], kept)
    assert torch.equal(module.state_dict()["out.2.weight"], state["out.2.weight"])


def test_sources_that_do_not_fit_at_all(tmp_path, networks):
    module = make_unet()
    with pytest.raises(ValueError, match=r"none of the \d+ parameters of UNet"):
        load_weights(module, {"fc.weight": torch.ones(1)}, strict=False)
    with pytest.raises(TypeError, match="'state_dict': OrderedDict"):
        load_weights(module, {"state_dict": networks[0].state_dict()})
    with pytest.raises(TypeError, match="got int"):
        load_weights(module, 3)
    with pytest.raises(ValueError, match="layout must be one of auto"):
        load_weights(module, networks[0].state_dict(), layout="sd3")
    with pytest.raises(ValueError, match="expected layout 'diffusers', got 'ldm-unet'"):
        load_weights(module, networks[0].state_dict(), layout="diffusers")
    load_weights(module, networks[0].state_dict(), layout="ldm")
    with torch.device("meta"):
        meta = make_unet()
    with pytest.raises(ValueError, match="to_empty"):
        load_weights(meta, networks[0].state_dict())


class Refer(nn.Module):
    def __init__(self, networks):
        super().__init__()
        self.unet, self.vae, self.text = networks
        self.adapter = vpd.TextAdapter(24)
        dims = feature_dims(self.unet.feature_channels, 5)
        self.decoder = vpd.ReferDecoder(ReferDecoderConfig(dims=(*dims, *dims)[:4], hidden=8))


def test_official_refer_checkpoint_into_a_whole_model(tmp_path):
    source = Refer((make_unet(), make_vae(encode_only=True), make_text()))
    official = {
        "unet.": "unet.unet.diffusion_model.",
        "vae.": "encoder_vq.",
        "decoder.": "classifier.",
        "adapter.fc.": "text_adapter.fc.",
        "adapter.gamma": "gamma",
    }
    state = {
        theirs + name.removeprefix(ours): tensor
        for name, tensor in source.state_dict().items()
        for ours, theirs in official.items()
        if name.startswith(ours)
    }
    torch.save({"model": state, "epoch": 1}, tmp_path / "refcoco.pth")
    target = Refer((make_unet(), make_vae(encode_only=True), make_text()))
    text = {name: tensor.clone() for name, tensor in target.text.state_dict().items()}
    report = load_weights(target, tmp_path / "refcoco.pth", layout="vpd-refer")
    assert set(report.missing) == {f"text.{name}" for name in text}
    assert_equal(target, source.state_dict() | {f"text.{n}": t for n, t in text.items()})
    save_weights(target, tmp_path / "mine.safetensors")
    again = Refer((make_unet(), make_vae(encode_only=True), make_text()))
    assert load_weights(again, tmp_path / "mine.safetensors").missing == []
    assert_equal(again, target.state_dict())
    assert read_state_dict(tmp_path / "mine.safetensors")[1].layout == "vpd"


class LowRank(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.a = nn.Parameter(torch.randn(2, weight.shape[1]))
        self.b = nn.Parameter(torch.randn(weight.shape[0], 2))

    def forward(self, weight):
        return weight + self.b @ self.a


def test_parametrised_weights_keep_original_names(tmp_path, networks):
    module = make_unet()
    name = "input_blocks.1.1.transformer_blocks.0.attn2.to_q"
    layer = module.get_submodule(name)
    parametrize.register_parametrization(layer, "weight", LowRank(layer.weight))
    assert load_weights(module, networks[0].state_dict()).missing == []
    base = networks[0].state_dict()[name + ".weight"]
    assert torch.equal(layer.parametrizations.weight.original, base)
    effective = layer.weight.detach().clone()
    assert not torch.equal(effective, base)
    save_weights(module, tmp_path / "x.safetensors", {"kind": "merged"})
    plain = make_unet()
    load_weights(plain, tmp_path / "x.safetensors")
    assert_equal(plain, networks[0].state_dict() | {name + ".weight": effective})


def test_conversion_there_and_back(tmp_path, networks):
    state = {k: v.half() for k, v in stable_diffusion(*networks).items()}
    reference.save_file(state, tmp_path / "sd.safetensors")
    written = convert(tmp_path / "sd.safetensors", tmp_path / "folder", to="diffusers")
    assert [str(path.relative_to(tmp_path / "folder")) for path in written] == [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert convert(tmp_path / "folder", tmp_path / "back.safetensors", to="ldm")
    back = reference.load_file(tmp_path / "back.safetensors")
    networks_only = {k: v for k, v in state.items() if k.startswith(tuple(SD.values()))}
    networks_only.pop(SD["text"] + "text_model.embeddings.position_ids")
    assert set(back) == set(networks_only)
    assert all(torch.equal(back[k], v) for k, v in networks_only.items())
    for source, make in zip(networks, (make_unet, make_vae, make_text), strict=True):
        module = make()
        load_weights(module, tmp_path / "folder", layout="diffusers")
        assert_equal(module, {k: v.half().float() for k, v in source.state_dict().items()})
    alone = convert(tmp_path / "folder" / "vae", tmp_path / "vae.safetensors", to="ldm")
    assert set(reference.load_file(alone[0])) == set(networks[1].state_dict())
    with pytest.raises(ValueError, match="expected a folder"):
        convert(tmp_path / "sd.safetensors", tmp_path / "x.safetensors", to="diffusers")
    with pytest.raises(ValueError, match="'ldm' or 'diffusers'"):
        convert(tmp_path / "sd.safetensors", tmp_path / "x", to="onnx")


def test_sharded_folder(tmp_path, networks):
    state = networks[0].state_dict()
    names = list(state)
    parts = {"m-1.safetensors": names[::2], "m-2.safetensors": names[1::2]}
    for file, part in parts.items():
        reference.save_file({name: state[name] for name in part}, tmp_path / file)
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    weight_map = {name: file for file, part in parts.items() for name in part}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    module = make_unet()
    load_weights(module, tmp_path)
    assert_equal(module, state)
    index.write_text(json.dumps({"weight_map": weight_map | {"more": "m-1.safetensors"}}))
    with pytest.raises(ValueError, match="1 tensors are in no shard: more"):
        read_state_dict(tmp_path)
    for bad in ({"a": "../x.safetensors"}, {"a": 3}, [], None):
        index.write_text(json.dumps({"weight_map": bad}))
        with pytest.raises(ValueError, match="expected a safetensors index"):
            read_state_dict(tmp_path)
    index.write_text("{")
    with pytest.raises(ValueError, match="expected a safetensors index"):
        read_state_dict(tmp_path)


def test_weights_are_found_in_the_folder_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("VPD_WEIGHTS", raising=False)
    with pytest.raises(FileNotFoundError, match="VPD_WEIGHTS may name a folder"):
        find_weights("none.safetensors")
    (tmp_path / "here.safetensors").touch()
    monkeypatch.setenv("VPD_WEIGHTS", str(tmp_path))
    assert find_weights("here.safetensors") == tmp_path / "here.safetensors"
    assert find_weights(tmp_path / "here.safetensors") == tmp_path / "here.safetensors"
    with pytest.raises(FileNotFoundError, match=r"neither none .*none exists"):
        find_weights("none")


def test_official_weights_load_below_their_prefix():
    golden = load_golden("ldm_vae")
    config = golden.info["config"]["ddconfig"]
    fields = {name: config[name] for name in ("ch", "num_res_blocks", "z_channels")}
    vae = vpd.AutoencoderKL(vpd.AutoencoderConfig(ch_mult=tuple(config["ch_mult"]), **fields))
    load_weights(vae, {SD["vae"] + name: tensor for name, tensor in golden.weights.items()})
    assert_equal(vae, golden.weights)


def randomise(module):
    """Fresh weights everywhere, also where the reference starts with zeros or ones."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return module.eval()


def test_unet_from_diffusers_gives_its_output():
    diffusers = pytest.importorskip("diffusers")
    theirs = randomise(
        diffusers.UNet2DConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=24,
            attention_head_dim=4,
            norm_num_groups=8,
        )
    )
    ours = vpd.from_diffusers(theirs)
    latents, context = torch.randn(2, 4, 16, 8), torch.randn(2, 7, 24)
    with torch.no_grad():
        want = theirs(latents, 321, context).sample
        got = ours(latents, 321, context, taps=vpd.Taps(noise=True, features=False, attention=()))
    torch.testing.assert_close(got.noise, want, rtol=1e-4, atol=1e-4 * float(want.std()))


def test_autoencoder_from_diffusers_gives_its_output():
    diffusers = pytest.importorskip("diffusers")
    theirs = randomise(
        diffusers.AutoencoderKL(
            block_out_channels=(16, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8,
        )
    )
    ours = vpd.from_diffusers(theirs)
    image, latents = torch.randn(1, 3, 16, 24), torch.randn(1, 4, 4, 6)
    with torch.no_grad():
        want = theirs.encode(image).latent_dist.mean
        decoded = theirs.decode(latents).sample
        torch.testing.assert_close(ours.encode(image).mode(), want, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.decode(latents), decoded, rtol=1e-4, atol=1e-4)


def test_text_encoder_and_pipeline_from_diffusers():
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(
        vocab_size=99,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=2,
    )
    theirs = randomise(transformers.CLIPTextModel(config))
    ours = vpd.from_diffusers(theirs)
    ids = torch.tensor([[97, 5, 6, 98, 98, 98], [97, 5, 6, 7, 8, 98]])
    with torch.no_grad():
        want = theirs(input_ids=ids)
        got = ours(ids)
    torch.testing.assert_close(got.hidden, want.last_hidden_state, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.pooled, want.pooler_output, rtol=1e-4, atol=1e-4)
    with pytest.raises(TypeError, match="got Linear"):
        vpd.from_diffusers(nn.Linear(2, 2))


def test_pipeline_from_diffusers_in_its_dtype():
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    sizes = {"block_out_channels": (16, 32), "norm_num_groups": 8}
    pipeline = SimpleNamespace(
        unet=diffusers.UNet2DConditionModel(
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=24,
            attention_head_dim=4,
            **sizes,
        ).half(),
        vae=diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            **sizes,
        ),
        text_encoder=transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                vocab_size=99,
                hidden_size=24,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
            )
        ),
    )
    networks = vpd.from_diffusers(pipeline)
    assert {p.dtype for p in networks.unet.parameters()} == {torch.float16}
    assert {p.dtype for p in networks.vae.parameters()} == {torch.float32}
    embedding = "text_model.embeddings.token_embedding.weight"
    want = pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(networks.text.state_dict()[embedding], want)


def test_other_unets_of_diffusers_are_refused():
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        theirs = diffusers.UNet2DConditionModel(
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            norm_num_groups=8,
            class_embed_type="timestep",
        )
    with pytest.raises(ValueError, match="class_embed_type must be None, got 'timestep'"):
        vpd.from_diffusers(theirs)
