"""CLIP's text tower against recorded outputs of transformers and against transformers itself."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from helpers import assert_close, error, key_list, load_golden, strip

import vpd

TINY = vpd.CLIPTextConfig(
    vocab_size=1000, hidden_size=64, intermediate_size=256, num_hidden_layers=4,
    num_attention_heads=4, bos_token_id=998, eos_token_id=999, pad_token_id=999,
)  # fmt: skip
SMALL = {
    "vocab_size": 50, "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2,
    "num_attention_heads": 3, "max_position_embeddings": 9, "bos_token_id": 48,
    "eos_token_id": 49, "pad_token_id": 49,
}  # fmt: skip


def small(**changes) -> vpd.CLIPTextEncoder:
    return vpd.CLIPTextEncoder(vpd.CLIPTextConfig(**{**SMALL, **changes}))


@pytest.fixture(scope="module")
def tiny() -> vpd.CLIPTextEncoder:
    text = vpd.CLIPTextEncoder(TINY)
    text.load_state_dict(load_golden("clip_text").weights)
    return text


def test_states_match_original(tiny):
    case = load_golden("clip_text")
    with torch.no_grad():
        out = tiny(case.inputs["input_ids"])
        pad0 = tiny(case.inputs["input_ids_pad0"])
        masked = tiny(case.inputs["input_ids"], case.inputs["attention_mask"].bool())
    assert_close(out.hidden, case.outputs["last_hidden_state"])
    assert_close(out.pooled, case.outputs["pooler_output"])
    assert_close(out.penultimate[:2], case.outputs["penultimate_hidden_state"])
    assert_close(pad0.hidden[:2], case.outputs["pad0_last_hidden_state"])
    assert_close(pad0.pooled, case.outputs["pad0_pooler_output"])
    assert_close(masked.hidden[:2], case.outputs["masked_last_hidden_state"])
    assert_close(masked.pooled, case.outputs["masked_pooler_output"])
    assert out.projected is None


@pytest.mark.parametrize("length", [1, 7, 40])
def test_shorter_sequences_are_prefixes(tiny, length):
    """Causal attention: what follows a token never changes its state."""
    ids = load_golden("clip_text").inputs["input_ids"]
    with torch.no_grad():
        assert_close(tiny(ids[:, :length]).hidden, tiny(ids).hidden[:, :length], 1e-5)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("projection", [None, 7])
@pytest.mark.parametrize("masked", [False, True])
def test_forward_and_gradients_match_transformers(act, projection, masked):
    import transformers

    ours = small(hidden_act=act, projection_dim=projection).double()
    fields = {**SMALL, "hidden_act": act, "projection_dim": projection or 12}
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    theirs = kind(transformers.CLIPTextConfig(**fields)).double()
    reference = {k.removeprefix("text_model."): p for k, p in theirs.named_parameters()}
    pairs = {k: reference.pop(k.removeprefix("text_model.")) for k in ours.state_dict()}
    assert not reference
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.normal_(0, 0.3)
            pairs[name].copy_(parameter)

    ids = torch.randint(0, 48, (3, 7))
    ids[:, 0] = 48
    ids[0, 5:], ids[1, 3:], ids[2, 6] = 49, 49, 49
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[0, 6:] = mask[1, 4:] = False
    got = ours(ids, mask if masked else None)
    want = theirs(
        input_ids=ids, attention_mask=mask.long() if masked else None, output_hidden_states=True
    )
    assert_close(got.hidden, want.last_hidden_state.detach(), 1e-9)
    assert_close(got.penultimate, want.hidden_states[-2].detach(), 1e-9)
    readout = got.pooled if projection is None else got.projected
    expected = want.pooler_output if projection is None else want.text_embeds
    assert_close(readout, expected.detach(), 1e-9)

    for states, head in ((got.hidden, readout), (want.last_hidden_state, expected)):
        (states.square().sum() + head.sin().sum()).backward()
    for name, parameter in ours.named_parameters():
        scale = pairs[name].grad.abs().max() + 1e-6
        assert (parameter.grad - pairs[name].grad).abs().max() <= 1e-8 * scale, name


def test_pooled_is_the_first_eos_or_the_last_token():
    text = small()
    ids = torch.tensor([[48, 3, 49, 4, 49], [48, 1, 2, 3, 4]])
    out = text(ids)
    assert torch.equal(out.pooled[0], out.hidden[0, 2])
    assert torch.equal(out.pooled[1], out.hidden[1, 4])


def test_vocab_subset_shares_one_row():
    subset = (0, 5, 17, 48, 49)
    lean, full = small(vocab_subset=subset), small()
    table = lean.state_dict()["text_model.embeddings.token_embedding.weight"]
    assert table.shape == (6, 12)
    full.load_state_dict(
        {
            **lean.state_dict(),
            "text_model.embeddings.token_embedding.weight": torch.stack(
                [table[subset.index(i) if i in subset else 5] for i in range(50)]
            ),
        }
    )
    ids = torch.arange(50).reshape(10, 5)
    torch.testing.assert_close(lean(ids).hidden, full(ids).hidden)
    lean(ids).hidden.square().sum().backward()
    assert lean.text_model.embeddings.token_embedding.weight.grad.abs().sum(1).min() > 0


def test_gradcheck():
    text = small(num_hidden_layers=1, hidden_size=4, intermediate_size=4, num_attention_heads=2)
    text.double()
    ids = torch.tensor([[48, 3, 3, 49]])
    names = [name for name, _ in text.named_parameters()]

    def call(*values):
        out = torch.func.functional_call(text, dict(zip(names, values, strict=True)), (ids,))
        return out.hidden, out.pooled

    values = [torch.randn_like(p).requires_grad_() for p in text.parameters()]
    assert torch.autograd.gradcheck(call, values)


def test_initial_weights_have_the_originals_spread():
    import transformers

    fields = {**SMALL, "hidden_size": 96, "intermediate_size": 200, "vocab_size": 3000,
              "eos_token_id": 2999, "projection_dim": 64}  # fmt: skip
    theirs = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**fields))
    ours = vpd.CLIPTextEncoder(vpd.CLIPTextConfig(**fields))
    reference = {k.removeprefix("text_model."): p for k, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        want = reference[name.removeprefix("text_model.")]
        if parameter.dim() < 2:
            assert torch.equal(parameter, want), name
        else:
            assert abs(float(parameter.mean())) < 6 * float(want.std()) / math.sqrt(want.numel())
            assert float(parameter.std()) == pytest.approx(float(want.std()), rel=0.1), name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t(torch.full((1, 4), 50)), r"\[0, 50\), got 50"),
        (lambda t: t(torch.full((1, 4), -1)), r"\[0, 50\), got -1"),
        (lambda t: t(torch.zeros(1, 10, dtype=torch.long)), "1 to 9 tokens .* got 10"),
        (lambda t: t(torch.zeros(1, 0, dtype=torch.long)), "got 0"),
        (lambda t: t(torch.zeros(4, dtype=torch.long)), r"int64 \[B, N\]"),
        (lambda t: t(torch.zeros(1, 4)), "int64"),
        (lambda t: t(torch.zeros(1, 4).long(), torch.ones(1, 4)), "mask must be bool"),
        (lambda t: t(torch.zeros(1, 4).long(), torch.ones(1, 5).bool()), r"\[1, 4\], got bool"),
        (lambda t: small(hidden_size=13), "num_attention_heads"),
        (lambda t: small(hidden_act="relu"), "quick_gelu or gelu, got 'relu'"),
        (lambda t: small(vocab_subset=(3, 2)), "rising order"),
        (lambda t: small(vocab_subset=(3, 50)), "below vocab_size"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call(small())


def test_full_size_keys_match_the_checkpoint():
    keys = strip(key_list("sd_v1_5_ldm")["tensors"], "cond_stage_model.transformer.")
    keys.pop("text_model.embeddings.position_ids")  # a buffer that newer files no longer hold
    with torch.device("meta"):
        state = vpd.CLIPTextEncoder().state_dict()
        projected = vpd.CLIPTextEncoder(vpd.CLIPTextConfig(projection_dim=768)).state_dict()
    assert len(state) == 196
    assert {k: list(v.shape) for k, v in state.items()} == keys
    assert set(projected) - set(state) == {"text_projection.weight"}


def test_bfloat16_and_copies():
    text, ids = small(projection_dim=5), torch.tensor([[48, 1, 2, 49, 49]])
    want = text(ids)
    for twin in (copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert torch.equal(twin(ids).projected, want.projected)
    with torch.autocast("cpu", torch.bfloat16):
        assert error(text(ids).hidden, want.hidden) < 0.1
    got = text.bfloat16()(ids)
    assert got.hidden.dtype == got.projected.dtype == torch.bfloat16
    assert error(got.hidden, want.hidden) < 0.1
