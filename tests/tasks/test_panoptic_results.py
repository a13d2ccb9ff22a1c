"""Readings of classified masks against the original's record and a plain PyTorch twin."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close, load_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from vpd._load import core
from vpd.data import PanopticLabel
from vpd.data.panoptic_files import read_ids
from vpd.metrics import PanopticMetrics
from vpd.tasks.panoptic_results import PanopticResult


def golden_case():
    case = load_golden("odise_inference")
    config = case.info["config"]
    return SimpleNamespace(
        logits=case.outputs["merged_log_prob"],
        masks=case.inputs["pred_masks"][0],
        # 56 x 84 pixels, padded to a multiple of 64; the result is asked for at 70 x 100.
        view=((64, 128), (56, 84), (config["output_height"], config["output_width"])),
        things=[i in config["thing_classes"] for i in range(len(config["labels"]))],
        config=config,
        want=case.outputs,
        segments=case.info["values"]["segments_info"],
    )


def test_panoptic_matches_original():
    case = golden_case()
    ids, segments = core.panoptic_inference(
        case.logits, case.masks, *case.view, case.things, 0, 0.8
    )
    assert (ids == case.want["panoptic"].int()).float().mean() >= 0.999
    got = [{"id": i, "isthing": case.things[c], "category_id": c} for i, c, _ in segments]
    assert got == case.segments


def test_semantic_matches_original():
    case = golden_case()
    height = case.view[2][0]
    scores = core.semantic_scores(case.logits, case.masks, *case.view, 0, height)
    assert_close(scores.permute(2, 0, 1)[:, ::2, ::2], case.want["sem_seg"])
    part = core.semantic_scores(case.logits, case.masks, *case.view, 11, 14)
    assert torch.equal(part, scores[11:14])
    classes = core.semantic_inference(case.logits, case.masks, *case.view)
    assert torch.equal(classes, scores.argmax(-1))


def test_instances_match_original():
    case = golden_case()
    top = case.config["test_topk_per_image"]
    found, runs = core.instance_inference(case.logits, case.masks, *case.view, case.things, top)
    assert_close(torch.tensor([s for _, _, s in found]), case.want["instance_scores"])
    assert [c for c, _, _ in found] == case.want["instance_classes"].tolist()
    areas = [sum(runs[mask][1::2]) for _, mask, _ in found]
    assert areas == case.want["instance_mask_area"].tolist()


def twin(logits, masks, padded, used, size, things, min_score, min_overlap, top):
    """All three readings with every mask at the picture's size."""
    shown = F.interpolate(masks[None], padded, mode="bilinear", align_corners=False)
    shown = shown[..., : used[0], : used[1]]
    shown = F.interpolate(shown, size, mode="bilinear", align_corners=False)[0]
    chances, s = logits.softmax(-1), shown.sigmoid()
    classes = logits.shape[1] - 1
    semantic = torch.einsum("qc,qhw->chw", chances[:, :-1], s)

    score, label = chances.max(-1)
    kept = [q for q in range(len(logits)) if label[q] < classes and score[q] > min_score]
    ids, segments, stuff = np.zeros(size, np.int32), [], {}
    if kept:
        owner = (score[kept, None, None] * s[kept]).argmax(0)
        for k, q in enumerate(kept):
            own, inside = owner == k, s[q] >= 0.5
            if not (own & inside).any() or own.sum() / inside.sum() < min_overlap:
                continue
            category = int(label[q])
            if things[category] or category not in stuff:
                segments.append([len(segments) + 1, category, float(score[q])])
                stuff.setdefault(category, len(segments))
            target = len(segments) if things[category] else stuff[category]
            segments[target - 1][2] = max(segments[target - 1][2], float(score[q]))
            ids[(own & inside).numpy()] = target

    best = chances[:, :-1].flatten().topk(min(top, chances[:, :-1].numel())).indices.tolist()
    instances = []
    for place in best:
        q, category = divmod(place, classes)
        if things[category]:
            mask = shown[q] > 0
            sure = float(s[q][mask].double().sum() / (mask.sum() + 1e-6))
            instances.append((float(chances[q, category]) * sure, category, mask.numpy()))
    instances.sort(key=lambda row: -row[0])
    return semantic, ids, segments, instances


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 12),
    classes=st.integers(1, 5),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    padding=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    scale=st.floats(0.3, 3),
    min_score=st.sampled_from([0.0, 0.4]),
    min_overlap=st.sampled_from([0.0, 0.8]),
)
def test_equals_the_twin(
    seed, queries, classes, grid, size, padding, scale, min_score, min_overlap
):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(queries, classes + 1, generator=generator)
    masks = 4 * torch.randn(queries, *grid, generator=generator)
    things = [bool(v) for v in torch.randint(0, 2, (classes,), generator=generator)]
    used = tuple(max(1, round(side * scale)) for side in size)
    padded = tuple(side + more for side, more in zip(used, padding, strict=True))
    view = (padded, used, size)
    semantic, ids, segments, instances = twin(
        logits, masks, *view, things, min_score, min_overlap, 7
    )
    got = core.semantic_scores(logits, masks, *view, 0, size[0])
    torch.testing.assert_close(got.permute(2, 0, 1), semantic, rtol=1e-4, atol=1e-4)

    got, rows = core.panoptic_inference(logits, masks, *view, things, min_score, min_overlap)
    near = min(abs(float(v)) for v in _margins(logits, masks, view, min_overlap))
    if near > 1e-4:  # else rounding may decide
        np.testing.assert_array_equal(got.numpy(), ids)
        assert [list(row[:2]) for row in rows] == [row[:2] for row in segments]
        assert [row[2] for row in rows] == pytest.approx([row[2] for row in segments])

    found, runs = core.instance_inference(logits, masks, *view, things, 7)
    assert [row[2] for row in found] == pytest.approx([row[0] for row in instances], abs=2e-3)
    if near > 1e-4:
        assert [row[0] for row in found] == [row[1] for row in instances]
        for (_, place, _), (_, _, mask) in zip(found, instances, strict=True):
            np.testing.assert_array_equal(_drawn(runs[place], size), mask)


def _margins(logits, masks, view, min_overlap):
    """How far decisions are from being ties: logits from 0, the two best scores of a pixel, what is
    left of a mask from the least, scores of instances from each other."""
    padded, used, size = view
    shown = F.interpolate(masks[None], padded, mode="bilinear", align_corners=False)
    shown = shown[..., : used[0], : used[1]]
    shown = F.interpolate(shown, size, mode="bilinear", align_corners=False)[0]
    score, label = logits.softmax(-1).max(-1)
    keep = label < logits.shape[1] - 1
    values = score[keep, None, None] * shown[keep].sigmoid()
    best = values.topk(min(2, len(values)), dim=0).values
    found = [shown.abs().min()]
    if len(best) == 2:
        found.append((best[0] - best[1]).abs().min())
    if keep.any():
        owner, inside = values.argmax(0), (shown[keep] >= 0).flatten(1).sum(1)
        won = torch.bincount(owner.flatten(), minlength=len(values))
        found.append((won / inside.clamp(min=1) - min_overlap).abs().min())
    scores = logits.softmax(-1)[:, :-1].flatten().sort().values
    return [*found, *(scores[1:] - scores[:-1])]


def _drawn(runs, size):
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(size[1], size[0]).T


def scene():
    """Two things in front of stuff on a grid of 8 x 8, and a query that sees nothing."""
    masks = torch.full((5, 8, 8), -6.0)
    masks[0, :, :4], masks[1, 1:3, 1:3] = 1, 8
    masks[2, :, 4:], masks[3, 5:7, 5:7] = 1, 8
    logits = torch.zeros(5, 4)  # stuff, cat, dog, nothing
    for query, category in enumerate([0, 1, 0, 2, 3]):
        logits[query, category] = 6
    logits[1, 1], logits[3, 2] = 9, 9
    return logits, masks, ("grass", "cat", "dog"), (False, True, True)


def result(size=(32, 32)) -> PanopticResult:
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    return PanopticResult.from_masks(image, *scene())


def test_a_scene():
    found = result()
    assert [(s.id, found.names[s.category]) for s in found.segments] == [
        (1, "grass"), (2, "cat"), (3, "dog")
    ]  # fmt: skip
    assert found.mask(2)[8, 8]
    assert found.mask(3)[24, 24]
    assert found.mask(1)[0, 0]
    assert found.mask(1)[0, 31]  # two masks of one stuff class
    assert found.classes.dtype == np.uint8
    assert (found.classes[8, 8], found.classes[0, 31]) == (1, 0)
    surest = found.instances[0]
    assert {i.category for i in found.instances[:2]} == {1, 2}
    assert surest.area == surest.decode().sum()
    assert [i.score for i in found.instances] == sorted(i.score for i in found.instances)[::-1]
    assert repr(found) == "PanopticResult(32 x 32 px, 3 segments: grass, cat, dog)"
    with pytest.raises(KeyError, match=r"no segment 9; the segments are \[1, 2, 3\]"):
        found.mask(9)
    metrics = PanopticMetrics(found.things)
    metrics.update(found, PanopticLabel(found.ids, found.segments))
    assert metrics.compute()["PQ"] == 100


def test_stuff_that_loses_most_of_its_area_is_dropped():
    logits, masks, names, things = scene()
    masks[1, :, :4] = 8  # the cat takes all of the left stuff
    found = PanopticResult.from_masks(np.zeros((32, 32, 3), np.uint8), logits, masks, names, things)
    (grass,) = (s.id for s in found.segments if found.names[s.category] == "grass")
    assert not found.mask(grass)[:, :14].any()
    assert found.mask(grass)[:, 20:].any()
    low = torch.full_like(logits, 0.0)
    low[:, -1] = 1
    nothing = PanopticResult.from_masks(
        np.zeros((32, 32, 3), np.uint8), low, masks, names, things, top=1
    )
    assert nothing.segments == ()
    assert not nothing.ids.any()
    assert nothing.show().png(60)


def test_padding_is_cut_off():
    logits, masks, names, things = scene()
    wide = torch.full((5, 8, 16), -6.0)
    wide[:, :, :8] = masks
    image = np.zeros((40, 40, 3), np.uint8)
    found = PanopticResult.from_masks(
        image, logits, wide, names, things, padded=(32, 64), used=(32, 30)
    )
    plain = PanopticResult.from_masks(
        image, logits, masks, names, things, padded=(32, 32), used=(32, 30)
    )
    np.testing.assert_array_equal(found.ids[:, :36], plain.ids[:, :36])


def test_files(tmp_path):
    found = result((40, 56))
    path = found.save(tmp_path / "a.json")
    tables = json.loads(path.read_text())
    ids = read_ids(tmp_path / tables["annotations"][0]["file_name"])
    np.testing.assert_array_equal(ids, found.ids)
    names = {row["id"]: row["name"] for row in tables["categories"]}
    rows = tables["annotations"][0]["segments_info"]
    assert [names[row["category_id"]] for row in rows] == ["grass", "cat", "dog"]
    for row, segment in zip(rows, found.segments, strict=True):
        mask = ids == row["id"]
        assert row["area"] == mask.sum()
        x, y, width, height = (int(v) for v in row["bbox"])
        assert mask[y : y + height, x : x + width].sum() == mask.sum()
        assert row["score"] == pytest.approx(segment.score, abs=1e-6)
    assert len(tables["instances"]) == len(found.instances)
    overlay = cv2.imread(str(found.save(tmp_path / "a.png")))
    assert overlay.shape == (40, 56, 3)
    arrays = np.load(found.save(tmp_path / "a.npz"))
    np.testing.assert_array_equal(arrays["ids"], found.ids)
    assert arrays["segments"].tolist() == [[1, 0], [2, 1], [3, 2]]
    assert cv2.imread(str(found.save(tmp_path / "a.figure.png"))) is not None
    with pytest.raises(ValueError, match=r"ending in \.figure\.png, \.png, \.json or \.npz"):
        found.save(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("a", "b")}, "a name of each of 3 classes, got 2"),
        ({"things": (True,) * 4, "names": tuple("abcd")}, "each of 3 classes is a thing, got 4"),
        ({"logits": torch.zeros(4, 4)}, r"same Q, got \[4, 4\] and \[5, 8, 8\]"),
        ({"logits": torch.full((5, 4), torch.nan)}, "must be finite"),
        ({"masks": torch.full((5, 8, 8), torch.inf)}, "must be finite"),
        ({"masks": torch.zeros(5, 0, 8)}, r"floating point \[Q, h, w\] on the CPU, got float"),
        ({"masks": torch.zeros(5, 8, 8).long()}, r"floating point \[Q, h, w\]"),
        ({"padded": (32, 32), "used": (33, 32)}, r"\[32, 32\].* got \[33, 32\]"),
        ({"top": 0}, "at least 1 instance, got 0"),
    ],
)
def test_bad_input_is_explained(change, message):
    logits, masks, names, things = scene()
    given = {"logits": logits, "masks": masks, "names": names, "things": things} | change
    with pytest.raises((ValueError, RuntimeError), match=message) as error:
        PanopticResult.from_masks(np.zeros((32, 32, 3), np.uint8), **given)
    assert isinstance(error.value, ValueError)


def test_rows_out_of_range():
    logits, masks, _, _ = scene()
    with pytest.raises(ValueError, match=r"rows within 0 ... 32, got 30 ... 33"):
        core.semantic_scores(logits, masks, (32, 32), (32, 32), (32, 32), 30, 33)
