"""Semantic segmentation: official VPD's outputs, windows, scales, sizes, results."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from helpers import assert_close, load_golden
from PIL import Image
from torch import Tensor

import vpd
from vpd._load import core
from vpd.config import from_dict
from vpd.models.autoencoder import AutoencoderConfig
from vpd.models.unet import UNetConfig
from vpd.tasks import store
from vpd.tasks.slide import slide_bands
from vpd.viz.dense import palette

NAMES = ("wall", "floor", "cube", "ball", "ring")


@pytest.fixture(scope="module")
def official() -> vpd.SemanticSegmenter:
    """The golden case's network, its official checkpoint loaded by vpd.load_weights."""
    config = vpd.SemanticConfig(
        unet=UNetConfig(model_channels=32, channel_mult=(1, 2, 2, 2), context_dim=64),
        vae=AutoencoderConfig(ch=32, ch_mult=(1, 2, 1, 1)),
        classes=NAMES,
        texts=11,
        channels=32,
        image_size=128,
        stride=85,
        resize="none",
    )
    model = vpd.SemanticSegmenter(config)
    report = vpd.load_weights(model, load_golden("vpd_seg").weights)
    assert not report.missing
    assert not report.mismatched
    return model.eval()


def small(**changes) -> vpd.SemanticSegmenter:
    torch.manual_seed(0)
    parts = {name: tiny.PARTS[name] for name in ("unet", "vae", "scale_factor")}
    config = vpd.SemanticConfig(
        **parts, **{"classes": NAMES, "channels": 16, "image_size": 64, "stride": 43, **changes}
    )
    model = vpd.SemanticSegmenter(config).eval()
    model.class_embeddings.normal_()
    return model


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_logits_match_vpd(official):
    case = load_golden("vpd_seg")
    image = case.inputs["image_wide"][..., :128]
    with torch.no_grad():
        out = official.features(official.encode_image(image))
        logits = official.logits(image)
    assert_close(official.pyramid(out)[2], case.outputs["feat2"])
    assert_close(official.scores(out), case.outputs["lowres_logits"])
    assert_close(logits[:, :, ::2, ::2], case.outputs["logits"])


def test_sliding_matches_vpd(official):
    case = load_golden("vpd_seg")
    with torch.no_grad():
        bands = slide_bands(case.inputs["image_wide"], official.logits, 128, 85, batch=2)
        found = torch.cat(list(bands), dim=1)
    assert_close(found[None, :, 1::3, 1::3], case.outputs["slide_logits"])
    assert torch.equal(found.argmax(0), case.outputs["slide_pred"][0].long())


@pytest.mark.parametrize(
    ("size", "crop", "stride"),
    [
        ((64, 64), 64, 43), ((40, 100), 64, 20), ((150, 97), 32, 21),
        ((70, 150), (32, 64), (21, 42)), ((20, 150), (32, 64), (32, 10)), ((90, 50), (32, 64), 20),
    ],
)  # fmt: skip
@pytest.mark.parametrize("batch", [1, 3])
def test_bands_equal_a_slow_average(size, crop, stride, batch):
    pixels = torch.randn(1, 3, *size)

    def predict(windows: Tensor) -> Tensor:  # of a window, not of its pixels alone
        return windows + windows.mean(dim=(2, 3), keepdim=True)

    height, width = size
    tall, wide = crop if isinstance(crop, tuple) else (crop, crop)
    down, right = stride if isinstance(stride, tuple) else (stride, stride)
    total, visits = torch.zeros(3, *size, dtype=torch.double), torch.zeros(size)
    tops = [*range(0, max(height - tall, 0), down), max(height - tall, 0)]
    lefts = [*range(0, max(width - wide, 0), right), max(width - wide, 0)]
    for top in dict.fromkeys(tops):
        for left in dict.fromkeys(lefts):
            place = (..., slice(top, top + tall), slice(left, left + wide))
            total[place] += predict(pixels[place].double())[0]
            visits[place[1:]] += 1
    found = list(slide_bands(pixels, predict, crop, stride, batch))
    assert all(band.shape[1] <= min(tall, height) for band in found)
    assert torch.allclose(torch.cat(found, dim=1).double(), total / visits, atol=1e-5)


@pytest.mark.parametrize("size", [(7, 9), (30, 22), (64, 64)])
def test_pixel_classes_are_the_mean_of_resized_probabilities(size):
    draw = torch.Generator().manual_seed(1)
    maps = [torch.randn(6, h, w, generator=draw) for h, w in ((16, 16), (20, 13), (40, 50))]
    flipped = [False, True, False]
    wide = [
        F.interpolate(m.flip(-1)[None] if f else m[None], size, mode="bilinear")[0].softmax(0)
        for m, f in zip(maps, flipped, strict=True)
    ]
    classes, chance = core.pixel_classes(maps, flipped, size, True)
    mean = torch.stack(wide).mean(0)
    assert torch.allclose(chance, mean.max(0).values, atol=1e-5)
    clear = mean.topk(2, dim=0).values
    clear = clear[0] - clear[1] > 1e-5
    assert torch.equal(classes[clear], mean.argmax(0)[clear])
    alone, nothing = core.pixel_classes(maps[:1], [False], size, False)
    assert nothing is None
    assert (alone == wide[0].argmax(0)).float().mean() > 0.999


def test_multi_scale_and_flip_average_probabilities(monkeypatch):
    model = small(resize="none")
    image = picture(64, 80)
    found = model(image, scales=(1.0, 1.5), flip=True)
    mean = torch.zeros(len(NAMES), 64, 80)
    with torch.inference_mode():
        for scale in (1.0, 1.5):
            size = (int(80 * scale), int(64 * scale))
            resized = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
            pixels = torch.from_numpy(resized).permute(2, 0, 1)[None] / 127.5 - 1
            for flip in (False, True):
                seen = pixels.flip(-1) if flip else pixels
                scores = torch.cat(list(slide_bands(seen, model.logits, 64, 43, 4)), dim=1)
                scores = scores.flip(-1) if flip else scores
                mean += F.interpolate(scores[None], (64, 80), mode="bilinear")[0].softmax(0) / 4
    assert np.allclose(found.probability, mean.max(0).values, atol=1e-4)
    assert (found.classes == mean.argmax(0).numpy()).mean() > 0.999


def test_rows_by_rows_equals_all_at_once():
    model, image = small(resize="none"), picture(150, 170)
    found = model(image)
    pixels = model._resized(image, 1.0)
    with torch.inference_mode():
        told = model.condition.states(model, [None])
        scores = torch.cat(list(model._bands(pixels, 4, told)), dim=1)
    assert np.allclose(found.probability, scores.softmax(0).max(0).values, atol=1e-5)
    assert (found.classes == scores.argmax(0).numpy()).mean() > 0.999


@pytest.mark.parametrize("head", ["fpn", "uper"])
@pytest.mark.parametrize("mode", ["slide", "whole"])
def test_a_picture_of_any_size_comes_back_at_its_size(head, mode):
    model = small(head=head, channels=16)
    for size in ((37, 91), (200, 30), (5, 3)):
        found = model(picture(*size), mode=mode)
        assert found.classes.shape == found.probability.shape == size
        assert found.classes.max() < len(NAMES)
        assert 1 / len(NAMES) - 1e-6 <= found.probability.min()
        assert found.probability.max() <= 1


def test_the_test_size_keeps_the_ratio_within_limits():
    model = small()
    assert model._resized(picture(128, 256), 1.0).shape[-2:] == (64, 128)
    assert model._resized(picture(10, 1000), 1.0).shape[-2:] == (3, 256)  # the longer side limits
    assert model._resized(picture(100, 100), 1.25).shape[-2:] == (80, 80)


def test_rectangular_windows(tmp_path):
    model = small(image_size=(32, 64), stride=(21, 43))
    seen = []

    def logits(pixels, *told):
        seen.append(tuple(pixels.shape[-2:]))
        return vpd.SemanticSegmenter.logits(model, pixels, *told)

    model.logits = logits
    found = model(picture(100, 130))  # the shorter side becomes 32
    assert found.classes.shape == (100, 130)
    assert set(seen) == {(32, 42)}  # as far as the picture reaches
    seen.clear()
    with torch.inference_mode():
        pixels = model._resized(picture(100, 130), 4.0)
        assert pixels.shape[-2:] == (128, 166)
        told = model.condition.states(model, [None])
        found = torch.cat(list(model._bands(pixels, 4, told)), dim=1)
    assert set(seen) == {(32, 64)}
    total, visits = torch.zeros(len(NAMES), 128, 166), torch.zeros(128, 166)
    with torch.inference_mode():
        for top in (0, 21, 42, 63, 84, 96):
            for left in (0, 43, 86, 102):
                place = (..., slice(top, top + 32), slice(left, left + 64))
                total[place] += vpd.SemanticSegmenter.logits(model, pixels[place])[0]
                visits[place[1:]] += 1
    assert torch.allclose(found, total / visits, atol=1e-4)
    del model.logits
    store.save(model, tmp_path, dtype=torch.float32)
    assert vpd.load(tmp_path).config == model.config
    config = replace(model.config, image_size=64, stride=43)  # as square ones always were
    assert from_dict(vpd.SemanticConfig, json.loads(json.dumps(asdict(config)))) == config


def test_training_mode_and_weights_survive_a_call():
    model = small().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model(picture(64, 64))
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_result_says_shows_and_saves(tmp_path):
    found = small()(picture(48, 64))
    assert abs(sum(found.shares.values()) - 1) < 1e-9
    name = next(iter(found.shares))
    assert found.mask(name).mean() == found.shares[name]
    with pytest.raises(KeyError, match="no class 'sofa'"):
        found.mask("sofa")
    path = found.save(tmp_path / "a.classes.png")
    stored = Image.open(path)
    assert stored.mode == "P"
    assert np.array_equal(np.array(stored), found.classes)
    assert np.array_equal(np.array(stored.convert("RGB")), palette(len(NAMES))[found.classes])
    arrays = np.load(found.save(tmp_path / "a.npz"))
    assert np.array_equal(arrays["classes"], found.classes)
    assert list(arrays["names"]) == list(NAMES)
    assert cv2.imread(str(found.save(tmp_path / "a.figure.png"))) is not None
    assert found.show()._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"\.npz"):
        found.save(tmp_path / "a.txt")


def test_colours_are_all_different():
    assert len(np.unique(palette(255), axis=0)) == 255


def test_it_is_saved_and_loaded(tmp_path):
    model = small()
    store.save(model, tmp_path, dtype=torch.float32)
    again = vpd.load(tmp_path)
    assert again.config == model.config
    image = picture(64, 64)
    assert np.array_equal(again(image).classes, model(image).classes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "slid"}, "mode must be"),
        ({"scales": ()}, "scales must be"),
        ({"scales": (0.0,)}, "scales must be"),
        ({"batch": 0}, "batch at least 1"),
    ],
)
def test_choices_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        small()(picture(8, 8), **options)


def test_configs_that_cannot_be():
    config = small().config
    for changes, message in (
        ({"classes": ()}, "at least one name"),
        ({"stride": 65}, "stride"),
        ({"image_size": (32, 64), "stride": (40, 40)}, r"stride must be .* got \(40, 40\)"),
        ({"attention": (1,)}, "cross-attention at strides"),
    ):
        with pytest.raises(ValueError, match=message):
            vpd.SemanticSegmenter(replace(config, **changes))
