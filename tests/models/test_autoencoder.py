"""The KL autoencoder against the original's recorded outputs and against diffusers."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from helpers import assert_close, error, key_list, load_golden, strip
from torch.utils.flop_counter import FlopCounterMode

import vpd

TINY = vpd.AutoencoderConfig(ch=32, ch_mult=(1, 2, 1, 1))
SMALL = vpd.AutoencoderConfig(
    ch=8, ch_mult=(1, 2, 3), num_res_blocks=1, z_channels=3, embed_dim=3, norm_groups=4
)


@pytest.fixture(scope="module")
def tiny() -> vpd.AutoencoderKL:
    vae = vpd.AutoencoderKL(TINY)
    vae.load_state_dict(load_golden("ldm_vae").weights)
    return vae


def test_posterior_matches_original(tiny):
    case = load_golden("ldm_vae")
    taps = ("encoder.mid.attn_1:output", "encoder.conv_out:output")
    with torch.no_grad():
        posterior = tiny.encode(case.inputs["image"], taps=taps)
    assert_close(posterior.mode(), case.outputs["mode"])
    assert_close(posterior.logvar, case.outputs["logvar_clamped"])
    assert_close(posterior.std, case.outputs["std"])
    torch.testing.assert_close(posterior.kl(), case.outputs["kl"], rtol=1e-5, atol=0)
    assert_close(torch.cat([posterior.mean, posterior.logvar], 1), case.outputs["moments"])
    sample = posterior.mean + posterior.std * case.inputs["noise"]
    assert_close(sample, case.outputs["sample_with_noise"])
    for tap in taps:
        assert_close(posterior.blocks[tap], case.outputs[f"tap.{tap.removesuffix(':output')}"])


def test_decoder_matches_original(tiny):
    case = load_golden("ldm_vae")
    with torch.no_grad():
        assert_close(tiny.decode(case.inputs["z"]), case.outputs["decoded"])
        taps = ("decoder.mid.block_2:output", "decoder.conv_out:output")
        blocks = tiny.decode(case.inputs["z"], taps=taps)
    assert set(blocks) == set(taps)
    assert_close(blocks[taps[0]], case.outputs["tap.decoder.mid.block_2"])
    assert_close(blocks[taps[1]], case.outputs["decoded"])


@pytest.mark.parametrize("block", ["vae_res", "vae_attn"])
def test_single_blocks_match_original(block):
    """Group norms of the tiny model hide biases; here a block runs alone between identities."""
    case = load_golden("ldm_blocks")
    vae = vpd.AutoencoderKL(
        vpd.AutoencoderConfig(ch=64, ch_mult=(1,), num_res_blocks=1, in_channels=64),
        encode_only=True,
    )
    place = {"vae_res": "encoder.mid.block_1", "vae_attn": "encoder.mid.attn_1"}[block]
    with torch.no_grad():
        torch.nn.init.dirac_(vae.encoder.conv_in.weight)
        vae.encoder.conv_in.bias.zero_()
        for name in ("encoder.down.0.block.0.conv2", "encoder.mid.block_1.conv2"):
            vae.get_submodule(name).weight.zero_()
            vae.get_submodule(name).bias.zero_()
        vae.get_submodule(place).load_state_dict(strip(case.weights, f"{block}."))
        got = vae.encode(case.inputs["x"], taps=(f"{place}:output",)).blocks[f"{place}:output"]
    assert_close(got, case.outputs[block])


def diffusers_name(name: str, levels: int) -> str:
    """The name in diffusers of a parameter of the original layout."""
    name = re.sub(r"down\.(\d+)\.block\.(\d+)", r"down_blocks.\1.resnets.\2", name)
    name = re.sub(r"down\.(\d+)\.downsample", r"down_blocks.\1.downsamplers.0", name)

    def up(match: re.Match[str]) -> str:
        rest = match[2].replace(".block.", ".resnets.").replace(".upsample", ".upsamplers.0")
        return f"up_blocks.{levels - 1 - int(match[1])}{rest}"

    name = re.sub(r"up\.(\d+)(.*)", up, name)
    name = name.replace("mid.block_1", "mid_block.resnets.0").replace("norm_out", "conv_norm_out")
    name = name.replace("mid.block_2", "mid_block.resnets.1").replace(
        "nin_shortcut", "conv_shortcut"
    )
    attention = {
        "norm": "group_norm",
        "q": "to_q",
        "k": "to_k",
        "v": "to_v",
        "proj_out": "to_out.0",
    }
    return re.sub(
        r"mid\.attn_1\.(\w+)", lambda m: f"mid_block.attentions.0.{attention[m[1]]}", name
    )


@pytest.mark.parametrize("mid_attention", [True, False])
def test_forward_and_gradients_match_diffusers(mid_attention):
    from diffusers import AutoencoderKL

    config = vpd.AutoencoderConfig(
        ch=10, ch_mult=(1, 2, 3), num_res_blocks=1, z_channels=3, embed_dim=3, norm_groups=5,
        mid_attention=mid_attention,
    )  # fmt: skip
    ours = vpd.AutoencoderKL(config).double()
    theirs = AutoencoderKL(
        block_out_channels=(10, 20, 30), layers_per_block=1, latent_channels=3, norm_num_groups=5,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        mid_block_add_attention=mid_attention,
    ).double()  # fmt: skip
    reference = dict(theirs.named_parameters())
    pairs = {name: reference.pop(diffusers_name(name, 3)) for name in ours.state_dict()}
    assert not reference
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            pairs[name].copy_(parameter.reshape(pairs[name].shape))

    image = torch.randn(2, 3, 12, 20, dtype=torch.double)
    outputs, gradients = [], []
    for vae in (ours, theirs):
        x = image.clone().requires_grad_()
        if vae is ours:
            posterior = vae.encode(x)
            decoded = vae.decode(posterior.mode())
        else:
            posterior = vae.encode(x).latent_dist
            decoded = vae.decode(posterior.mode()).sample
        (decoded.square().mean() + posterior.kl().mean()).backward()
        values = (posterior.mean, posterior.logvar, posterior.kl(), decoded)
        outputs.append([value.detach() for value in values])
        gradients.append(x.grad)
    for got, want in zip(*outputs, strict=True):
        assert_close(got, want, 1e-10)
    assert_close(gradients[0], gradients[1], 1e-10)
    for name, parameter in ours.named_parameters():
        want = pairs[name].grad.reshape(parameter.shape)
        # A key's bias moves no probability: its gradient is rounding noise.
        scale = want.abs().max() + 1e-6
        assert (parameter.grad - want).abs().max() <= 1e-8 * scale, name


def test_sample_reparametrises():
    vae = vpd.AutoencoderKL(SMALL)
    posterior = vae.encode(torch.randn(2, 3, 8, 12))
    first = posterior.sample(torch.Generator().manual_seed(5))
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(first, posterior.mean + posterior.std * noise)
    assert not torch.equal(first, posterior.sample())
    first.sum().backward()
    assert vae.quant_conv.bias.grad[3:].abs().min() > 0  # through the log variance too


def test_logvar_is_clamped():
    vae = vpd.AutoencoderKL(SMALL)
    with torch.no_grad():
        vae.quant_conv.bias.copy_(torch.tensor([0.0, 0, 0, -1e4, 1e4, 0]))
        logvar = vae.encode(torch.randn(1, 3, 8, 8)).logvar
    assert (logvar[:, 0] == -30).all()
    assert (logvar[:, 1] == 20).all()


def test_gradcheck():
    config = vpd.AutoencoderConfig(
        ch=2, ch_mult=(1, 2), num_res_blocks=1, z_channels=1, embed_dim=1, norm_groups=1
    )
    vae = vpd.AutoencoderKL(config).double()
    x = torch.randn(1, 3, 4, 2, dtype=torch.double, requires_grad=True)

    def roundtrip(image):
        posterior = vae.encode(image)
        return posterior.kl(), vae.decode(posterior.mode())

    assert torch.autograd.gradcheck(roundtrip, (x,))


def test_taps_stop_the_decoder():
    vae, z = vpd.AutoencoderKL(SMALL), torch.randn(1, 3, 4, 4)
    costs = {}
    for tap in ("decoder.mid.block_1:input", "decoder.up.2.block.0:output", None):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            if tap is None:
                vae.decode(z)
            else:
                assert list(vae.decode(z, taps=(tap, tap))) == [tap]
        costs[tap] = counter.get_total_flops()
    first, second, whole = costs.values()
    assert 0 < first < second < whole / 2


def test_block_names_can_all_be_tapped():
    vae = vpd.AutoencoderKL(SMALL)
    for side in ("input", "output"):
        names = [f"{name}:{side}" for name in vae.block_names()]
        encoder = [name for name in names if name.startswith("encoder.")]
        decoder = [name for name in names if name.startswith("decoder.")]
        assert set(vae.encode(torch.randn(1, 3, 8, 8), taps=encoder).blocks) == set(encoder)
        assert set(vae.decode(torch.randn(1, 3, 2, 2), taps=decoder)) == set(decoder)
    blocks = vae.encode(torch.randn(1, 3, 8, 8), taps=("encoder.down.1.block.0:input",)).blocks
    assert blocks["encoder.down.1.block.0:input"].shape == (1, 8, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: v.encode(torch.zeros(1, 3, 8, 10)), "multiples of 4, got 8 x 10"),
        (
            lambda v: v.encode(torch.zeros(1, 4, 8, 8)),
            r"must be \[B, 3, H, W\], got \[1, 4, 8, 8\]",
        ),
        (lambda v: v.encode(torch.zeros(1, 3, 0, 8)), "positive multiples of 4"),
        (lambda v: v.encode(torch.zeros(1, 3, 8, 8).byte()), "floating point"),
        (lambda v: v.decode(torch.zeros(1, 4, 8, 8)), r"\[B, 3, h, w\]"),
        (
            lambda v: v.encode(torch.zeros(1, 3, 8, 8), taps=("encoder.mid.block_1",)),
            "<block>:input",
        ),
        (lambda v: v.encode(torch.zeros(1, 3, 8, 8), taps=("mid:input",)), "no block 'mid'"),
        (
            lambda v: vpd.AutoencoderKL(SMALL, encode_only=True).decode(torch.zeros(1, 3, 2, 2)),
            "encode_only",
        ),
        (lambda v: vpd.AutoencoderKL(vpd.AutoencoderConfig(ch=24)), "24 channels do not divide"),
        (lambda v: vpd.AutoencoderKL(vpd.AutoencoderConfig(ch_mult=())), "ch_mult"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call(vpd.AutoencoderKL(SMALL))


def test_full_size_keys_match_the_checkpoint():
    shapes = strip(key_list("sd_v1_5_ldm")["tensors"], "first_stage_model.")
    with torch.device("meta"):
        state = vpd.AutoencoderKL().state_dict()
        without_decoder = vpd.AutoencoderKL(encode_only=True).state_dict()
    assert len(state) == 248
    assert {k: list(v.shape) for k, v in state.items()} == shapes
    official = strip(key_list("vpd_refer")["tensors"], "encoder_vq.")
    assert {k: list(v.shape) for k, v in without_decoder.items()} == official


def test_bfloat16_and_copies():
    vae = vpd.AutoencoderKL(SMALL, encode_only=True)
    image = torch.rand(1, 3, 16, 8) * 2 - 1
    want = vae.encode(image).mode().detach()
    for twin in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        assert torch.equal(twin.encode(image).mode(), want)
        assert twin.config.encode_only
    with torch.autocast("cpu", torch.bfloat16):
        assert error(vae.encode(image).mode(), want) < 0.1
    got = vae.bfloat16().encode(image)
    assert got.mode().dtype == torch.bfloat16
    assert got.kl().dtype == torch.float32
    assert error(got.mode(), want) < 0.1
