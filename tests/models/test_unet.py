"""The U-Net against the original implementation's recorded outputs and against diffusers."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close, key_list, load_golden, strip
from unet_twin import diffusers_twin, small

import vpd

TINY = vpd.UNetConfig(
    model_channels=32, channel_mult=(1, 2, 2, 2), num_heads=8, context_dim=64, norm_groups=32
)


@pytest.fixture(scope="module")
def tiny() -> vpd.UNet:
    net = vpd.UNet(TINY)
    net.load_state_dict(load_golden("ldm_unet").weights)
    return net


def test_noise_prediction_matches_original(tiny):
    case = load_golden("ldm_unet")
    blocks = ("input_blocks.7", "input_blocks.11", "middle_block", "output_blocks.2")
    with torch.no_grad():
        out = tiny(
            case.inputs["x"], case.inputs["timesteps"], case.inputs["context"],
            taps=vpd.Taps(noise=True, block_outputs=blocks),
        )  # fmt: skip
    assert_close(out.noise, case.outputs["eps"])
    for block in blocks:
        assert_close(out.blocks[f"{block}:output"], case.outputs[f"tap.{block}"])


@pytest.mark.parametrize("variant", ["t1", "t200", "t1_max"])
def test_hierarchical_maps_match_vpd(tiny, variant):
    case = load_golden("vpd_unet")
    taps = vpd.Taps(attention=(1, 2, 4) if variant == "t1_max" else (2, 4))
    with torch.no_grad():
        out = tiny(
            case.inputs["latents"],
            200 if variant == "t200" else 1,
            case.inputs["context"],
            taps=taps,
        )
    for level, got in enumerate(out.pyramid()):
        name = f"{variant}.out{level}"
        if name in case.outputs:
            assert_close(got, case.outputs[name])
    for stride in taps.attention:
        # The original names levels by a 512-pixel image's latent.
        name = f"{variant}.attn{64 // stride}"
        if name in case.outputs:
            assert_close(out.attention[stride], case.outputs[name])
        total = out.attention[stride].sum(1)
        torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("place", ["down", "mid", "up"])
def test_each_layers_map_matches_vpd(tiny, place):
    case = load_golden("vpd_unet")
    stored = sorted(k for k in case.outputs if k.startswith(f"t1.store.{place}_cross."))
    layers = [x for x in tiny.attention_layers() if x[1] == place and (place == "mid" or x[2] > 1)]
    assert len(stored) == len(layers)
    for index, (name, _, stride) in enumerate(layers):
        with torch.no_grad():
            out = tiny(
                case.inputs["latents"], 1, case.inputs["context"],
                taps=vpd.Taps(features=False, layers=(name,), attention=(stride,)),
            )  # fmt: skip
        want = case.outputs[f"t1.store.{place}_cross.{index}"]  # [1, M, N]
        assert_close(out.attention[stride].flatten(2).transpose(1, 2), want)


@pytest.mark.parametrize(
    ("map_grad", "name"), [("detach", "context_official"), ("full", "context_maps_differentiable")]
)
def test_gradient_reaching_the_context_matches_vpd(tiny, map_grad, name):
    case = load_golden("vpd_unet")
    context = case.inputs["context"].clone().requires_grad_()
    out = tiny(case.inputs["latents"], 1, context, taps=vpd.Taps(map_grad=map_grad))
    loss = sum((f * case.inputs[f"cotangent{i}"]).sum() for i, f in enumerate(out.pyramid()))
    (grad,) = torch.autograd.grad(loss, context)
    assert_close(grad, case.grads[name])


def test_full_size_keys_equal_stable_diffusions():
    with torch.device("meta"):
        net = vpd.UNet(vpd.UNetConfig.sd15())
    want = strip(key_list("sd_v1_5_ldm")["tensors"], "model.diffusion_model.")
    assert {k: list(v.shape) for k, v in net.state_dict().items()} == want
    assert sum(p.numel() for p in net.parameters()) == 859_520_964


def test_shared_latents_equal_repeated_ones():
    net = small().double()
    latents, context = torch.randn(2, 4, 8, 12).double(), torch.randn(5, 7, 12).double()
    index = torch.tensor([0, 1, 1, 0, 1])
    taps = vpd.Taps(noise=True, block_inputs=("input_blocks.0", "output_blocks.0"))
    shared = net(latents, 3, context, image_index=index, taps=taps)
    plain = net(latents[index], torch.full((5,), 3), context, taps=taps)
    torch.testing.assert_close(shared.noise, plain.noise)
    for a, b in zip(shared.pyramid(), plain.pyramid(), strict=True):
        torch.testing.assert_close(a, b)
    for name in plain.blocks:
        torch.testing.assert_close(shared.blocks[name], plain.blocks[name])
    one = net(latents[:1], 3, context, taps=taps)
    torch.testing.assert_close(
        one.noise, net(latents[:1].expand(5, -1, -1, -1), 3, context, taps=taps).noise
    )


@pytest.mark.parametrize("recompute", ["none", "attention", "all"])
@pytest.mark.parametrize(
    ("images", "index", "steps", "stems"),
    [
        (2, [0, 1, 1, 0, 1, 0, 0], [3, 3, 500, 3, 3, 500, 3], 4),
        (1, None, [3, 7, 7, 3, 900, 3, 3], 3),
        (4, [3, 3, 1, 0, 0, 0, 3], [5.5, 5.5, 9.0, 1.0, 1.0, 1.0, 5.5], 3),
        (7, [6, 6, 2, 2, 1, 0, 5], [5, 6, 7, 8, 9, 9, 9], 7),  # nothing to share
    ],
)
def test_rows_share_what_precedes_the_text_at_each_timestep(images, index, steps, stems, recompute):
    net = small().double()
    latents = torch.randn(images, 4, 8, 12).double().requires_grad_()
    context = torch.randn(7, 7, 12).double().requires_grad_()
    taps = vpd.Taps(noise=True, block_inputs=("input_blocks.0", "output_blocks.0"))
    rows = torch.tensor(index or [0] * 7)
    given = None if index is None else rows
    inputs = (latents, context, *net.parameters())

    def total(out):
        parts = [out.noise, *out.pyramid(), *out.blocks.values()]
        draw = torch.Generator().manual_seed(1)
        return sum((p * torch.randn(p.shape, generator=draw)).sum() for p in parts)

    plain = net(latents[rows], torch.tensor(steps), context, taps=taps)
    assert plain.stem_rows == 7
    want = torch.autograd.grad(total(plain), inputs)
    net.recompute = recompute
    shared = net(latents, torch.tensor(steps), context, image_index=given, taps=taps)
    assert shared.stem_rows == stems
    torch.testing.assert_close(shared.noise, plain.noise)
    for a, b in zip(shared.pyramid(), plain.pyramid(), strict=True):
        torch.testing.assert_close(a, b)
    for name in plain.blocks:
        torch.testing.assert_close(shared.blocks[name], plain.blocks[name])
    for a, b in zip(torch.autograd.grad(total(shared), inputs), want, strict=True):
        torch.testing.assert_close(a, b)


def test_a_bias_of_each_row_leaves_nothing_to_share():
    net = small().double()
    latents, context = torch.randn(1, 4, 8, 8).double(), torch.randn(3, 7, 12).double()
    bias, steps = torch.randn(3, 64).double(), torch.tensor([4, 4, 9])
    out = net(latents, steps, context, time_bias=bias)
    assert out.stem_rows == 3
    for row in range(3):
        one = slice(row, row + 1)
        want = net(latents, steps[one], context[one], time_bias=bias[one])
        torch.testing.assert_close(out.features[0][one], want.features[0])


def test_token_selection_heads_and_mask():
    net = small()
    latents, context = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 12)
    full = net(latents, 1, context)
    some = net(latents, 1, context, taps=vpd.Taps(tokens=(4, 1)))
    torch.testing.assert_close(some.attention[2], full.attention[2][:, [4, 1]])
    heads = net(latents, 1, context, taps=vpd.Taps(per_head=True))
    assert heads.attention[2].shape == (2, 2, 7, 4, 4)
    torch.testing.assert_close(heads.attention[2].mean(1), full.attention[2])
    with pytest.raises(ValueError, match="head-averaged"):
        heads.pyramid()
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    masked = net(latents, 1, context, context_mask=mask)
    assert masked.attention[4][1, 4:].abs().max() == 0
    short = net(latents[1:], 1, context[1:, :4])
    torch.testing.assert_close(masked.features[0][1:], short.features[0], rtol=1e-4, atol=1e-5)


def test_middle_maps_are_resized_into_the_average():
    net = small()
    latents, context = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 12)
    name = next(n for n, place, _ in net.attention_layers() if place == "mid")
    mid = net(latents, 1, context, taps=vpd.Taps(layers=(name,), attention=(4,))).attention[4]
    up = net(latents, 1, context, taps=vpd.Taps(selector="up_cross")).attention[2]
    both = net(latents, 1, context, taps=vpd.Taps(selector="up_cross+mid_cross")).attention[2]
    resized = torch.nn.functional.interpolate(mid, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(
        both, (2 * up + resized) / 3
    )  # two layers up at stride 2, one in the middle


def test_nothing_past_the_last_tap_is_computed():
    """A parameter behind the last tap does not reach the result, and gets no gradient."""
    net = small()
    latents, context = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 12)
    taps = vpd.Taps(features=False, attention=(), block_outputs=("input_blocks.1",))
    with torch.no_grad():
        before = net(latents, 1, context, taps=taps).blocks["input_blocks.1:output"]
        for name, p in net.named_parameters():
            if name.startswith(("input_blocks.2", "middle", "output", "out.")):
                p.fill_(float("nan"))
        after = net(latents, 1, context, taps=taps).blocks["input_blocks.1:output"]
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "num_res_blocks": 2,
            "channel_mult": (1, 3),
            "attention_resolutions": (1,),
            "num_heads": 4,
        },
        {"in_channels": 8, "out_channels": 3, "channel_mult": (1, 2, 2, 4), "context_dim": 20},
    ],
)
@pytest.mark.parametrize("size", [(8, 8), (24, 8)])
def test_parity_with_diffusers(changes, size):
    twin_of = vpd.from_diffusers
    net = small(**changes)
    twin = diffusers_twin(net)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(torch.randn_like(p) * 0.02)
    net = twin_of(twin)
    latents = torch.randn(3, net.config.in_channels, *size)
    context = torch.randn(3, 5, net.config.context_dim)
    t = torch.tensor([0, 500, 999])
    taps = vpd.Taps(noise=True, features=False, attention=())
    mine, theirs = context.clone().requires_grad_(), context.clone().requires_grad_()
    got = net(latents, t, mine, taps=taps).noise
    want = twin(latents, t, theirs).sample
    assert_close(got, want.detach())
    cotangent = torch.randn_like(want)
    got.backward(cotangent)
    want.backward(cotangent)
    assert_close(mine.grad, theirs.grad)
    assert_close(
        dict(net.named_parameters())["input_blocks.0.0.weight"].grad, twin.conv_in.weight.grad
    )


def test_gradients_in_double():
    net = small(model_channels=4, channel_mult=(1, 2), norm_groups=2, context_dim=3,
                attention_resolutions=(1, 2)).double()  # fmt: skip
    latents = torch.randn(1, 4, 2, 2, dtype=torch.double, requires_grad=True)
    context = torch.randn(1, 3, 3, dtype=torch.double, requires_grad=True)
    weight = dict(net.named_parameters())["input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"]

    def run(x, c, w):
        out = torch.func.functional_call(
            net,
            {"input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": w},
            (x, 1, c),
            {"taps": vpd.Taps(attention=(1, 2), map_grad="full")},
        )
        return out.pyramid()

    assert torch.autograd.gradcheck(run, (latents, context, weight), fast_mode=True)


def test_bf16_weights_and_autocast_stay_close():
    net = small()
    latents, context = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 12)
    want = net(latents, 1, context).features[0]
    with torch.autocast("cpu", torch.bfloat16):
        autocast = net(latents, 1, context).features[0]
    half = net.to(torch.bfloat16)(latents, 1, context).features[0]
    assert half.dtype == torch.bfloat16
    for got in (autocast.float(), half.float()):
        assert torch.linalg.vector_norm(got - want) < 0.03 * torch.linalg.vector_norm(want)


def call(net, latents=(1, 4, 8, 8), context=(1, 7, 12), t=1, dtype=torch.float32, **taps):
    return net(
        torch.zeros(latents, dtype=dtype), t, torch.zeros(context), taps=vpd.Taps(**taps)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latents": (1, 3, 8, 8)}, r"latents must be \[I, 4, h, w\]"),
        ({"latents": (1, 4, 8, 6)}, "multiples of 4, got 8 x 6"),
        ({"context": (1, 7, 11)}, r"context must be \[B, N, 12\]"),
        ({"latents": (2, 4, 8, 8), "context": (3, 7, 12)}, "image_index"),
        ({"dtype": torch.int32}, "floating point"),
        ({"t": torch.zeros(3)}, "timesteps"),
        ({"attention": (1,)}, "stride 1; this network has them at 2, 4"),
        ({"selector": "sideways"}, "selector"),
        ({"block_inputs": ("output_blocks.99",)}, "no block"),
        ({"tokens": (7,)}, "token 7 out of range"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        call(small(), **arguments)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_channels": 20, "norm_groups": 8}, "normalisation groups"),
        ({"channel_mult": (2, 4)}, "start with 1"),
    ],
)
def test_impossible_configs_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        vpd.UNet(vpd.UNetConfig(**config))
