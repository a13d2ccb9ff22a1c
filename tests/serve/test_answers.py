"""What the page shows: the models' own answers, drawn; and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import edit_toys
import numpy as np
import odise_checkpoints
import panoptic_toys
import pytest
import tiny
import torch

import vpd
from vpd.cli.serve import models
from vpd.serve.answers import TASKS, Served
from vpd.tasks import store
from vpd.tasks.evaluate import under
from vpd.tasks.maps import at_timestep

PARTS = {name: tiny.PARTS[name] for name in ("unet", "vae", "scale_factor")}
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
SEMANTIC = {"classes": ("cup", "sky", "tree"), "channels": 16, "image_size": 64, "stride": 43}
SHOWN = (320, 480, 3)  # eight pixels for each


@pytest.fixture(scope="module")
def served():
    torch.manual_seed(0)
    semantic = vpd.SemanticSegmenter(vpd.SemanticConfig(**PARTS, **SEMANTIC))
    semantic.class_embeddings.normal_()
    depth = vpd.DepthEstimator(
        vpd.DepthConfig(
            **PARTS, scenes=("hall", "attic"), embed_dim=8, num_filters=(8, 8), norm_groups=4,
            image_size=64,
        )
    )  # fmt: skip
    depth.class_embeddings.normal_()
    refer = tiny.segmenter()
    tiny.balance(refer)
    found = {
        "refer": refer,
        "semantic": semantic.eval(),
        "panoptic": panoptic_toys.segmenter(),
        "open-panoptic": odise_checkpoints.segmenter(),
        "depth": depth.eval(),
        "edit": edit_toys.editor(),
    }
    return {task: Served(f"my {task}", task, model) for task, model in found.items()}


def test_every_task_has_a_form(served):
    assert set(served) == set(TASKS)
    fields = {task: [field.name for field in one.fields] for task, one in served.items()}
    assert fields == {
        "refer": ["text", "timestep"],
        "semantic": ["timestep"],
        "panoptic": ["timestep"],
        "open-panoptic": ["text"],
        "depth": ["scene", "timestep"],
        "edit": ["text", "steps", "text_guidance", "image_guidance", "seed"],
    }


@pytest.mark.parametrize("task", TASKS)
def test_pictures_can_be_shown(served, task):
    asked = {} if task in ("semantic", "panoptic", "depth") else {"text": "the red cube"}
    asked |= {"steps": 2} if task == "edit" else {}
    shown = served[task](PICTURE, **asked)
    for picture, name in [(shown.picture, "answer"), *shown.more]:
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert 256 <= max(picture.shape) <= 1024
        assert name
    assert shown.said


def test_a_sentence(served):
    one = served["refer"]
    shown = one(PICTURE, text="the red cube")
    expected = one.model(PICTURE, "the red cube")
    assert 0 < expected.mask.mean() < 1
    mask, name = shown.more[0]
    assert (name, mask.shape) == ("mask", SHOWN)
    np.testing.assert_array_equal(mask[::8, ::8, 0], expected.mask * np.uint8(255))
    outside = mask[..., 0] == 0
    np.testing.assert_array_equal(shown.picture[::8, ::8][~expected.mask], PICTURE[~expected.mask])
    assert (shown.picture[~outside] >= PICTURE.repeat(8, 0).repeat(8, 1)[~outside]).all()
    assert [name for _, name in shown.more[2:]] == ["“the”", "“red”", "“cube”"]
    assert f"{expected.mask.mean():.1%}" in shown.said
    assert "longer than the model reads" in one(PICTURE, text="cube " * 40).said


def test_a_timestep_is_that_of_noise_on_the_latents(served):
    one = served["refer"]
    shown = one(PICTURE, text="a cube", timestep=300.0)
    noisy = under(one.model, at_timestep("latent_match", 300, one.model.config.noise))
    expected = noisy(PICTURE, "a cube")
    np.testing.assert_array_equal(shown.more[0][0][::8, ::8, 0], expected.mask * np.uint8(255))
    assert one.model.config.noise.noise_t == 0
    assert (expected.probability != one.model(PICTURE, "a cube").probability).any()


def test_segments_in_words_that_are_typed(served):
    one = served["open-panoptic"]
    shown = one(PICTURE, text=" cup, mug; sky ; floor")
    expected = one.model(PICTURE, "cup, mug; sky; floor")
    assert {name for _, name in shown.more} <= {"cup", "sky", "floor"}
    assert len(shown.more) == len(expected.segments)
    areas = [int((mask[::8, ::8, 0] > 0).sum()) for mask, _ in shown.more]
    assert areas == sorted(expected.label.areas(), reverse=True)
    with pytest.raises(ValueError, match="expected names such as"):
        one(PICTURE, text=" ; ")


def test_depth_of_a_type_of_scene(served):
    own, told = served["depth"].model, []

    def model(picture, scene):
        told.append(scene)
        return own(picture, scene=scene)

    one = Served("told", "depth", SimpleNamespace(config=own.config))
    one.model = model
    depth_m = own(PICTURE, scene="attic").depth_m
    assert f"{depth_m.mean():.2f} m on average" in one(PICTURE, scene="attic").said
    assert one(PICTURE).picture.shape == SHOWN
    assert told == ["attic", None]


def test_an_edit_has_a_seed(served):
    one = served["edit"]
    shown = one(PICTURE, text="make it red", steps=2, seed=3)
    expected = one.model.edit(PICTURE, "make it red", steps=2, seed=3)
    factor = shown.picture.shape[0] // expected.image.shape[0]
    np.testing.assert_array_equal(shown.picture[::factor, ::factor], expected.image)
    assert shown.said == "seed 3, 2 steps"


@pytest.mark.parametrize(
    ("task", "asked", "message"),
    [
        ("refer", {"text": " "}, "the sentence is empty"),
        ("refer", {"text": 3}, "text must be a text, got 3"),
        ("refer", {"text": "a", "timestep": 1000}, "timestep must be a number in 0 to 999"),
        ("refer", {"text": "a", "timestep": float("nan")}, "timestep must be a number"),
        ("refer", {"text": "a", "timestep": None}, "timestep must be a number"),
        ("refer", {"text": "a", "steps": 1}, "expected text, timestep, got steps"),
        ("depth", {"scene": "moon"}, "scene must be one of any, hall, attic, got 'moon'"),
        ("edit", {"text": "a", "steps": 10**9}, "steps must be a number in 1 to 100"),
        ("edit", {"text": ""}, "the instruction is empty"),
    ],
)
def test_what_is_refused(served, task, asked, message):
    with pytest.raises(ValueError, match=message):
        served[task](PICTURE, **asked)


def test_words_where_the_model_is_told_some():
    fields = {"condition": "caption", "text": tiny.PARTS["text"], "token_length": 16}
    config = vpd.SemanticConfig(**PARTS, **SEMANTIC, **fields)
    torch.manual_seed(0)
    one = Served("told", "semantic", vpd.SemanticSegmenter(config).eval())
    assert one.fields[0].label == "caption"
    expected = one.model(PICTURE, words="a tree")
    assert one(PICTURE, text="a tree").said.startswith(next(iter(expected.shares)))


def test_models_by_name(tmp_path):
    name = str(store.save(tiny.segmenter(), tmp_path / "mine"))
    (found,) = models([name, name], None, None, "cpu", "float32")
    assert (found.name, found.task) == ("mine", "refer")
    shipped = [one.task for one in models(None, None, None, "cpu", "float32")]
    assert shipped[0] == "refer"
    assert "foundation" not in shipped
    foundation = str(store.save(tiny.foundation(), tmp_path / "bare"))
    with pytest.raises(ValueError, match=r"bare: expected a model of refer, .* got one of"):
        models([foundation], None, None, "cpu", "float32")
    with pytest.raises(ValueError, match="models and weights"):
        models([name], [tmp_path], None, "cpu", "float32")
