"""The tagging adapter against a twin in plain PyTorch, which reads one picture at a time and simply
leaves out what is padding."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from helpers import assert_close, error
from torch import Tensor
from torch.nn import functional as F

import vpd

SMALL = vpd.TaggingAdapterConfig(
    dim=12, text_dim=10, image_dim=14, queries=5, blocks=2, heads=3, hidden=20
)
CONFIGS = {
    "both": SMALL,
    "single cross": replace(SMALL, text_dim=12, single_cross=True, blocks=3),
    "text": replace(SMALL, image_dim=None, head_norm="raw"),
    "image": replace(SMALL, text_dim=None, heads=1, blocks=1),
    "centered": replace(SMALL, head_norm="h_centered"),
    "cosine": replace(SMALL, queries=1, heads=12, head_norm="cosine"),
}
TAGS = [4, 0, 7, 1]  # of each picture


def randomised(config: vpd.TaggingAdapterConfig) -> vpd.TaggingAdapter:
    adapter = vpd.TaggingAdapter(config).double()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(0, 0.4)
    return adapter


class Twin:
    """The formulas, from a table of weights by name."""

    def __init__(self, config: vpd.TaggingAdapterConfig, weights: dict[str, Tensor]) -> None:
        self.config, self.weights = config, weights

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = x @ self.weights[f"{name}.weight"].T
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else y + bias

    def norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return unit * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, name: str, x: Tensor, tokens: Tensor) -> Tensor:
        q, k, v = (
            self.linear(f"{name}.to_{part}", t)
            for part, t in (("q", x), ("k", tokens), ("v", tokens))
        )
        width = self.config.dim // self.config.heads
        heads = []
        for head in range(self.config.heads):
            at = slice(head * width, (head + 1) * width)
            heads.append((q[:, at] @ k[:, at].T / width**0.5).softmax(-1) @ v[:, at])
        return self.linear(f"{name}.to_out.0", torch.cat(heads, -1))

    def block(self, name: str, x: Tensor, tags: Tensor | None, patches: Tensor | None) -> Tensor:
        normed = self.norm(f"{name}.self_norm", x)
        x = x + self.attention(f"{name}.self_attn", normed, normed)
        sources = {"text": tags, "image": patches}
        if self.config.single_cross:
            sources = {"both": torch.cat([tags, patches])}
        for source, tokens in sources.items():
            if tokens is not None and len(tokens):
                normed = self.norm(f"{name}.{source}_norm", x)
                x = x + self.attention(f"{name}.{source}_attn", normed, tokens)
        hidden = F.gelu(self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.mlp_norm", x)))
        return x + self.linear(f"{name}.mlp.fc2", hidden)

    def context(self, tags: Tensor | None, image: Tensor | None) -> Tensor:
        """tags [n, text_dim], image [N, image_dim] -> [Q, dim]"""
        patches = None if image is None else self.linear("image_proj", image)
        x = self.weights["queries"]
        for i in range(self.config.blocks):
            x = self.block(f"blocks.{i}", x, tags, patches)
        return self.linear("out.fc2", F.gelu(self.linear("out.fc1", self.norm("norm", x))))

    def scores(self, context: Tensor, classes: Tensor) -> Tensor:
        """context [Q, dim], classes [K, dim] -> [K]"""
        mean = context.mean(0)
        found = []
        for h in classes:
            if self.config.head_norm == "h_centered":
                h = h - sum(classes) / len(classes)
            if self.config.head_norm == "raw":
                found.append(mean @ h)
            elif self.config.head_norm in ("h_unit", "h_centered"):
                found.append(mean @ h / h.norm())
            else:
                found.append(self.weights["head.scale"] * F.cosine_similarity(mean, h, dim=0))
        return torch.stack(found)


def inputs(config: vpd.TaggingAdapterConfig, batch: int = len(TAGS)) -> dict[str, Tensor | None]:
    def tokens(count, dim):
        if dim is None:
            return None
        return torch.randn(batch, count, dim, dtype=torch.float64).requires_grad_()

    return {"text": tokens(max(TAGS), config.text_dim), "image": tokens(9, config.image_dim)}


def tag_mask() -> Tensor:
    return torch.arange(max(TAGS)) < torch.tensor(TAGS)[:, None]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_forward_and_gradients_match_twin(name, masked):
    config = CONFIGS[name]
    adapter, tokens = randomised(config), inputs(config)
    mask = tag_mask() if masked and config.text_dim else None
    classes = torch.randn(6, config.dim, dtype=torch.float64) * 3
    weights = {k: p.detach().clone().requires_grad_() for k, p in adapter.named_parameters()}
    twin = Twin(config, weights)
    twins = {k: t if t is None else t.detach().clone().requires_grad_() for k, t in tokens.items()}
    contexts, scores = [], []
    for i, count in enumerate(TAGS if masked else [max(TAGS)] * len(TAGS)):
        text = None if twins["text"] is None else twins["text"][i, :count]
        contexts.append(twin.context(text, None if twins["image"] is None else twins["image"][i]))
        scores.append(twin.scores(contexts[-1], classes))
    want, want_scores = torch.stack(contexts), torch.stack(scores)

    got = adapter(**tokens, text_mask=mask, classes=classes)
    assert_close(got.context, want.detach(), 1e-9)
    assert_close(got.logits, want_scores.detach(), 1e-9)

    up, up_scores = torch.randn_like(want), torch.randn_like(want_scores)
    for context, logits in ((got.context, got.logits), (want, want_scores)):
        ((context * up).sum() + (logits * up_scores).sum()).backward()
    pairs = {k: (p.grad, weights[k].grad) for k, p in adapter.named_parameters()}
    pairs.update({k: (t.grad, twins[k].grad) for k, t in tokens.items() if t is not None})
    for key, (grad, reference) in pairs.items():
        scale = reference.abs().max() + 1e-6
        assert (grad - reference).abs().max() <= 1e-8 * scale, key


@pytest.mark.parametrize("name", ["both", "text", "single cross"])
def test_no_tags_at_all(name):
    """n = 0 is the same as a mask without a single tag."""
    config = CONFIGS[name]
    adapter, tokens = randomised(config), inputs(config)
    none = torch.zeros(len(TAGS), max(TAGS), dtype=torch.bool)
    want = adapter(**tokens, text_mask=none).context
    got = adapter(tokens["text"][:, :0], tokens["image"])
    assert_close(got.context, want.detach(), 1e-12)
    with_tags = adapter(**tokens).context
    assert error(with_tags, want.detach()) > 0.01
    got.context.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adapter.parameters())


def test_order_and_padding_of_tags_do_not_matter():
    adapter, tokens = randomised(SMALL), inputs(SMALL)
    want = adapter(**tokens).context.detach()
    shuffled = tokens["text"][:, torch.randperm(max(TAGS))]
    padded = torch.cat([shuffled, torch.full_like(shuffled, 1e3)], 1)
    mask = torch.arange(padded.shape[1]).expand(len(TAGS), -1) < max(TAGS)
    assert_close(adapter(padded, tokens["image"], text_mask=mask).context, want, 1e-9)


def test_five_thousand_tags():
    adapter = vpd.TaggingAdapter(SMALL)
    tags, image = torch.randn(1, 5000, 10), torch.randn(1, 9, 14)
    mask = torch.arange(5000)[None] < 4999
    out = adapter(tags, image, text_mask=mask, classes=torch.randn(5000, 12))
    assert out.logits.shape == (1, 5000)
    assert_close(out.context, adapter(tags[:, :4999], image).context.detach(), 1e-4)


def looks(twin: Twin, tags: Tensor | None, image: Tensor | None) -> dict[str, Tensor]:
    """Probabilities of the queries, by source: the twin's, with keys in place of values."""
    found: dict[str, list[Tensor]] = {}

    class Looking(Twin):
        def attention(self, name: str, x: Tensor, tokens: Tensor) -> Tensor:
            width = self.config.dim // self.config.heads
            q, k = self.linear(f"{name}.to_q", x), self.linear(f"{name}.to_k", tokens)
            heads = [slice(h * width, (h + 1) * width) for h in range(self.config.heads)]
            shares = [(q[:, at] @ k[:, at].T / width**0.5).softmax(-1) for at in heads]
            found.setdefault(name.split(".")[-1], []).append(torch.stack(shares).mean(0))
            return super().attention(name, x, tokens)

    Looking(twin.config, twin.weights).context(tags, image)
    return {name: torch.stack(blocks).mean(0) for name, blocks in found.items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_where_queries_look(name):
    config = CONFIGS[name]
    adapter, tokens = randomised(config), inputs(config)
    mask = tag_mask() if config.text_dim else None
    want = adapter(**tokens, text_mask=mask)
    got = adapter(**tokens, text_mask=mask, attention=True)
    assert_close(got.context, want.context.detach(), 1e-9)
    assert want.text_attention is None
    assert want.image_attention is None
    twin = Twin(config, dict(adapter.named_parameters()))
    for i, count in enumerate(TAGS):
        text = None if tokens["text"] is None else tokens["text"][i, :count]
        image = None if tokens["image"] is None else tokens["image"][i]
        shares = looks(twin, text, image)
        if config.single_cross:
            both = shares["both_attn"]
            shares = {"text_attn": both[:, :count], "image_attn": both[:, count:]}
        for source, found in (("text", got.text_attention), ("image", got.image_attention)):
            if tokens[source] is None:
                assert found is None
                continue
            assert found.shape == (len(TAGS), config.queries, tokens[source].shape[1])
            wanted = shares.get(f"{source}_attn", torch.zeros(config.queries, 0))
            torch.testing.assert_close(found[i, :, : wanted.shape[1]], wanted.double())
            assert not found[i, :, wanted.shape[1] :].any()


@pytest.mark.parametrize("name", ["both", "single cross"])
def test_nobody_looks_at_tags_that_are_not_there(name):
    adapter, tokens = randomised(CONFIGS[name]), inputs(CONFIGS[name])
    out = adapter(tokens["text"][:, :0], tokens["image"], attention=True)
    assert out.text_attention.shape == (len(TAGS), 5, 0)
    assert out.image_attention.shape == (len(TAGS), 5, 9)
    torch.testing.assert_close(out.image_attention.sum(-1), torch.ones(len(TAGS), 5).double())


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_batches(batch):
    adapter, tokens = randomised(SMALL), inputs(SMALL, batch)
    out = adapter(**tokens, classes=torch.randn(2, 12))
    assert out.context.shape == (batch, 5, 12)
    assert out.logits.shape == (batch, 2)
    for i in range(batch):
        alone = adapter(tokens["text"][i : i + 1], tokens["image"][i : i + 1])
        assert_close(out.context[i : i + 1], alone.context.detach(), 1e-9)
        assert alone.logits is None


def test_class_embeddings_are_constants():
    classes = torch.randn(3, 12, requires_grad=True)
    out = vpd.TaggingAdapter(SMALL)(torch.randn(1, 2, 10), torch.randn(1, 4, 14), classes=classes)
    out.logits.sum().backward()
    assert classes.grad is None


def test_parameters_of_the_paper_size():
    adapter = vpd.TaggingAdapter()
    shapes = {k: tuple(v.shape) for k, v in adapter.state_dict().items()}
    block = {k.removeprefix("blocks.0.") for k in shapes if k.startswith("blocks.0.")}
    attention = {"to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias"}
    assert block == {
        *(f"{s}_attn.{a}" for s in ("self", "text", "image") for a in attention),
        *(f"{s}_norm.{w}" for s in ("self", "text", "image", "mlp") for w in ("weight", "bias")),
        *(f"mlp.{f}.{w}" for f in ("fc1", "fc2") for w in ("weight", "bias")),
    }
    assert {k for k in shapes if not k.startswith("blocks.")} == {
        "queries",
        *(f"{m}.{w}" for m in ("image_proj", "norm", "out.fc1", "out.fc2")
          for w in ("weight", "bias")),
    }  # fmt: skip
    assert shapes["queries"] == (32, 768)
    assert shapes["image_proj.weight"] == (768, 1024)
    assert float(adapter.queries.detach().std()) == pytest.approx(0.02, rel=0.05)
    attention_size = 4 * 768 * 768 + 768
    mlp = 2 * 768 * 3072 + 3072 + 768
    size = 2 * (3 * attention_size + mlp + 4 * 2 * 768)
    size += 32 * 768 + 1024 * 768 + 768 + 2 * 768 + 2 * (768 * 768 + 768)
    assert sum(p.numel() for p in adapter.parameters()) == size


def test_optional_parameters():
    def names(name):
        return set(vpd.TaggingAdapter(CONFIGS[name]).state_dict())

    assert not any("image" in n or "both" in n for n in names("text"))
    assert not any("text" in n or "both" in n for n in names("image"))
    assert not any("text_" in n or "image_" in n for n in names("single cross") - {
        "image_proj.weight", "image_proj.bias"})  # fmt: skip
    scale = vpd.TaggingAdapter(CONFIGS["cosine"]).state_dict()["head.scale"]
    assert float(scale) == pytest.approx(1 / 0.07)
    assert "head.scale" not in names("both")


def test_bfloat16_copies_and_pickles():
    adapter = vpd.TaggingAdapter(SMALL)
    tokens = (torch.randn(2, 3, 10), torch.randn(2, 9, 14))
    classes = torch.randn(4, 12)
    want = adapter(*tokens, classes=classes)
    for other in (copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        assert torch.equal(other(*tokens).context, want.context)
    got = copy.deepcopy(adapter).bfloat16()(*tokens, classes=classes)
    assert got.context.dtype == got.logits.dtype == torch.bfloat16
    assert error(got.context.float(), want.context.detach()) < 0.1


def test_classes_that_hardly_differ_are_told_apart_in_half_precision():
    adapter = randomised(replace(SMALL, text_dim=None, head_norm="h_centered"))
    image = torch.randn(2, 9, 14, dtype=torch.float64)
    classes = 30 * torch.randn(12) + 0.05 * torch.randn(4, 12)  # cosines of 0.9999
    want = adapter(None, image, classes=classes).logits
    got = adapter.bfloat16()(None, image.bfloat16(), classes=classes).logits
    assert error(got.double(), want.detach()) < 0.1
    assert torch.equal(got.argmax(1), want.argmax(1))


def test_learns_tags():
    """Queries that read tokens of tags soon name them: the loss falls far below its start."""
    adapter = vpd.TaggingAdapter(replace(SMALL, image_dim=None, head_norm="cosine"))
    embeddings, classes = F.one_hot(torch.arange(8), 10).float() * 3, torch.randn(8, 12)
    optimizer = torch.optim.Adam(adapter.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        target = torch.rand(32, 8) < 0.3
        mask, text = target, embeddings.expand(32, -1, -1)
        logits = adapter(text, text_mask=mask, classes=classes).logits
        loss = vpd.losses.asymmetric_loss(logits, target, gamma_pos=0, reduction="mean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_bad_input_is_explained():
    adapter = vpd.TaggingAdapter(SMALL)
    text, image = torch.zeros(2, 3, 10), torch.zeros(2, 9, 14)

    def refused(message, *args, net=adapter, **options):
        with pytest.raises(ValueError, match=message):
            net(*args, **options)

    refused(r"text \[B, N, 10\] is expected \(text_dim\), got none", None, image)
    refused(r"image \[B, N, 14\] is expected \(image_dim\), got none", text)
    refused(
        r"text must be .* \[B, N, 10\], got float \[2, 3, 14\]", text.new_zeros(2, 3, 14), image
    )
    refused(r"text must be floating point .*, got long int", text.long(), image)
    refused(r"image must be .* \[B, N, 14\], got float \[2, 9\]", text, image[:, :, 0])
    refused(r"image must have at least one token, got \[2, 0, 14\]", text, image[:, :0])
    refused("same batch, got 2 and 1", text, image[:1])
    refused(r"text_mask must be bool \[B, n\] as text, got bool \[2, 4\] for text \[2, 3, 10\]",
            text, image, text_mask=torch.ones(2, 4).bool())  # fmt: skip
    refused("text_mask must be bool .*, got float", text, image, text_mask=torch.ones(2, 3))
    refused(r"classes must be floating point \[K, 12\], got float \[4, 10\]",
            text, image, classes=torch.zeros(4, 10))  # fmt: skip
    only_image = vpd.TaggingAdapter(CONFIGS["image"])
    refused(r"the config has no text_dim, but text came: \[2, 3, 10\]", text, image, net=only_image)
    refused("text_mask must be", None, image, text_mask=torch.ones(2, 3).bool(), net=only_image)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_dim": None, "image_dim": None}, "text_dim or image_dim must be given"),
        ({"text_dim": 0}, "text_dim and image_dim must be positive, got 0 and 14"),
        ({"queries": 0}, "queries, blocks and hidden must be positive, got 0, 2 and 20"),
        ({"heads": 5}, "dim must divide into heads, got 12 and 5"),
        ({"single_cross": True}, r"text_dim must be dim \(12\), got text_dim 10"),
        (
            {"head_norm": "cos"},
            "head_norm must be 'h_unit', 'h_centered', 'raw' or 'cosine', got 'cos'",
        ),
    ],
)
def test_bad_config_is_explained(changes, message):
    with pytest.raises(ValueError, match=message):
        vpd.TaggingAdapter(replace(SMALL, **changes))
