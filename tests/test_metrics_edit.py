"""Metrics of edits against transformers' CLIP and errors summed by hand."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

import vpd
from vpd.metrics import EditRegionMetrics, EditScores, EditSimilarity, edit_scores
from vpd.models.clip import CLIP, CLIPConfig

SMALL = CLIPConfig(
    vpd.CLIPTextConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        projection_dim=12,
    ),
    vpd.CLIPImageConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        image_size=24, patch_size=8, projection_dim=12,
    ),
)  # fmt: skip
BEFORE, AFTER = ["a red cube", "a cat", "the same"], ["a blue cube", "a dog", "the same"]


@pytest.fixture(scope="module")
def clip():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = CLIP(SMALL)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.2)
    return model.eval()


def theirs(clip, pictures, texts):
    """Unit embeddings by transformers; pictures in [0, 1]."""
    import transformers

    text, image = clip.config.text, clip.config.image
    shared = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = transformers.CLIPConfig(
        text_config={k: getattr(text, k) for k in shared} | {"eos_token_id": 49407},
        vision_config={k: getattr(image, k) for k in (*shared, "image_size", "patch_size")},
        projection_dim=12,
    )
    model = transformers.CLIPModel(config).eval()
    state = {**clip.text.state_dict(), **clip.image.state_dict()}
    model.load_state_dict(state, strict=False)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    small = interpolate(pictures, (24, 24), mode="bicubic", align_corners=False)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.no_grad():
        ids = vpd.tokenize(texts).ids
        out = model(input_ids=ids, pixel_values=(small - mean) / std)
    return out.image_embeds.double().numpy(), out.text_embeds.double().numpy()


def cosine(a, b):
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-16)


def test_scores_match_transformers(clip):
    before, after = torch.rand(2, 3, 3, 40, 56)
    got = edit_scores(clip, before * 2 - 1, after * 2 - 1, BEFORE, AFTER)
    images, texts = theirs(clip, torch.cat([before, after]), BEFORE + AFTER)
    (i0, i1), (t0, t1) = np.split(images, 2), np.split(texts, 2)
    want = (cosine(i0, t0), cosine(i1, t1), cosine(i1 - i0, t1 - t0), cosine(i0, i1))
    for mine, other in zip(got, want, strict=True):
        np.testing.assert_allclose(mine.numpy(), other, atol=2e-5)
    assert got.sim_direction[2] == 0  # no direction between equal captions
    still = edit_scores(clip, before, before, BEFORE, AFTER)
    assert still.sim_direction.abs().max() == 0
    assert still.sim_image.numpy() == pytest.approx(1, abs=1e-6)


def test_scores_refuse_what_does_not_fit(clip):
    picture = torch.zeros(2, 3, 24, 24)
    with pytest.raises(ValueError, match="of one size, got"):
        edit_scores(clip, picture, picture[:1], ["a"] * 2, ["b"] * 2)
    for captions in (["a"], "ab"):
        with pytest.raises(ValueError, match="expected 2 captions"):
            edit_scores(clip, picture, picture, captions, ["b"] * 2)


def test_similarity_is_a_mean_that_merges():
    rows = torch.rand(4, 7) * 2 - 1
    parts = [EditSimilarity("x"), EditSimilarity("x")]
    parts[0].update(EditScores(*rows[:, :3]))
    parts[1].update(EditScores(*rows[:, 3:]))
    parts[1].merge(pickle.loads(pickle.dumps(parts[0])))
    want = dict(zip(EditScores._fields, rows.double().mean(1).tolist(), strict=True))
    assert parts[1].compute() == pytest.approx({**want, "n": 7})
    assert EditSimilarity().compute() == dict.fromkeys((*EditScores._fields, "n"), 0)
    with pytest.raises(ValueError, match="same protocol"):
        parts[0].merge(EditSimilarity("y"))
    before = copy.deepcopy(parts[0].compute())
    for bad in (rows[:, :2].index_fill(1, torch.tensor([1]), math.nan), rows[:, :2, None]):
        with pytest.raises(ValueError, match="EditSimilarity: expected"):
            parts[0].update(EditScores(*bad))
    assert parts[0].compute() == before


def reference(prediction, before, after, mask, copied):
    """Pixel by pixel; each edit weighs the same."""
    inside, unchanged, outside, rebuilt = [], [], [], []
    for p, b, a, m, r in zip(prediction, before, after, mask, copied, strict=True):
        cells = [(y, x) for y in range(m.shape[0]) for x in range(m.shape[1])]
        hit, rest = [c for c in cells if m[c]], [c for c in cells if not m[c]]
        for target, picture, where in (
            (inside, p, hit), (unchanged, b, hit), (outside, p, rest), (rebuilt, r, rest)
        ):  # fmt: skip
            errors = [abs(float(picture[k][c] - a[k][c])) for c in where for k in range(3)]
            target.append(sum(errors) / len(errors))
    mean = [sum(v) / len(v) for v in (inside, unchanged, outside, rebuilt)]
    return mean[0] / mean[1], mean[2] / mean[3], mean


def test_region_errors_against_loops():
    prediction, before, after, copied = torch.rand(4, 5, 3, 4, 6)
    mask = torch.rand(5, 4, 6) < 0.3
    mask[:, 0, 0], mask[:, 0, 1] = True, False
    parts = [EditRegionMetrics(), EditRegionMetrics()]
    for part, rows in zip(parts, (slice(0, 2), slice(2, None)), strict=True):
        part.update(prediction[rows], before[rows], after[rows], mask[rows], copied[rows])
    parts[0].merge(pickle.loads(pickle.dumps(parts[1])))
    inside, outside, errors = reference(prediction, before, after, mask, copied)
    got = parts[0].compute()
    assert got["edited_region_error_ratio"] == pytest.approx(inside, rel=1e-6)
    assert got["unedited_region_error_ratio"] == pytest.approx(outside, rel=1e-6)
    names = ("edited_region", "unchanged_input", "unedited_region", "reconstruction")
    assert [got[f"{name}_error"] for name in names] == pytest.approx(errors, rel=1e-6)
    assert (got["n"], got["skipped"]) == (5, 0)


def test_region_errors_of_known_editors():
    before, after = torch.rand(2, 3, 3, 4, 4)
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[:2, 1:3] = True  # the third has no region
    copied = after + 0.01
    metrics = EditRegionMetrics()
    metrics.update(before, before, after, mask, copied)
    assert metrics.compute()["edited_region_error_ratio"] == 1
    assert (metrics.n, metrics.skipped) == (2, 1)
    metrics = EditRegionMetrics()
    metrics.update(copied, before, after, mask, copied)
    assert metrics.compute()["unedited_region_error_ratio"] == 1
    metrics = EditRegionMetrics()
    metrics.update(before, before, after, mask, after)
    assert metrics.compute()["unedited_region_error_ratio"] == math.inf
    empty = EditRegionMetrics().compute()
    assert set(empty.values()) == {0}


def test_region_errors_refuse_what_does_not_fit():
    metrics = EditRegionMetrics()
    one = torch.rand(1, 3, 4, 4)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="of one shape, got"):
        metrics.update(one, one, one[..., :2], mask, one)
    with pytest.raises(ValueError, match=r"mask must be bool \[1, 4, 4\]"):
        metrics.update(one, one, one, mask.float(), one)
    with pytest.raises(ValueError, match="finite"):
        metrics.update(one / 0, one, one, mask, one)
    assert metrics.n == 0
