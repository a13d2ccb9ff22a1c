"""Segmenters and depth estimators on a vision transformer: its features are what their heads read,
and it is told nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vpd
from vpd.models.vit import ViTBackbone, ViTConfig
from vpd.protocol import NoiseSpec
from vpd.tasks import store
from vpd.tasks.evaluation import under

VIT = ViTConfig(
    hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=1,
    image_size=32, patch_size=8, strides=(4, 8, 16, 32),
)  # fmt: skip
NAMES = ("wall", "floor", "cube")
ALONE = {"vit": VIT, "text_adapter": False, "image_size": 64}


def segmenter(**changes) -> vpd.SemanticSegmenter:
    torch.manual_seed(0)
    options = {"classes": NAMES, "condition": "uncond", "attention": (), "channels": 8}
    config = vpd.SemanticConfig(**{**ALONE, **options, "stride": 43, **changes})
    return strong(vpd.SemanticSegmenter(config))


def estimator(**changes) -> vpd.DepthEstimator:
    torch.manual_seed(0)
    options = {"embed_dim": 8, "num_filters": (8, 8), "norm_groups": 4, "scenes": ("a", "b")}
    return strong(vpd.DepthEstimator(vpd.DepthConfig(**{**ALONE, **options, **changes})))


def strong(model):
    """With features that depend on the picture visibly."""
    with torch.no_grad():
        for parameter in model.vit.parameters():
            parameter.normal_(0, 0.2)
    return model.eval()


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("options", [{}, {"head": "uper", "channels": 16, "auxiliary": True}])
def test_classes_are_what_the_head_says_of_the_transformers_features(options):
    model = segmenter(**options)
    assert {name for name, _ in model.named_children()} <= {"vit", "neck", "head", "aux_head"}
    image = torch.rand(2, 3, 40, 64) * 2 - 1
    backbone = ViTBackbone(VIT)
    backbone.load_state_dict(model.vit.state_dict())
    with torch.no_grad():
        found = model.logits(image)
        maps = backbone(F.pad(image, (0, 0, 0, 24)))  # to a multiple of the coarsest stride
        assert [tuple(map_.shape[2:]) for map_ in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]
        read = maps if model.neck is None else model.neck(maps)
        want = F.interpolate(model.head(read), (64, 64), mode="bilinear")[..., :40, :]
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    assert not torch.equal(found[0], found[1])


def test_metres_are_what_the_head_says_of_the_transformers_features():
    model = estimator()
    image = torch.rand(1, 3, 64, 48) * 2 - 1
    with torch.no_grad():
        found = model.logits(image, model.states(torch.tensor([1])))
        want = model.head(model.vit(F.pad(image, (0, 16))), crop=(0, 1))
    assert found.shape == (1, 1, 64, 48)
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (37, 91), (5, 3)])
def test_a_picture_of_any_size_comes_back_at_its_size(size):
    assert segmenter()(picture(*size), scales=(1.0, 1.5), flip=True).classes.shape == size
    assert estimator()(picture(*size), scene="b").depth_m.shape == size


@pytest.mark.parametrize("make", [segmenter, estimator])
def test_it_is_saved_and_loaded(make, tmp_path):
    model = make()
    store.save(model, tmp_path, dtype=torch.float32)
    again = vpd.load(tmp_path)
    assert again.config == model.config
    one, other = again(picture(64, 70)), model(picture(64, 70))
    value = "classes" if make is segmenter else "depth_m"
    assert np.array_equal(getattr(one, value), getattr(other, value))
    half = vpd.load(tmp_path, dtype=torch.bfloat16)(picture(64, 64))
    assert getattr(half, value).shape == (64, 64)


def test_it_is_told_nothing():
    model = segmenter()
    with pytest.raises(ValueError, match="takes no words about a picture, got 'a cube'"):
        model(picture(64, 64), words="a cube")
    with pytest.raises(ValueError, match=r"told nothing, got states \[1, 2, 8\]"):
        model(picture(64, 64), states=torch.zeros(2, 8))
    with pytest.raises(ValueError, match=r"sees pictures as they are.*got noise=NoiseSpec"):
        under(model, NoiseSpec.preset("latent_match", noise_t=100))
    with pytest.raises(ValueError, match="got image_norm='none'"):
        under(estimator(), image_norm="none")


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (segmenter, {"condition": "classes"}, "condition must be uncond, got classes"),
        (segmenter, {"attention": (2, 4)}, r"no maps, got attention=\(2, 4\)"),
        (estimator, {"text_adapter": True}, "got text_adapter=True"),
        (estimator, {"num_filters": (8,)}, "finest map, of stride 4, to it; got 1"),
        (estimator, {"vit": replace(VIT, strides=(4, 8, 16, 48))}, "four powers of 2"),
        (estimator, {"vit": replace(VIT, strides=(6, 12, 24, 48))}, "four powers of 2"),
    ],
)
def test_configs_that_cannot_be(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)
