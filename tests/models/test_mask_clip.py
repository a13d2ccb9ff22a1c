"""What CLIP sees in masks, and the fusion of two readings: against ODISE's own outputs, a plain
PyTorch twin with the whole attention matrix, and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close, load_golden

import vpd
from vpd.models.clip_image import CLIPImageConfig, clip_pixels
from vpd.models.mask_clip import (
    category_logits,
    geometric_mean,
    mask_embeddings,
    with_no_object,
)

OFFICIAL = CLIPImageConfig(
    hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
    image_size=48, patch_size=8, projection_dim=24,
)  # fmt: skip
SMALL = CLIPImageConfig(
    hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=3,
    image_size=12, patch_size=4, projection_dim=7,
)  # fmt: skip


def encoder() -> vpd.CLIPImageEncoder:
    net = vpd.CLIPImageEncoder(SMALL).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.4)
    return net


def inputs(count: int = 5, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(batch, 3, 10, 17, dtype=torch.float64) * 2 - 1
    masks = F.interpolate(torch.randn(batch, max(count, 1), 3, 3), (6, 7), mode="bicubic")
    return images, masks[:, :count].double()


def square(net: vpd.CLIPImageEncoder, images: torch.Tensor) -> torch.Tensor:
    side = net.config.image_size
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False)


def twin(net, images, masks, rule: str = "hide") -> torch.Tensor:
    """Copies of the class token before all others, in one sequence under one matrix."""
    config, p = net.config, dict(net.named_parameters())

    def linear(x, name):
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-5)

    tower, size = "vision_model", config.patch_size
    x = F.conv2d(
        clip_pixels(square(net, images)),
        p[f"{tower}.embeddings.patch_embedding.weight"],
        stride=size,
    )
    x = x.flatten(2).transpose(1, 2)
    first = p[f"{tower}.embeddings.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([first, x], 1) + p[f"{tower}.embeddings.position_embedding.weight"]
    x = norm(x, f"{tower}.pre_layrnorm")
    n = masks.shape[1]
    x = torch.cat([x[:, :1].expand(-1, n, -1), x], 1)
    hidden = torch.zeros(len(x), 1, x.shape[1], x.shape[1], dtype=torch.bool)
    hidden[..., :n] = True
    patches = F.max_pool2d(square(net, masks).sigmoid(), size).flatten(2)
    hidden[:, 0, :n, n + 1 :] = patches < 0.5
    added = torch.zeros(hidden.shape, dtype=x.dtype)
    added[hidden] = -math.inf if rule == "hide" else 1.0
    for i in range(config.num_hidden_layers):
        layer = f"{tower}.encoder.layers.{i}"
        y = norm(x, f"{layer}.layer_norm1")
        q, k, v = (
            linear(y, f"{layer}.self_attn.{name}_proj")
            .unflatten(-1, (config.num_attention_heads, -1))
            .transpose(1, 2)
            for name in "qkv"
        )
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + added).softmax(-1)
        x = x + linear((weights @ v).transpose(1, 2).flatten(2), f"{layer}.self_attn.out_proj")
        y = linear(norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
        x = x + linear(y * torch.sigmoid(1.702 * y), f"{layer}.mlp.fc2")
    x = norm(x[:, :n], f"{tower}.post_layernorm")
    return F.linear(x, p["visual_projection.weight"])


@pytest.fixture(scope="module")
def case():
    return load_golden("odise_inference")


@pytest.fixture(scope="module")
def clip(case):
    net = vpd.CLIPImageEncoder(OFFICIAL)
    vpd.load_weights(net, case.frozen_clip)
    return net


def test_mask_embeddings_match_odise(case, clip):
    """Made with a release of open_clip that adds one where ODISE hides, see `rule`."""
    images = case.inputs["image"][None] / 127.5 - 1
    masks = case.inputs["pred_masks"]
    with torch.no_grad():
        found = mask_embeddings(clip, images, masks, rule="add_one")
        assert_close(found, case.outputs["mask_clip_embed"])
        assert_close(twin(clip, images, masks, "add_one"), case.outputs["mask_clip_embed"])
        assert_close(mask_embeddings(clip, images, masks), twin(clip, images, masks))


def test_fusion_matches_odise(case):
    config, want = case.info["config"], case.outputs
    owners = [i for i, names in enumerate(config["labels"]) for _ in names]
    scale = case.frozen_clip["logit_scale"].exp().clamp(max=100)
    seen_by_clip = category_logits(
        want["mask_clip_embed"], case.inputs["clip_text_embed"], owners, scale
    )
    assert_close(seen_by_clip, want["mask_clip_logits"])
    known = {name for names in config["train_labels"] for name in names}
    seen = [not known.isdisjoint(names) for names in config["labels"]]
    assert seen == [True, False, True, False, False]
    logits = want["category_logits"]
    open_logits = geometric_mean(
        logits[..., :-1], seen_by_clip, seen, alpha=config["alpha"], beta=config["beta"]
    )
    assert_close(open_logits, want["ensembled_open_logits"])
    merged = with_no_object(open_logits, logits.softmax(-1)[..., -1])
    assert_close(merged[0], want["merged_log_prob"])


@pytest.mark.parametrize("rule", ["hide", "add_one"])
def test_mask_tokens_and_gradients_match_the_twin(rule):
    net, (images, masks) = encoder(), inputs()
    results, pixels = [], []
    for call in (
        lambda x: mask_embeddings(net, x, masks, rule=rule),
        lambda x: twin(net, x, masks, rule),
    ):
        net.zero_grad()
        own = images.clone().requires_grad_()
        out = call(own)
        out.sin().sum().backward()
        grads = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
        results.append((out.detach(), grads))
        pixels.append(own.grad)
    (got, grads), (want, reference) = results
    assert_close(got, want, 1e-9)
    assert_close(pixels[0], pixels[1], 1e-8)
    assert grads.keys() == reference.keys()
    for name, grad in grads.items():
        scale = reference[name].abs().max() + 1e-6  # keys' bias: no effect
        assert (grad - reference[name]).abs().max() <= 1e-8 * scale, name


def test_a_mask_of_all_is_the_picture_and_an_empty_one_is_defined():
    net, (images, masks) = encoder(), inputs(3)
    masks[:, 0], masks[:, 1] = 5, -5
    found = mask_embeddings(net, images, masks)
    whole = net(clip_pixels(square(net, images))).projected
    assert_close(found[:, 0], whole.detach(), 1e-9)
    assert_close(found, twin(net, images, masks).detach(), 1e-9)
    assert torch.isfinite(found).all()


def test_masks_know_nothing_of_each_other():
    net, (images, masks) = encoder(), inputs(6)
    found = mask_embeddings(net, images, masks)
    assert_close(mask_embeddings(net, images, masks[:, 2:4]), found[:, 2:4].detach(), 1e-9)
    assert_close(mask_embeddings(net, images[1:], masks[1:]), found[1:].detach(), 1e-9)
    for branch in ("mask_tokens", "pool"):
        none = mask_embeddings(net, images, masks[:, :0], branch=branch)
        assert none.shape == (2, 0, 7)


def test_pooling_is_a_mean_over_pixels():
    net, (images, masks) = encoder(), inputs(4)
    masks[:, 3] = -5
    found = mask_embeddings(net, images, masks, branch="pool")
    hidden = net(clip_pixels(square(net, images))).hidden[:, 1:]
    features = F.linear(hidden, net.visual_projection.weight).transpose(1, 2).unflatten(2, (3, 3))
    features = F.interpolate(features, (12, 12), mode="nearest")
    inside = square(net, masks) > 0
    for b in range(2):
        for i in range(4):
            own = features[b][:, inside[b, i]]
            want = own.mean(1) if own.shape[1] else torch.zeros(7, dtype=torch.float64)
            torch.testing.assert_close(found[b, i], want, rtol=1e-6, atol=1e-6)


def test_half_precision():
    net, (images, masks) = encoder().float(), inputs()
    images, masks = images.float(), masks.float()
    want = mask_embeddings(net, images, masks).detach()
    with torch.autocast("cpu", torch.bfloat16):
        found = mask_embeddings(net, images, masks)
    assert_close(found.float(), want, 0.3)


def test_geometric_mean_by_hand():
    logits, other = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(2, 4, 3).double()
    p, q = logits.softmax(-1), other.softmax(-1)
    found = geometric_mean(logits, other, [True, False, False], alpha=0.2, beta=0.9).exp()
    torch.testing.assert_close(found[..., 0], p[..., 0] ** 0.8 * q[..., 0] ** 0.2)
    torch.testing.assert_close(found[..., 1:], p[..., 1:] ** 0.1 * q[..., 1:] ** 0.9)
    alone = geometric_mean(logits, other, [True, False, True], alpha=0, beta=0)
    torch.testing.assert_close(alone.exp(), p)
    # Where plain probabilities would be 0, their logarithms are still ordered.
    far = geometric_mean(torch.tensor([0.0, -300, -400]), torch.zeros(3), [True] * 3)
    assert far[1] > far[2] > -math.inf


@pytest.mark.parametrize("count", [1, 2, 2000])
def test_no_object_shares_what_is_left(count):
    logits, nothing = 3 * torch.randn(5, count + 1), torch.rand(5)
    merged = with_no_object(logits[:, :-1], nothing).exp()
    assert merged.shape == (5, count + 1)
    torch.testing.assert_close(merged.sum(-1), torch.ones(5), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(merged[:, -1], nothing)
    # With "no object" as one more class of the same softmax, nothing changes.
    same = with_no_object(logits[:, :-1], logits.softmax(-1)[:, -1])
    torch.testing.assert_close(same.exp(), logits.softmax(-1), rtol=1e-4, atol=1e-6)


def test_fusion_is_differentiable():
    logits, other = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    nothing = torch.rand(2, dtype=torch.float64, requires_grad=True)

    def call(logits, other, nothing):
        return with_no_object(geometric_mean(logits, other, [True, False, True]), nothing)

    assert torch.autograd.gradcheck(call, (logits, other, nothing))
    half = geometric_mean(logits.bfloat16(), other.bfloat16(), [True] * 3)
    assert half.dtype == torch.float32


def test_bad_input_is_explained():
    net, (images, masks) = encoder(), inputs()
    without = vpd.CLIPImageEncoder(
        CLIPImageConfig(12, 20, 1, 3, image_size=12, patch_size=4, projection_dim=None)
    )
    for call, message in (
        (lambda: mask_embeddings(net, images[0], masks), r"float \[B, 3, H, W\]"),
        (lambda: mask_embeddings(net, images, masks[:1]), r"float \[2, N, h, w\], got .* \[1, 5"),
        (lambda: mask_embeddings(net, images, masks > 0), "masks must be logits, float"),
        (lambda: mask_embeddings(net, images, masks[..., :0]), "masks must be logits"),
        (lambda: mask_embeddings(net, images, masks, branch="mean"), "branch must be mask_tokens"),
        (lambda: mask_embeddings(net, images, masks, rule="show"), "rule must be hide or add_one"),
        (lambda: mask_embeddings(without, images, masks), "projection into CLIP's joint space"),
        (lambda: geometric_mean(masks, masks[:1], [True] * 7), "both readings must be"),
        (lambda: geometric_mean(masks, masks, [True]), "each of 7 categories was seen, got 1"),
        (lambda: geometric_mean(masks, masks, [True] * 7, alpha=1.5), "within 0 ... 1, got 1.5"),
        (lambda: geometric_mean(masks[..., :0], masks[..., :0], []), "one category or more"),
        (lambda: with_no_object(masks, masks), r"nothing must be floating point \[2, 5, 6\]"),
        (lambda: category_logits(images[0, 0], masks[0, 0], [0] * 6, 1.0), r"\[S, 17\]"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
