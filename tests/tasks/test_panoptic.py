"""Panoptic segmentation: sizes, where masks land in a picture, choices, configs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from panoptic_toys import segmenter

import vpd
from vpd.data.tabletop import CLASSES
from vpd.images import read_image, scaled
from vpd.models.clip_text import CLIPTextConfig
from vpd.models.mask2former import Mask2FormerOutput
from vpd.models.tagging_adapter import TaggingAdapterConfig
from vpd.tasks import store


@pytest.fixture(scope="module")
def model() -> vpd.PanopticSegmenter:
    return segmenter()


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (30, 45), (101, 67), (9, 200), (1, 1)])
def test_any_size(model, size):
    result = model(picture(*size))
    assert result.ids.shape == result.classes.shape == size
    assert result.names == CLASSES
    assert {s.id for s in result.segments} | {0} >= set(np.unique(result.ids).tolist())
    assert 0 < len(result.instances) <= 100
    assert all(one.mask["size"] == list(size) for one in result.instances)
    again = model(torch.from_numpy(picture(*size)).permute(2, 0, 1).float() / 255)
    assert np.array_equal(again.ids, result.ids)


@pytest.mark.parametrize("size", [(64, 64), (50, 90), (40, 300)])
def test_masks_land_where_the_head_puts_them(model, size, monkeypatch):
    """A head that says "left of the middle of what the picture fills: a ball; right: the wall"."""
    short, long = sorted(size)
    factor = min(64 / short, 160 / long)
    used = int(size[1] * factor + 0.5)
    seen = []

    def head(maps, last_only=False):
        assert last_only
        rows, columns = maps[0].shape[-2:]
        seen.append((rows, columns))
        x = (torch.arange(columns) + 0.5) * 4  # the autoencoder's stride
        left = torch.where(x < used / 2, 20.0, -20.0).expand(1, 1, rows, columns)
        logits = torch.full((1, 2, len(CLASSES) + 1), -20.0)
        logits[0, 0, CLASSES.index("ball")] = logits[0, 1, CLASSES.index("wall")] = 20
        masks = torch.cat([left, -left], dim=1)
        return Mask2FormerOutput([logits], [masks], [], masks)

    monkeypatch.setattr(model.head, "forward", head)
    result = model(picture(*size))
    assert all(side % 8 == 0 for side in seen[0])  # padded to what the U-Net takes
    names = {s.id: result.names[s.category] for s in result.segments}
    assert sorted(names.values()) == ["ball", "wall"]
    found = np.vectorize(names.get)(result.ids)
    edge = size[1] // 2
    slack = max(2, round(4 / factor))  # a cell of the head's grid
    assert (found[:, : edge - slack] == "ball").all()
    assert (found[:, edge + slack :] == "wall").all()
    ball = result.instances[0]  # walls are no objects
    assert ball.category == CLASSES.index("ball")
    assert ball.score == pytest.approx(1, abs=1e-3)


def test_whole_picture_at_its_size(model):
    """``model(image)`` against its parts, its masks resized as a whole."""
    image = picture(50, 90)
    pixels = scaled(read_image(image), 64 / 50)
    with torch.no_grad():
        latents = model.encode_image(F.pad(pixels, (0, 128 - 115, 0, 0)))
        out = model.masks(model.features(latents))
        logits, masks = model.logits(pixels)
        assert torch.equal(out.masks[-1], masks)
        assert torch.equal(out.logits[-1], logits)
        assert len(out.masks) == 3
        wide = F.interpolate(masks, (64, 128), mode="bilinear")[..., :115]
        wide = F.interpolate(wide, (50, 90), mode="bilinear").sigmoid()[0]
        classes = torch.einsum("qk,qhw->khw", logits[0].softmax(-1)[:, :-1], wide).argmax(0)
    assert (classes.numpy() == model(image).classes).mean() > 0.999


def test_a_picture_without_a_segment(model):
    result = model(picture(20, 30), min_score=1.0)
    assert result.segments == ()
    assert not result.ids.any()
    assert "0 segments" in repr(result)
    everything = model(picture(20, 30), min_score=0.0, min_overlap=0.0)
    assert len(everything.segments) >= len(model(picture(20, 30)).segments)
    assert len(model(picture(20, 30), top=3).instances) <= 3
    for options in ({"min_score": 1.5}, {"min_overlap": -0.1}, {"top": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            model(picture(20, 30), **options)


def test_the_finest_map_twice_as_large(tmp_path):
    model = segmenter(upsample_finest=True)
    _, masks = model.logits(torch.zeros(2, 3, 64, 96))
    assert masks.shape == (2, 12, 32, 48)
    assert segmenter().logits(torch.zeros(1, 3, 64, 96))[1].shape == (1, 12, 16, 24)
    store.save(model, tmp_path / "model", dtype=torch.float32)
    again = vpd.load(tmp_path / "model")
    assert again.config == model.config
    assert np.array_equal(again(picture(40, 40)).ids, model(picture(40, 40)).ids)


def test_conditions():
    image = picture(40, 60)
    uncond = segmenter(condition="uncond", token_length=16)
    assert not uncond(image).oracle
    with pytest.raises(ValueError, match="takes no words"):
        uncond(image, words="a ball")
    oracle = segmenter(condition="oracle", attention=())
    result = oracle(image, words=["ball", "wall"])
    assert result.oracle
    assert "told its label's classes" in repr(result)
    with pytest.raises(ValueError, match="which classes a picture's label has"):
        oracle(image)
    tagging = TaggingAdapterConfig(
        dim=32, text_dim=32, image_dim=None, queries=4, blocks=1, heads=4
    )
    tagged = segmenter(condition="tagging", tagging=tagging)
    assert tagged(image).ids.shape == (40, 60)
    found = tagged.tags(image)
    assert found.names == CLASSES
    assert found.attention is None
    model = segmenter()
    with pytest.raises(ValueError, match="tags need condition=tagging"):
        model.tags(image)
    changed = model(image, states=torch.randn(len(CLASSES), 32))
    assert changed.ids.shape == (40, 60)
    text = CLIPTextConfig(**{**vars(tiny.PARTS["text"])})
    captioned = segmenter(condition="caption", text=text, token_length=16)
    assert captioned(image, words="a ball").ids.shape == (40, 60)


def test_configs_that_cannot_be():
    config = segmenter().config
    for changes, message in (
        ({"things": (True,)}, "PanopticConfig.things: expected one flag for each of 8 classes"),
        ({"classes": (), "things": ()}, "PanopticConfig.classes: expected at least one name"),
        ({"max_size": 63}, "expected 1 <= image_size <= max_size, got 64 and 63"),
        ({"min_score": 2.0}, "min_score must be within"),
        ({"condition": "captions"}, "PanopticConfig.condition must be one of"),
        ({"condition": "implicit"}, "PanopticConfig.image: condition=implicit needs one"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(config, **changes)
    with pytest.raises(ValueError, match="heads"):
        segmenter(heads=3)
