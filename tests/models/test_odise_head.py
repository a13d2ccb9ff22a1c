"""ODISE's head against the original's recorded values and a plain twin."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import pytest
import torch
from helpers import assert_close, error, load_golden, strip
from torch import Tensor
from torch.nn import functional as F

import vpd
from vpd.models.mask2former import PixelFeatures
from vpd.models.odise_head import mask_pooling

SMALL = vpd.OdiseHeadConfig(
    in_channels=(3, 5, 4),
    conv_dim=8,
    mask_dim=6,
    hidden_dim=12,
    num_queries=5,
    nheads=2,
    dim_feedforward=10,
    dec_layers=2,
    transformer_nheads=2,
    transformer_dim_feedforward=10,
    transformer_enc_layers=1,
    transformer_levels=2,
    num_feature_levels=2,
    n_points=2,
    norm_groups=2,
    projection_dim=7,
)
NAMES = ["pool_proj.0", "pool_proj.1", "mask_embed.0", *(f"mask_embed.1.layers.{i}" for i in "012")]


def features(batch: int = 2, dtype: torch.dtype = torch.double) -> list[Tensor]:
    sizes = [(9, 12), (5, 6), (3, 3)]
    return [
        torch.randn(batch, c, *s, dtype=dtype)
        for c, s in zip(SMALL.in_channels, sizes, strict=True)
    ]


def pooled(x: Tensor, masks: Tensor, soft: bool = False) -> Tensor:
    """Mask by mask."""
    rows = []
    for image, own in zip(x, masks, strict=True):
        w = own.sigmoid() if soft else (own.sigmoid() > 0.5).to(x.dtype)
        rows.append(torch.stack([(image * m).sum((1, 2)) / (m.sum() + 1e-8) for m in w.unbind()]))
    return torch.stack(rows)


def twin(weights: dict[str, Tensor], pooled: Tensor, queries: Tensor) -> Tensor:
    """z, from the weights below post_mask_embed."""

    def layer(name: str, x: Tensor) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return (
            F.linear(x, weight, bias)
            if weight.dim() == 2
            else F.layer_norm(x, x.shape[-1:], weight, bias)
        )

    x = layer("mask_embed.0", layer("pool_proj.1", layer("pool_proj.0", pooled)) + queries)
    for i in range(3):
        x = layer(f"mask_embed.1.layers.{i}", x if i == 0 else x.relu())
    return x


def nearest(z: Tensor, texts: Tensor, categories: list[int], scale: float) -> Tensor:
    """Scores of categories, one pair at a time."""
    found = []
    for category in range(max(categories) + 1):
        own = [F.cosine_similarity(z, t, dim=-1)
               for t, c in zip(texts, categories, strict=True) if c == category]  # fmt: skip
        found.append(scale * torch.stack(own, -1).max(-1).values)
    return torch.stack(found, -1)


def randomised(head):
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if "logit_scale" not in name:
                parameter.normal_(0, 0.4)
    return head.double()


def test_recorded_outputs():
    case = load_golden("odise_head")
    config = case.info["config"]
    head = vpd.OdiseHead(
        vpd.OdiseHeadConfig(
            in_channels=(4, 4, 4, 4),
            conv_dim=config["conv_dim"],
            mask_dim=config["mask_dim"],
            hidden_dim=config["hidden"],
            num_queries=config["Q"],
            nheads=config["heads"],
            dim_feedforward=config["ff"],
            dec_layers=config["dec"],
            transformer_enc_layers=1,
            norm_groups=2,
            projection_dim=config["projection_dim"],
        )
    )
    report = vpd.load_weights(head, case.weights, strict=False)
    assert all(name.startswith("pixel_decoder.") for name in report.missing)
    assert report.unexpected == []
    levels = [case.inputs[f"multi_scale{i}"] for i in range(3)]
    pixels = PixelFeatures(case.inputs["mask_features"], levels)
    with torch.no_grad():
        out = head.decode(pixels)
        last = head.decode(pixels, last_only=True)
    prefixes = [*(f"aux{i}." for i in range(config["dec"])), ""]
    assert len(out.embeddings) == len(prefixes)
    for z, masks, logits, prefix in zip(
        out.embeddings, out.masks, out.logits, prefixes, strict=True
    ):
        assert_close(z, case.outputs[f"{prefix}mask_embed"], 1e-3)
        assert_close(masks, case.outputs[f"{prefix}pred_masks"], 1e-3)
        assert torch.equal(logits, case.outputs["pseudo_logits"])
    torch.testing.assert_close(out.scale, case.outputs["logit_scale"])
    assert len(last.embeddings) == 1
    assert torch.equal(last.embeddings[0], out.embeddings[-1])

    groups = config["labels"]
    categories = [i for i, names in enumerate(groups) for _ in names]
    texts, z = case.inputs["text_embed"], out.embeddings[-1:]
    plain = {"text_dim": texts.shape[1], "projection_dim": None}
    open_ = vpd.OdiseTextHead(vpd.OdiseTextConfig(**plain, null=False))
    assert open_.state_dict() == {}
    assert_close(open_(z, texts, categories, out.scale)[0], case.outputs["open_logits"], 1e-3)
    named = vpd.OdiseTextHead(vpd.OdiseTextConfig(**plain), empty=case.inputs["null_embed"])
    got = named(z, texts, categories, out.scale)[0].detach()
    assert_close(got, case.outputs["category_logits"], 1e-3)


def test_recorded_pooling():
    case = load_golden("odise_head")
    x, masks = case.inputs["pool_x"], case.inputs["pool_mask"]
    assert_close(mask_pooling(x, masks), case.outputs["pool_hard"], 1e-5)
    assert_close(mask_pooling(x, masks, soft=True), case.outputs["pool_soft"], 1e-5)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_and_its_gradient(layout, soft):
    x = torch.randn(2, 3, 4, 5, dtype=torch.double).contiguous(memory_format=layout)
    masks = 3 * torch.randn(2, 6, 4, 5, dtype=torch.double)
    masks[0, 1], masks[1, 2] = -5, 0  # nowhere inside
    x.requires_grad_()
    masks.requires_grad_()
    got, want = mask_pooling(x, masks, soft=soft), pooled(x, masks.detach(), soft)
    torch.testing.assert_close(got, want)
    up = torch.randn_like(want)
    grads = [torch.autograd.grad((out * up).sum(), x)[0] for out in (got, want)]
    torch.testing.assert_close(*grads)
    assert masks.grad is None
    if not soft:
        assert not got[0, 1].any()
        assert not got[1, 2].any()


def test_pooling_in_half_precision():
    """A hundred thousand pixels, which half precision could not count."""
    x = 1 + torch.rand(1, 2, 256, 400)
    masks = torch.ones(1, 1, 256, 400)
    got = mask_pooling(x.bfloat16(), masks.bfloat16())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got[0, 0], x.bfloat16().float().mean((0, 2, 3)), rtol=1e-4, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(mask_pooling(x, masks)[0, 0], x.mean((0, 2, 3)))


def test_pooling_keeps_nothing_but_the_logits():
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    masks, kept = torch.randn(2, 4, 8, 8), []

    def keep(tensor):
        kept.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        mask_pooling(x, masks)
    assert kept == [masks.data_ptr()]


@pytest.mark.parametrize("num_classes", [None, 1])
def test_embeddings_match_twin(num_classes):
    head = randomised(vpd.OdiseHead(replace(SMALL, num_classes=num_classes)))
    plain = vpd.Mask2FormerHead(
        vpd.Mask2FormerConfig(
            **{name: getattr(head.config, name) for name in vars(head.config)
               if name != "projection_dim"}
        )
    ).double()  # fmt: skip
    report = plain.load_state_dict(head.state_dict(), strict=False)
    assert not report.missing_keys
    maps = features()
    out, base = head(maps), plain(maps)
    own = strip(head.state_dict(), "predictor.post_mask_embed.")
    assert set(own) == {*(f"{n}.{w}" for n in NAMES for w in ("weight", "bias")), "logit_scale"}
    assert len(out.embeddings) == 3
    for i, z in enumerate(out.embeddings):
        assert_close(out.masks[i], base.masks[i].detach(), 1e-9)
        assert_close(out.queries[i], base.queries[i].detach(), 1e-9)
        want = twin(own, pooled(base.mask_features, base.masks[i]), base.queries[i]).detach()
        assert_close(z, want, 1e-9)
        if num_classes is None:
            assert torch.equal(out.logits[i], torch.tensor([1.0, 0]).double().expand(2, 5, 2))
        else:
            assert_close(out.logits[i], base.logits[i].detach(), 1e-9)


def test_gradients_of_embeddings():
    """They reach the mask features and the queries, but not the masks."""
    head = randomised(vpd.OdiseHead(SMALL))
    leaves = dict(head.named_parameters())
    own = {n[len("predictor.post_mask_embed.") :]: p for n, p in leaves.items() if "post_" in n}
    maps = features()
    out = head(maps)
    found = torch.autograd.grad(
        sum(z.sin().sum() for z in out.embeddings), list(leaves.values()), allow_unused=True
    )
    base = head(maps)
    want = torch.autograd.grad(
        sum(
            twin(own, pooled(base.mask_features, m.detach()), q).sin().sum()
            for m, q in zip(base.masks, base.queries, strict=True)
        ),
        list(leaves.values()),
        allow_unused=True,
    )
    for name, mine, theirs in zip(leaves, found, want, strict=True):
        untouched = name.startswith("predictor.mask_embed.") or name.endswith("logit_scale")
        assert (mine is None) == untouched, name
        assert (theirs is None) == untouched, name
        if not untouched:
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9, msg=name)


def test_scale():
    head = vpd.OdiseHead(SMALL)
    maps = features(dtype=torch.float32)
    assert float(head(maps).scale.detach()) == pytest.approx(1 / 0.07)
    parameter = head.get_parameter("predictor.post_mask_embed.logit_scale")
    with torch.no_grad():
        parameter.fill_(9)
    scale = head(maps).scale
    assert float(scale.detach()) == 100
    scale.backward()
    assert float(parameter.grad) == 0


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("projection_dim", [None, 7])
def test_category_scores(projection_dim, null):
    config = vpd.OdiseTextConfig(9 if projection_dim else 7, projection_dim, null)
    text = randomised(vpd.OdiseTextHead(config))
    embeddings = [torch.randn(2, 5, 7, dtype=torch.double, requires_grad=True) for _ in range(2)]
    texts = torch.randn(6, config.text_dim, dtype=torch.double)
    scale = torch.tensor(20.0).double()
    categories = [2, 0, 1, 0, 2, 2]
    names, owners = texts, categories
    if null:
        names, owners = torch.cat([texts, text.null_embed]), [*categories, 3]
    if projection_dim:
        names = F.linear(names, text.text_proj.weight, text.text_proj.bias)
        torch.testing.assert_close(text.project(texts), names[:6])
    got = text(embeddings, texts, categories, scale)
    for z, scores in zip(embeddings, got, strict=True):
        want = nearest(z, names, owners, 20.0)
        torch.testing.assert_close(scores, want)
        up = torch.randn_like(want)
        leaves = [z, *text.parameters()]
        grads = [torch.autograd.grad((s * up).sum(), leaves, retain_graph=True)
                 for s in (scores, want)]  # fmt: skip
        for mine, theirs in zip(*grads, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_order_and_repetition_of_names_do_not_matter():
    text = vpd.OdiseTextHead(vpd.OdiseTextConfig(9, 7))
    z, texts, scale = [torch.randn(1, 4, 7)], torch.randn(5, 9), torch.tensor(3.0)
    want = text(z, texts, [0, 0, 1, 2, 2], scale)[0]
    order = [4, 2, 0, 3, 1, 2, 4]
    got = text(z, texts[order], [[0, 0, 1, 2, 2][i] for i in order], scale)[0]
    torch.testing.assert_close(got, want)
    one = text(z, texts[:1], [0], scale)[0]
    assert one.shape == (1, 4, 2)
    torch.testing.assert_close(one[..., 1], want[..., 3])


def test_scores_keep_their_precision():
    text = vpd.OdiseTextHead(vpd.OdiseTextConfig(16, None, null=False))
    z, texts = [torch.randn(1, 50, 16)], torch.randn(2000, 16)
    scale, own = torch.tensor(100.0), list(range(2000))
    want = text(z, texts, own, scale)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(text(z, texts, own, scale)[0], want)


def test_null_starts_where_the_empty_text_is():
    empty = torch.randn(9)
    text = vpd.OdiseTextHead(vpd.OdiseTextConfig(9, 7), empty=empty)
    assert torch.equal(text.null_embed[0], empty)
    assert set(text.state_dict()) == {"text_proj.weight", "text_proj.bias", "null_embed"}
    without = vpd.OdiseTextHead(vpd.OdiseTextConfig(9, 7, null=False))
    assert set(without.state_dict()) == {"text_proj.weight", "text_proj.bias"}
    paper = {k: tuple(v.shape) for k, v in vpd.OdiseTextHead().state_dict().items()}
    assert paper == {
        "text_proj.weight": (256, 768), "text_proj.bias": (256,), "null_embed": (1, 768),
    }  # fmt: skip


def targets():
    labels = [torch.tensor([0, 2]), torch.tensor([], dtype=torch.long)]
    return labels, [torch.rand(len(own), 18, 24) > 0.5 for own in labels]


def test_names_of_labels_train_every_weight():
    head, text = vpd.OdiseHead(SMALL), vpd.OdiseTextHead(vpd.OdiseTextConfig(9, 7))
    out = head(features(dtype=torch.float32))
    logits = text(out.embeddings, torch.randn(4, 9), [0, 1, 2, 2], out.scale)
    assert logits[0].shape == (2, 5, 4)
    loss = vpd.losses.mask2former_loss(logits, out.masks, *targets(), points=50)
    loss.total.backward()
    for name, parameter in [*head.named_parameters(), *text.named_parameters()]:
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any() or name.startswith("pixel_decoder."), name


def test_captions_train_every_weight():
    head = vpd.OdiseHead(replace(SMALL, num_classes=1))
    text = vpd.OdiseTextHead(vpd.OdiseTextConfig(9, 7, null=False))
    out = head(features(dtype=torch.float32))
    labels, masks = targets()
    binary = [torch.zeros_like(own) for own in labels]
    loss = vpd.losses.mask2former_loss(out.logits, out.masks, binary, masks, points=50).total
    words, valid = text.project(torch.randn(2, 3, 9)), torch.ones(2, 3, dtype=torch.bool)
    loss = loss + vpd.losses.mask_grounding_loss(out.embeddings, words, valid, out.scale).sum()
    loss.backward()
    for name, parameter in [*head.named_parameters(), *text.named_parameters()]:
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any() or name.startswith("pixel_decoder."), name


def test_bfloat16():
    head, maps = vpd.OdiseHead(SMALL), features(dtype=torch.float32)
    want = head(maps)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = head(maps)
    weights = head.bfloat16()(maps)
    assert weights.embeddings[0].dtype == torch.bfloat16
    for got in (autocast, weights):
        assert got.scale.dtype == torch.float32
        assert all(torch.isfinite(z).all() for z in got.embeddings)
    assert math.isclose(float(autocast.scale.detach()), float(want.scale.detach()))
    # A mask of another sign at some pixel changes what is pooled, but not by much.
    assert error(autocast.embeddings[0].float(), want.embeddings[0].detach()) < 0.5


def test_start_and_copies():
    heads = [
        vpd.OdiseHead(SMALL, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    names = set(vpd.Mask2FormerHead(
        vpd.Mask2FormerConfig(SMALL.in_channels, None, dec_layers=2, transformer_enc_layers=1,
                              transformer_levels=2, num_feature_levels=2, conv_dim=8,
                              hidden_dim=12, nheads=2, transformer_nheads=2, norm_groups=2)
    ).state_dict())  # fmt: skip
    assert {n for n in heads[0].state_dict() if "post_mask_embed" not in n} == names
    weight = "predictor.post_mask_embed.mask_embed.1.layers.2.weight"
    values = [head.state_dict()[weight] for head in heads]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
    assert (
        heads[0]
        .pixel_decoder.transformer.encoder.layers.get_submodule("0")
        .self_attn.sampling_offsets.bias.any()
    )  # spread as the head of Mask2Former does
    maps = features(dtype=torch.float32)
    copy = pickle.loads(pickle.dumps(heads[0]))
    assert torch.equal(copy(maps).embeddings[-1], heads[0](maps).embeddings[-1])
    with torch.device("meta"):
        assert vpd.OdiseHead(SMALL).predictor.query_feat.weight.is_meta


def scored(categories=(0, 1), texts=(2, 9), z=(1, 4, 7), scale=(), **config):
    head = vpd.OdiseTextHead(vpd.OdiseTextConfig(**{"text_dim": 9, "projection_dim": 7} | config))
    return head([torch.ones(z)], torch.ones(texts), categories, torch.ones(scale))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vpd.OdiseHead(replace(SMALL, projection_dim=0)), "projection_dim must be pos"),
        (lambda: vpd.OdiseHead(replace(SMALL, nheads=5)), "of nheads, got 12 and 5"),
        (lambda: vpd.OdiseHead(SMALL)(features()[:2]), "mask2former: expected 3 .* got 2"),
        (lambda: scored(text_dim=0), "must be positive, got 0 and 7"),
        (lambda: scored(texts=(0, 9), categories=()), r"texts must be .* \[S, 9\], at least one"),
        (lambda: scored(texts=(2, 8)), r"texts must be .* \[S, 9\]"),
        (lambda: scored(categories=(0,)), "each of 2 names, got 1"),
        (lambda: scored(categories=(0, 0, 0)), "each of 2 names, got 3"),
        (lambda: scored(categories=(0, 2)), "2 names and category 2"),
        (lambda: scored(categories=(0, 0, 2, 2), texts=(4, 9)), "none of category 1"),
        (lambda: scored(categories=(0, -1)), "2 names and category -1"),
        (lambda: scored(z=(1, 4, 6)), r"names must be floating point \[S, 6\]"),
        (lambda: scored(scale=(1,)), "scale must be a floating-point scalar"),
        (lambda: vpd.OdiseTextHead().project(torch.ones(3, 8)), r"texts must be .* \[..., 768\]"),
        (lambda: vpd.OdiseTextHead(empty=torch.ones(8)), r"\[768\] or \[1, 768\], got \[8\]"),
        (lambda: mask_pooling(torch.ones(1, 2, 3), torch.ones(1, 2, 3)), "x must be floating"),
        (
            lambda: mask_pooling(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 4, 4)),
            r"masks must be floating point \[1, Q, 3, 4\]",
        ),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
