"""Controlled attention against diffusers' U-Net with its attention written out as matrices."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import assert_close
from torch import Tensor
from unet_twin import diffusers_twin, small

import vpd
from vpd.diffusion import AttentionControl

TOKENS = 5
NOISE = vpd.Taps(noise=True, features=False, attention=())
BEFORE, AFTER = [0, 2], [1, 3]  # rows 1 and 3 take from rows 0 and 2


class PlainAttention:
    """An attention processor of diffusers with explicit matrices [B, heads, M, N], which `logits`
    (of self-attention) and `probabilities` (of cross-attention) change."""

    def __init__(self, logits=None, probabilities=None, mask=None):
        self.logits, self.probabilities, self.mask = logits, probabilities, mask
        self.maps: list[Tensor] = []

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        crosses = encoder_hidden_states is not None
        source = encoder_hidden_states if crosses else hidden_states
        q, k, v = (
            t.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for t in (attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source))
        )
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if self.logits and not crosses:
            scores = self.logits(scores)
        if crosses and self.mask is not None:
            scores = scores.masked_fill(~self.mask[:, None, None], float("-inf"))
        found = scores.softmax(-1)
        if crosses:
            found = self.probabilities(found) if self.probabilities else found
            self.maps.append(found)
        return attn.to_out[0]((found @ v).transpose(1, 2).flatten(2))


def changed(values: Tensor, rows: list[int], new: Tensor) -> Tensor:
    out = values.clone()
    out[rows] = new
    return out


@pytest.fixture(scope="module")
def nets():
    """A network and its twin."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        twin = diffusers_twin(small(attention_resolutions=(1, 2, 4)))
        with torch.no_grad():
            for p in twin.parameters():
                p.add_(torch.randn_like(p) * 0.05)
        return vpd.from_diffusers(twin), twin


@pytest.fixture
def given():
    """Two latents, rows of which see one each, and what the rows are told."""
    return torch.randn(2, 4, 8, 8), 2 * torch.randn(4, TOKENS, 12), torch.tensor([0, 1, 0, 1])


def cross(kept, transfer, rows=(1,), sources=(0,)) -> AttentionControl:
    whole = torch.ones(4, TOKENS)
    whole[list(rows)] = kept
    return AttentionControl(
        kept=whole,
        rows=torch.tensor(rows),
        sources=torch.tensor(sources),
        transfer=transfer.expand(len(rows), -1, -1),
    )


MAPPER = torch.zeros(TOKENS, TOKENS)
MAPPER[0, 0] = MAPPER[3, 4] = MAPPER[1, 1] = 1
MAPPER[2, 2] = MAPPER[2, 3] = 0.5  # a token spread over two
ALPHAS = torch.tensor([1.0, 1, 0, 0, 1])  # two tokens are new
FACTORS = torch.tensor([1.0, 3, 1, -2, 1])
WINDOW = torch.tensor([0.0, 1, 1, 1, 0])  # the others' time is over
SELF = torch.tensor([0, 0, 2, 2])


def replaced(found: Tensor) -> Tensor:
    return changed(found, [1], found[:1] @ MAPPER)


def refined(found: Tensor) -> Tensor:
    places = [0, 1, -1, -1, 3]  # of each token in the other caption
    return changed(found, [1], found[:1][..., places] * ALPHAS + found[1:2] * (1 - ALPHAS))


def weighted(found: Tensor) -> Tensor:
    new = (refined(found)[1:2] * FACTORS) * WINDOW + found[1:2] * (1 - WINDOW)
    return changed(found, [1], new)


def alignment() -> Tensor:
    transfer = torch.zeros(TOKENS, TOKENS)
    transfer[[0, 1, 3], [0, 1, 4]] = 1
    return transfer


CASES = {
    "self": (
        AttentionControl(self_source=SELF),
        {"logits": lambda s: changed(s, AFTER, s[BEFORE])},
    ),
    "self of small maps": (
        AttentionControl(self_source=SELF, self_positions=16),
        {"logits": lambda s: changed(s, AFTER, s[BEFORE]) if s.shape[-1] <= 16 else s},
    ),
    "self where the text is told": (
        AttentionControl(self_source=torch.tensor([0, 0, 2, 3])),
        {"logits": lambda s: changed(s, [1], s[:1])},
    ),
    "replace": (cross(torch.zeros(TOKENS), MAPPER), {"probabilities": replaced}),
    "refine": (cross(1 - ALPHAS, alignment()), {"probabilities": refined}),
    "factors in a window": (
        cross(WINDOW * FACTORS * (1 - ALPHAS) + 1 - WINDOW, alignment() * WINDOW * FACTORS),
        {"probabilities": weighted},
    ),
    "two rows from one": (
        cross(torch.zeros(TOKENS), MAPPER, (1, 3), (0, 0)),
        {"probabilities": lambda a: changed(a, AFTER, a[[0, 0]] @ MAPPER)},
    ),
    "factors alone": (
        AttentionControl(
            kept=torch.stack([torch.ones(TOKENS), FACTORS, FACTORS, torch.ones(TOKENS)]),
            rows=torch.zeros(0, dtype=torch.int64), sources=torch.zeros(0, dtype=torch.int64),
            transfer=torch.zeros(0, TOKENS, TOKENS),
        ),
        {"probabilities": lambda a: changed(a, [1, 2], a[[1, 2]] * FACTORS)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_as_with_matrices(nets, given, name):
    net, twin = nets
    control, changes = CASES[name]
    latents, context, index = given
    plain = PlainAttention(**changes)
    twin.set_attn_processor(plain)
    with torch.no_grad():
        got = net(latents, 500, context, image_index=index, control=control, taps=NOISE).noise
        want = twin(latents[index], torch.full((4,), 500), context).sample
        without = net(latents, 500, context, image_index=index, taps=NOISE).noise
    assert_close(got, want)
    assert (got - without)[1].abs().max() > 1e-3
    assert_close(got[0], without[0])


@pytest.mark.parametrize("name", ["replace", "factors in a window"])
@pytest.mark.parametrize("per_head", [False, True])
def test_maps_are_the_controlled_ones(nets, given, name, per_head):
    net, twin = nets
    control, changes = CASES[name]
    latents, context, index = given
    mask = torch.ones(4, TOKENS, dtype=torch.bool)
    mask[0, 3] = mask[1, 2] = False
    plain = PlainAttention(**changes, mask=mask)
    twin.set_attn_processor(plain)
    layer = net.attention_layers()[-1][0]
    taps = vpd.Taps(noise=True, attention=(1,), layers=(layer,), per_head=per_head, rows=2)
    with torch.no_grad():
        out = net(
            latents, 9, context, image_index=index, context_mask=mask, control=control, taps=taps
        )
        want = twin(latents[index], torch.full((4,), 9), context).sample
    assert_close(out.noise, want)
    maps = plain.maps[-1].transpose(2, 3).unflatten(-1, (8, 8))[:2]
    assert_close(out.attention[1], maps if per_head else maps.mean(1))


@pytest.mark.parametrize("recompute", ["none", "attention", "all"])
def test_gradients_pass_through(nets, given, recompute):
    net, twin = nets
    latents, context, index = given
    _, changes = CASES["factors in a window"]
    own = vars(CASES["factors in a window"][0]) | {"self_source": SELF}
    twin.set_attn_processor(
        PlainAttention(logits=lambda s: changed(s, AFTER, s[BEFORE]), **changes)
    )
    mine, theirs = (context.clone().requires_grad_() for _ in range(2))
    net.recompute = recompute
    try:
        got = net(
            latents, 3, mine, image_index=index, control=AttentionControl(**own), taps=NOISE
        ).noise
        cotangent = torch.randn_like(got)
        got.backward(cotangent)
    finally:
        net.recompute = "none"
    twin(latents[index], torch.full((4,), 3), theirs).sample.backward(cotangent)
    assert_close(mine.grad, theirs.grad)
    name = "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    block = twin.down_blocks[0].attentions[0].transformer_blocks[0]
    assert_close(dict(net.named_parameters())[name].grad, block.attn1.to_q.weight.grad)
    net.zero_grad()
    twin.zero_grad()


def test_a_control_that_changes_nothing(nets, given):
    net, _ = nets
    latents, context, index = given
    none = torch.zeros(0, dtype=torch.int64)
    control = AttentionControl(
        torch.arange(4), None, torch.ones(4, TOKENS), none, none, torch.zeros(0, TOKENS, TOKENS)
    )
    with torch.no_grad():
        got, want = (
            net(latents[index], 7, context, control=one, taps=NOISE).noise
            for one in (control, None)
        )
        shared = net(latents, 7, context, image_index=index, control=control, taps=NOISE)
    assert torch.equal(got, want)
    assert_close(shared.noise, want)
    assert shared.stem_rows == 4  # rows that look as others are not shared


def test_rows_still_share_what_precedes_the_text_under_cross_control(nets, given):
    net, _ = nets
    latents, context, index = given
    control = CASES["replace"][0]
    with torch.no_grad():
        out = net(latents, 7, context, image_index=index, control=control, taps=NOISE)
    assert out.stem_rows == 2


def test_half_precision(nets, given):
    net, _ = nets
    latents, context, index = given
    own = vars(CASES["factors in a window"][0]) | {"self_source": SELF}
    taps = vpd.Taps(noise=True, features=False, attention=(1,))
    with torch.no_grad():
        args = (latents, 7, context)
        how = {"image_index": index, "control": AttentionControl(**own), "taps": taps}
        want = net(*args, **how)
        with torch.autocast("cpu", torch.bfloat16):
            cast = net(*args, **how)
        half = copy.deepcopy(net).bfloat16()(*args, **how)
    for got in (cast, half):
        assert_close(got.noise.float(), want.noise, 0.1)
        assert_close(got.attention[1].float(), want.attention[1], 0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"self_source": torch.arange(3)}, r"self_source must be int64 \[4\], got .* \[3\]"),
        ({"self_source": torch.tensor([0, 4, 1, 2])}, r"must be rows in 0..3, got 0 to 4"),
        ({"kept": torch.ones(4, 6)}, r"kept must be floating point \[4, 5\], got .* \[4, 6\]"),
        ({"sources": torch.zeros(2, dtype=torch.int64)}, r"sources must be int64 \[1\]"),
        ({"rows": torch.tensor([-1])}, "rows must be rows in 0..3, got -1"),
        ({"transfer": torch.ones(5, 5)}, r"transfer must be floating point \[1, 5, 5\]"),
        ({"kept": None}, "go together, got no kept"),
    ],
)
def test_bad_controls_are_named(nets, given, fields, message):
    net, _ = nets
    latents, context, index = given
    whole = vars(CASES["replace"][0]) | fields
    with pytest.raises(ValueError, match=message):
        net(latents, 1, context, image_index=index, control=AttentionControl(**whole), taps=NOISE)


def test_rows_of_taps_are_checked(nets, given):
    net, _ = nets
    latents, context, index = given
    with pytest.raises(ValueError, match=r"rows must be in 1..4, got 5"):
        net(latents, 1, context, image_index=index, taps=vpd.Taps(attention=(1,), rows=5))
