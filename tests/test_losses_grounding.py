"""The grounding loss against the original's recorded values, a plain twin, and one process with the
rows of two."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from helpers import load_golden
from processes import together
from torch import Tensor
from torch.nn import functional as F

from vpd import losses

FORMS = ("code", "equations")
SHARES = ((1, 3), (0, 4), (2, 2))  # rows of each process


def problem(batch=4, masks=5, words=3, dim=6, outputs=2, dtype=torch.double):
    embeddings = [2 * torch.randn(batch, masks, dim, dtype=dtype) for _ in range(outputs)]
    valid = torch.rand(batch, words) < 0.6
    valid[:2] = torch.tensor([[False], [True]])
    scale = torch.tensor(9.0, dtype=dtype)
    return embeddings, torch.randn(batch, words, dim, dtype=dtype), valid, scale


def similar(masks: Tensor, words: Tensor, scale: Tensor, form: str) -> Tensor:
    """How similar an image, by its masks [N, D], and a caption, by its words [K, D], are."""
    total = torch.zeros((), dtype=masks.dtype)
    cosines = [[F.cosine_similarity(z, w, dim=0) for w in words] for z in masks]
    for i in range(len(masks)):
        for k in range(len(words)):
            others = (
                [row[k] for row in cosines] if form == "code" else [cosines[i][j] for j in range(3)]
            )
            share = (scale * cosines[i][k]).exp() / sum((scale * c).exp() for c in others)
            total = total + share * scale * cosines[i][k]
    return total / len(words)


def twin(embeddings, words, valid, scale, form) -> Tensor:
    found = []
    batch = len(words)
    real = [bool(own.any()) for own in valid]
    counted = real if any(real) else [True] * batch
    for z in embeddings:
        g = torch.stack(
            [torch.stack([similar(z[m], words[n], scale, form) for n in range(batch)])
             for m in range(batch)]
        )  # fmt: skip
        captions = [-g[m].log_softmax(0)[m] for m in range(batch) if counted[m]]
        images = [-g[:, m].log_softmax(0)[m] for m in range(batch) if real[m]]
        a, b = sum(captions) / sum(counted), sum(images) / batch
        found.append((a + b) / 2 if form == "code" else a + b)
    return torch.stack(found)


def test_matches_original():
    case = load_golden("odise_grounding_loss")
    leaves = [case.inputs[n].requires_grad_() for n in ("mask_embed", "word_embed", "logit_scale")]
    masks, words, scale = leaves
    valid = case.inputs["word_valid_mask"].bool()
    weight = case.info["config"]["loss_weight"]
    for name, marks in {
        "loss": valid,
        "loss_all_valid": torch.ones_like(valid),
        "loss_none_valid": torch.zeros_like(valid),
    }.items():
        found = weight * losses.mask_grounding_loss([masks], words, marks, scale)
        torch.testing.assert_close(found[0], case.outputs[name], rtol=1e-4, atol=0)
        if name == "loss":
            found.sum().backward()
    for leaf, name in zip(leaves, ("mask_embed", "word_embed", "logit_scale"), strict=True):
        want = case.grads[name]
        atol = 1e-4 * float(want.std()) if want.numel() > 1 else 0.0
        torch.testing.assert_close(leaf.grad, want, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("none_valid", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_equals_twin(form, none_valid):
    embeddings, words, valid, scale = problem()
    valid &= not none_valid
    leaves = [*embeddings, words, scale]
    for leaf in leaves:
        leaf.requires_grad_()
    want = twin(embeddings, words, valid, scale, form)
    got = losses.mask_grounding_loss(embeddings, words, valid, scale, form=form)
    torch.testing.assert_close(got, want)
    up = torch.tensor([1.0, -2.0]).double()
    grads = [torch.autograd.grad((one * up).sum(), leaves) for one in (got, want)]
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs)
        assert torch.isfinite(mine).all()


@pytest.mark.parametrize("form", FORMS)
def test_extremes(form):
    """Each image has a mask for the one word of its caption; or none knows anything."""
    own = torch.eye(6)[:, None]
    scale, valid = torch.tensor(60.0), torch.ones(6, 1, dtype=torch.bool)
    right = losses.mask_grounding_loss([own], own, valid, scale, form=form)
    assert float(right) < 1e-5
    wrong = losses.mask_grounding_loss([own], own.roll(1, 0), valid, scale, form=form)
    assert float(wrong) > 50
    same = torch.ones(6, 2, 6)
    blind = losses.mask_grounding_loss([same], own, valid, scale, form=form)
    assert float(blind) == pytest.approx((1 if form == "code" else 2) * torch.log(torch.tensor(6)))
    alone = losses.mask_grounding_loss([same[:1]], own[:1], valid[:1], scale, form=form)
    assert float(alone) == 0


def test_precision():
    embeddings, words, valid, scale = problem(dtype=torch.float32)
    want = losses.mask_grounding_loss(embeddings, words, valid, scale)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(losses.mask_grounding_loss(embeddings, words, valid, scale), want)
    half = [z.bfloat16() for z in embeddings]
    got = losses.mask_grounding_loss(half, words.bfloat16(), valid, scale)
    wide = [z.float() for z in half]
    torch.testing.assert_close(
        got, losses.mask_grounding_loss(wide, words.bfloat16().float(), valid, scale)
    )


def step(rows: slice, form: str, group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
    """Loss and gradients of some rows of a batch whose embeddings come from shared weights."""
    torch.manual_seed(5)
    embeddings, words, valid, scale = problem()
    weights = {"map": torch.randn(6, 6).double(), "text": torch.randn(6, 6).double(), "s": scale}
    for weight in weights.values():
        weight.requires_grad_()
    found = losses.mask_grounding_loss(
        [z[rows] @ weights["map"] for z in embeddings],
        words[rows] @ weights["text"],
        valid[rows],
        weights["s"],
        form=form,
        group=group,
    )
    found.sum().backward()
    return {"loss": found.detach()} | {name: w.grad for name, w in weights.items()}


def own_shares() -> dict[str, dict[str, Tensor]]:
    found = {}
    for share in SHARES:
        start = sum(share[: dist.get_rank()])
        rows = slice(start, start + share[dist.get_rank()])
        for form in FORMS:
            one = found[f"{share} {form}"] = step(rows, form, dist.group.WORLD)
            for name, gradient in one.items():
                if name != "loss":  # what data parallelism does
                    dist.all_reduce(gradient)
                    gradient /= dist.get_world_size()
    return found


def test_processes_share_a_batch(tmp_path):
    for found in together(own_shares, tmp_path / "grounding"):
        for key, got in found.items():
            want = step(slice(None), key.split()[-1])
            for name, value in want.items():
                torch.testing.assert_close(got[name], value, msg=f"{key}: {name}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": []}, "at least one output"),
        ({"embeddings": [torch.ones(4, 5, 7)]}, r"embeddings must be .* \[4, N, 6\]"),
        ({"embeddings": [torch.ones(3, 5, 6)]}, r"embeddings must be .* \[4, N, 6\]"),
        ({"embeddings": [torch.ones(4, 5, 6), torch.ones(4, 2, 6)]}, "of one shape"),
        ({"words": torch.ones(4, 0, 6)}, r"words must be .* \[B, K, D\], got float \[4, 0, 6\]"),
        ({"valid": torch.ones(4, 3)}, r"valid must be bool \[4, 3\], got float"),
        ({"valid": torch.ones(4, 2, dtype=torch.bool)}, r"valid must be bool \[4, 3\]"),
        ({"scale": torch.ones(1)}, "scale must be a floating-point scalar"),
        ({"form": "paper"}, "form must be 'code' or 'equations', got 'paper'"),
    ],
)
def test_bad_input_is_explained(change, message):
    names = ("embeddings", "words", "valid", "scale")
    given = dict(zip(names, problem(), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        losses.mask_grounding_loss(**given)


def test_no_image_is_explained():
    embeddings, words, valid, scale = problem()
    with pytest.raises(ValueError, match="at least one image"):
        losses.mask_grounding_loss([z[:0] for z in embeddings], words[:0], valid[:0], scale)
