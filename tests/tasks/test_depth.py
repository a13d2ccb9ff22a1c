"""Depth: official VPD's outputs, shifted windows, sizes, results."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from helpers import assert_close, load_golden

import vpd
from vpd.models.autoencoder import AutoencoderConfig
from vpd.models.unet import UNetConfig
from vpd.tasks import store

SCENES = ("kitchen", "office", "study")


@pytest.fixture(scope="module")
def official() -> vpd.DepthEstimator:
    """The golden case's network, its official checkpoint loaded by vpd.load_weights."""
    case = load_golden("vpd_depth")
    scenes = tuple(f"scene {i}" for i in range(len(case.weights["encoder.class_embeddings"])))
    config = vpd.DepthConfig(
        unet=UNetConfig(model_channels=32, channel_mult=(1, 2, 2, 2), context_dim=64),
        vae=AutoencoderConfig(ch=32, ch_mult=(1, 2, 1, 1)),
        scenes=scenes,
        embed_dim=24,
        image_size=352,
    )
    model = vpd.DepthEstimator(config)
    report = vpd.load_weights(model, case.weights)
    # The original deletes the output convolution, which features do not need.
    assert all(name.startswith("unet.out.") for name in report.missing)
    assert not report.mismatched
    return model.eval()


def small(**changes) -> vpd.DepthEstimator:
    torch.manual_seed(0)
    parts = {name: tiny.PARTS[name] for name in ("unet", "vae", "scale_factor")}
    options = {"embed_dim": 8, "num_filters": (8, 8), "norm_groups": 4, "image_size": 64}
    model = vpd.DepthEstimator(vpd.DepthConfig(**parts, **{**options, "scenes": SCENES, **changes}))
    model.class_embeddings.normal_()
    return model.eval()


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_depth_matches_vpd(official):
    case = load_golden("vpd_depth")
    image = case.inputs["image_low"].repeat_interleave(4, 2).repeat_interleave(4, 3) * 2 - 1
    with torch.no_grad():
        states = official.states(case.inputs["class_ids"].long())
        found = official.logits(image, states)
    assert found.shape == (1, 1, 352, 352)
    assert_close(found[:, :, ::2, ::2], case.outputs["pred_d"])


def test_windows_and_mirror_images_are_averaged():
    model = small()
    image = picture(64, 96)
    found = model(image, scene="office", windows=2)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    total, visits = torch.zeros(1, 1, 64, 96), torch.zeros(64, 96)
    with torch.inference_mode():
        states = model.states(torch.tensor([1]))
        for left in (0, 32):
            window = pixels[..., left : left + 64]
            for flip in (False, True):
                seen = model.logits(window.flip(-1) if flip else window, states)
                total[..., left : left + 64] += seen.flip(-1) if flip else seen
                visits[:, left : left + 64] += 1
    assert np.allclose(found.depth_m, (total / visits)[0, 0], atol=1e-5)


def test_a_high_picture_is_shifted_along_its_height():
    model, image = small(), picture(96, 64)
    found = model(image, windows=2, flip=False)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        first = model.logits(pixels[..., :64, :])
    assert np.allclose(found.depth_m[:32], first[0, 0, :32], atol=1e-5)


def test_a_picture_of_any_size_comes_back_at_its_size():
    model = small()
    for size in ((64, 64), (37, 91), (200, 30), (5, 3)):
        found = model(picture(*size))
        assert found.depth_m.shape == size
        assert found.depth_m.min() >= 0
        assert found.depth_m.max() <= 10


def test_resized_back_as_pytorch_does():
    model = small()
    image = picture(32, 32)
    found = model(image, flip=False)
    resized = cv2.resize(image, (64, 64), interpolation=cv2.INTER_LINEAR)
    pixels = torch.from_numpy(resized).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        want = F.interpolate(model.logits(pixels), (32, 32), mode="bilinear")
    assert np.allclose(found.depth_m, want[0, 0], atol=1e-5)


def test_without_a_scene_the_embeddings_are_averaged():
    model = small()
    assert torch.allclose(model.states()[0, 0], model.class_embeddings.mean(0))
    assert torch.equal(model.states(torch.tensor([2, 0]))[:, 0], model.class_embeddings[[2, 0]])
    with pytest.raises(ValueError, match="kitchen, office, study, got 'moon'"):
        model(picture(8, 8), scene="moon")


def test_too_few_windows_are_refused():
    with pytest.raises(ValueError, match="do not cover"):
        small()(picture(64, 256), windows=2)


def test_result_says_shows_and_saves(tmp_path):
    found = small()(picture(48, 64))
    assert " m)" in repr(found)
    stored = cv2.imread(str(found.save(tmp_path / "a.depth.png")), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert np.array_equal(stored, np.round(found.depth_m * 1000).astype(np.uint16))
    assert np.array_equal(np.load(found.save(tmp_path / "a.npz"))["depth_m"], found.depth_m)
    assert cv2.imread(str(found.save(tmp_path / "a.figure.png"))) is not None


def test_it_is_saved_and_loaded(tmp_path):
    model = small()
    store.save(model, tmp_path, dtype=torch.float32)
    assert store.task_of(tmp_path) == "depth"
    again = vpd.load(tmp_path)
    image = picture(64, 64)
    assert np.array_equal(again(image).depth_m, model(image).depth_m)


def test_configs_that_cannot_be():
    config = small().config
    for changes, message in (
        ({"scenes": ()}, "at least one type"),
        ({"num_filters": (8,)}, "finest map, of stride 4, to it; got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            vpd.DepthEstimator(replace(config, **changes))
