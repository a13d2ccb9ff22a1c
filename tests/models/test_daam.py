"""Attribution maps against DAAM's recorded results, and within the U-Net against a plain twin made
of single layers' maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import error, load_golden
from torch import Tensor

import vpd
from vpd import daam, reference
from vpd.memory import LiveBytes

WORDS = {"a": (1, 4)}  # columns of "a cat and a dog"


@pytest.fixture(scope="module")
def case():
    return load_golden("daam")


def layer(case, number: int, heads: tuple[int, ...] = (0, 1)) -> Tensor:
    """[1, heads, tokens kept, side, side] of the conditional half, summed over the steps."""
    side = case.info["config"]["layer_sides"][number]
    total = sum(case.inputs[f"attn.step{step}.layer{number}"][2:] for step in range(3))
    return total.transpose(1, 2).unflatten(-1, (side, side))[None, list(heads), :7]


@pytest.mark.parametrize(
    ("name", "layers", "heads"),
    [
        ("global_maps", (0, 1, 2, 4), (0, 1)),  # layer 3 is that of the coarsest grid
        ("only_head0", (0, 1, 2, 4), (0,)),
        ("only_layer1", (1,), (0, 1)),
        ("factors_1_2", (0, 1, 4), (0, 1)),
    ],
)
def test_fused_maps_match_daam(case, name, layers, heads):
    got = daam.heat_maps([layer(case, number, heads) for number in layers], (16, 16))
    assert error(got[0], case.outputs[name]) < 1e-5


def test_shares_words_and_expansion_match_daam(case):
    maps = case.outputs["global_maps"][None]
    tokens = vpd.tokenize("a cat and a dog", length=7)
    shares = daam.normalize(maps, daam.prompt_tokens(tokens))
    assert error(shares[0], case.outputs["global_maps_normalized"]) < 1e-5
    word = daam.word_map(maps, WORDS["a"])
    assert error(word[0], case.outputs["word_map"]) < 1e-5
    for name, options in {
        "word_expanded": {},
        "word_expanded_absolute": {"absolute": True},
        "word_expanded_thr": {"threshold": 0.4},
    }.items():
        got = daam.expand(word[None], (40, 40), **options)
        assert error(got[0, 0], case.outputs[name]) < 1e-5, name


def test_prompt_tokens_are_those_between_the_markers():
    tokens = vpd.tokenize(["a cat", "", "two giraffes here and there"], length=5)
    assert daam.prompt_tokens(tokens).int().tolist() == [
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0],
    ]


def test_layers_of_different_heads_count_by_their_heads():
    one, three = torch.rand(1, 1, 2, 4, 4), torch.rand(1, 3, 2, 4, 4)
    got = daam.heat_maps([one, three], (4, 4))
    torch.testing.assert_close(got, torch.cat([one, three], dim=1).mean(1))


def small(**changes) -> vpd.UNet:
    fields = {
        "model_channels": 16, "channel_mult": (1, 2, 2), "num_res_blocks": 1, "num_heads": 2,
        "attention_resolutions": (1, 2, 4), "context_dim": 12, "norm_groups": 4,
    }  # fmt: skip
    net = vpd.UNet(vpd.UNetConfig(**{**fields, **changes}))
    with torch.no_grad():  # zero-initialised layers would hide what lies before them
        for p in net.parameters():
            if not p.any():
                p.normal_(0, 0.1)
            else:
                p.mul_(2)  # maps that differ from pixel to pixel
    return net


def inputs(dtype=torch.float32) -> tuple[Tensor, Tensor]:
    latents, context = torch.randn(2, 4, 8, 12, dtype=dtype), 3 * torch.randn(2, 7, 12, dtype=dtype)
    return latents, context.requires_grad_()


def twin(net: vpd.UNet, latents: Tensor, context: Tensor, layers=None) -> Tensor:
    """[B, heads, N, h, w]: one forward per layer, resized by PyTorch, averaged over layers."""
    found = []
    for name, place, stride in net.attention_layers():
        if place == "mid" or stride == 4 or (layers is not None and name not in layers):
            continue
        taps = vpd.Taps(layers=(name,), attention=(stride,), per_head=True, map_grad="full")
        maps = net(latents, 1, context, taps=taps).attention[stride]
        heads = [F.interpolate(maps[:, head], latents.shape[-2:], mode="bicubic").clamp(min=0)
                 for head in range(maps.shape[1])]  # fmt: skip
        found.append(torch.stack(heads, dim=1))
    return torch.stack(found).mean(0)


def test_the_u_net_fuses_as_the_twin():
    net = small().double()
    latents, context = inputs(torch.double)
    want = twin(net, latents, context).detach()
    got = net(latents, 1, context, taps=vpd.Taps(attention=(1, 2, 4), fusion="daam"))
    assert got.attention[1].shape == (2, 7, 8, 12)
    assert not got.attention[1].requires_grad
    torch.testing.assert_close(got.attention[1], want.mean(1))
    for stride in (2, 4):
        torch.testing.assert_close(got.attention[stride], F.avg_pool2d(want.mean(1), stride))
    assert [p.shape[1] - f.shape[1] for p, f in zip(got.pyramid(), got.features, strict=True)] == [
        7, 7, 7,
    ]  # fmt: skip
    heads = vpd.Taps(attention=(1, 2), fusion="daam", per_head=True, features=False)
    apart = net(latents, 1, context, taps=heads).attention
    torch.testing.assert_close(apart[1], want)
    assert apart[2].shape == (2, 2, 7, 4, 6)
    # Not what averaging before resizing gives.
    plain = net(latents, 1, context, taps=vpd.Taps(attention=(1, 2))).attention
    resized = F.interpolate(plain[2], (8, 12), mode="bicubic")
    assert ((plain[1] + resized) / 2 - want.mean(1)).abs().max() > 1e-4


def test_named_layers_and_tokens():
    net = small().double()
    latents, context = inputs(torch.double)
    names = tuple(n for n, place, s in net.attention_layers() if place == "up" and s < 4)
    want = twin(net, latents, context, names).mean(1).detach()
    for changes in ({"layers": names}, {"selector": "up_cross"}):
        taps = vpd.Taps(attention=(1,), fusion="daam", tokens=(4, 1), **changes)
        got = net(latents, 1, context, taps=taps).attention[1]
        torch.testing.assert_close(got, want[:, [4, 1]])


def test_gradients_equal_the_twins():
    net = small().double()
    latents, context = inputs(torch.double)
    taps = vpd.Taps(attention=(1, 2), fusion="daam", map_grad="full", features=False)
    got = net(latents, 1, context, taps=taps).attention
    want = twin(net, latents, context).mean(1)
    cotangents = torch.randn_like(want), torch.randn(2, 7, 4, 6, dtype=torch.double)
    (mine,) = torch.autograd.grad(
        (got[1] * cotangents[0]).sum() + (got[2] * cotangents[1]).sum(), context
    )
    pooled = F.avg_pool2d(want, 2)
    (theirs,) = torch.autograd.grad(
        (want * cotangents[0]).sum() + (pooled * cotangents[1]).sum(), context
    )
    assert theirs.abs().max() > 1e-4
    torch.testing.assert_close(mine, theirs)


def test_functions_are_differentiable():
    maps = torch.rand(1, 2, 3, 2, 2, dtype=torch.double, requires_grad=True)
    tokens = torch.tensor([[False, True, True]])

    def run(maps):
        fused = daam.heat_maps([maps, maps[:, :1]], (5, 4))
        return daam.expand(daam.normalize(fused, tokens), (7, 9))

    assert torch.autograd.gradcheck(run, (maps,))


@pytest.mark.parametrize("recompute", ["attention", "all"])
def test_recomputation_leaves_maps_and_gradients_alone(recompute):
    net = small().double()  # a change of 1e-6 in the context changes float32 gradients by 4e-4
    latents, context = (t.detach().double() for t in inputs())
    context.requires_grad_()
    taps = vpd.Taps(attention=(1, 2, 4), fusion="daam", map_grad="full")
    grads = []
    for choice in ("none", recompute):
        net.recompute = choice
        loss = sum(level.square().sum() for level in net(latents, 1, context, taps=taps).pyramid())
        grads.append(torch.autograd.grad(loss, context)[0])
    torch.testing.assert_close(grads[0], grads[1])


def test_heads_of_all_layers_are_never_held():
    """Stable Diffusion's attention at a small width: per-head maps of ten layers at 32 x 32."""
    net = small(channel_mult=(1, 2, 2, 2), num_res_blocks=2, num_heads=8, context_dim=16)
    latents, context = torch.randn(1, 4, 32, 32), torch.randn(1, 77, 16)

    def peak(**options) -> int:
        taps = vpd.Taps(features=False, attention=(1, 2, 4), **options)
        with torch.no_grad(), LiveBytes([*net.parameters(), latents, context]) as live:
            net(latents, 1, context, taps=taps)
        return live.peak

    one = 77 * 32 * 32 * 4
    plain = peak()
    assert peak(fusion="daam") < plain + 9 * one
    assert peak(per_head=True) > plain + 12 * one


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": (3,)}, "strides 1, 2, 4, got 3"),
        ({"attention": (1,), "selector": "mid_cross"}, "leave out the coarsest grid"),
        ({"attention": (1,), "layers": ("nothing",)}, "no cross-attention layer 'nothing'"),
        ({"fusion": "sum"}, r"must be one of \('mean', 'daam'\), got 'sum'"),
    ],
)
def test_bad_taps_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        small()(*inputs()[:1], 1, inputs()[1], taps=vpd.Taps(**{"fusion": "daam", **options}))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: daam.heat_maps([], (4, 4)), "at least one layer, got none"),
        (lambda: daam.heat_maps([torch.rand(2, 3, 4, 4)], (4, 4)), r"\[B, heads, N, h, w\]"),
        (
            lambda: daam.heat_maps([torch.rand(1, 2, n, 4, 4) for n in (3, 5)], (4, 4)),
            "agree in images and tokens",
        ),
        (lambda: daam.heat_maps([torch.rand(1, 2, 3, 4, 4)], (4, 0)), "two positive numbers"),
        (
            lambda: daam.normalize(torch.rand(1, 3, 4, 4), torch.ones(1, 4, dtype=torch.bool)),
            r"tokens must be bool \[1, 3\]",
        ),
        (lambda: daam.expand(torch.rand(3, 4, 4), (4, 4)), r"\[B, N, h, w\]"),
        (lambda: daam.word_map(torch.rand(1, 3, 4, 4), (3,)), r"columns in 0\.\.2, got \[3\]"),
        (lambda: daam.word_map(torch.rand(1, 3, 4, 4), ()), r"got \[\]"),
    ],
)
def test_bad_maps_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_maps_kernel_at_the_finest_grid_of_stable_diffusion():
    """64 x 64 pixels, 8 heads of 40, 77 tokens, against the plain function."""
    q, k, v = torch.randn(1, 4096, 320), torch.randn(1, 77, 320), torch.randn(1, 77, 320)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    cotangent = torch.randn(1, 77, 4096)
    results = []
    for module in (vpd.ops, reference):
        out, maps = module.cross_attention(*leaves, None, 8)
        loss = (maps * cotangent).sum() + out.square().mean()
        results.append((out, maps, *torch.autograd.grad(loss, leaves)))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)
    total = results[0][1].sum(1)
    torch.testing.assert_close(total, torch.ones_like(total))
