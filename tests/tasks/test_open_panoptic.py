"""Open-vocabulary panoptic segmentation with networks of random weights: what a vocabulary may be,
what it costs, and that pictures are read as ODISE reads them."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import CLIP, PARTS

import vpd
from vpd.data.segments import Segment
from vpd.images import scaled
from vpd.models.mask_clip import mask_embeddings
from vpd.tasks import store
from vpd.tasks.open_config import OpenPanopticConfig
from vpd.tasks.open_panoptic import OpenPanopticSegmenter
from vpd.tasks.panoptic_results import PanopticResult
from vpd.viz.panoptic import vocabularies_figure
from vpd.vocabulary import Vocabulary

SMALL = {
    "unet": PARTS["unet"],
    "vae": PARTS["vae"],
    "image": CLIP.image,
    "text": CLIP.text,
    "image_size": 64,
    "scale_factor": 0.8,
    "token_length": 16,
    "projection_dim": 16,
    "norm_groups": 4,
    "categories": (("cube", "box"), ("floor",)),
    "things": (True, False),
    "channels": 16,
    "embedding_dim": 12,
    "num_queries": 6,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "test_size": 64,
    "max_size": 160,
}


def segmenter(**changes) -> OpenPanopticSegmenter:
    torch.manual_seed(0)
    return OpenPanopticSegmenter(OpenPanopticConfig(**{**SMALL, **changes})).eval()


@pytest.fixture(scope="module")
def model() -> OpenPanopticSegmenter:
    return segmenter()


def picture(height=50, width=70) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_a_vocabulary_at_run_time(model):
    first = model.panoptic(picture(), vocabulary="cube, box; ring; floor")
    assert first.names == ("cube", "ring", "floor")
    assert first.ids.shape == (50, 70)
    other = model(picture(), Vocabulary.parse("sky; sea", stuff="sky, sea"))
    assert (other.names, other.things) == (("sky", "sea"), (False, False))
    assert {instance.category for instance in other.instances} == set()
    own = model(picture())
    assert (own.names, own.things) == (("cube", "floor"), (True, False))


@pytest.mark.parametrize("count", [1, 2000])
def test_vocabularies_of_any_length(model, count):
    found = model(picture(), [f"thing {i}" for i in range(count)])
    assert len(found.names) == count
    assert found.classes.max() < count
    assert found.classes.dtype == (np.uint8 if count <= 256 else np.int32)


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ("", "expected names"),
        (" ; , ", "expected names"),
        (["cube", ""], "empty name"),
        ([], "at least one category"),
        ("cube; cube", "each name in one category"),
        ("x" * 4000, "fit"),
    ],
)
def test_what_is_no_vocabulary(model, vocabulary, message):
    with pytest.raises(ValueError, match=message):
        model(picture(), vocabulary)
    with pytest.raises(TypeError, match="expected a Vocabulary"):
        model(picture(), 3)
    with pytest.raises(ValueError, match="beta"):
        model.sought("cube", beta=1.1)


def test_what_is_new_is_read_once(model, monkeypatch):
    read: list[int] = []
    plain = model.texts._encode
    monkeypatch.setattr(model.texts, "_encode", lambda new: read.append(len(new)) or plain(new))
    model(picture(), "tree; house")
    model(picture(), "house; tree, oak")
    assert read == [2, 2, 1, 1]  # by itself and as a photo
    sought = model.sought("tree; house")
    model(picture(), sought)
    assert read == [2, 2, 1, 1, 0, 0]


def test_the_order_of_names_does_not_matter(model):
    pixels = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        one, masks = model.logits(pixels, model.sought("cube; ring, circle; sea"))
        two, same = model.logits(pixels, model.sought("sea; circle, ring; cube"))
    torch.testing.assert_close(same, masks)
    torch.testing.assert_close(two[..., [2, 1, 0, 3]], one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("supervision", ["labels", "captions"])
@pytest.mark.parametrize("branch", ["mask_tokens", "pool", "none"])
@pytest.mark.parametrize(
    ("asked", "share"),  # of the cube, which was trained on, and of the sea, which was not
    [({}, (0.3, 0.7)), ({"alpha": 0.1, "beta": 1.0}, (0.1, 1.0)), ({"beta": 0}, (0.3, 0.0))],
)
def test_logits_against_the_formulas(supervision, branch, asked, share):
    """Equation 9 and what the released code does of it, written out."""
    own = segmenter(supervision=supervision, clip_branch=branch)
    pixels, words = torch.rand(1, 3, 64, 64), "cube, ball; sea"
    with torch.inference_mode():
        sought = own.sought(words, **asked)
        found, masks = own.logits(pixels, sought)
        out = own.masks(pixels, last_only=True)
        z = F.normalize(out.embeddings[-1], dim=-1)
        names = F.normalize(own.words.project(sought.texts), dim=-1)
        cosines = out.scale * z @ names.T
        scores = torch.stack([cosines[..., :2].amax(-1), cosines[..., 2]], -1)
        if supervision == "labels":
            null = F.normalize(own.words.project(own.words.get_parameter("null_embed")), dim=-1)
            null = null.reshape(1, 1, -1)
            full = torch.cat([scores, out.scale * (z * null).sum(-1, keepdim=True)], -1)
            nothing = full.softmax(-1)[..., -1:]
        else:
            nothing = out.logits[-1].softmax(-1)[..., 1:]
        p = scores.softmax(-1)
        if branch != "none":
            seen = mask_embeddings(own.clip["image"], 2 * pixels - 1, masks, branch=branch)
            near = F.normalize(seen, dim=-1) @ F.normalize(sought.clip_texts, dim=-1).T
            q = (100 * torch.stack([near[..., :2].amax(-1), near[..., 2]], -1)).softmax(-1)
            p = (p ** (1 - torch.tensor(share)) * q ** torch.tensor(share)).log().softmax(-1)
    want = torch.cat([p * (1 - nothing), nothing], -1)
    torch.testing.assert_close(found.softmax(-1), want / want.sum(-1, keepdim=True),
                               rtol=1e-3, atol=1e-4)  # fmt: skip


def test_several_vocabularies_of_one_look(model):
    asked = ["cube, box; ring", Vocabulary.parse("sky"), model.sought("cube; sea")]
    plain = model.sought("cube; sea")._replace(clip_texts=None)
    found = model.each(picture(), [*asked, plain])
    for one, vocabulary in zip(found, asked, strict=False):
        alone = model.panoptic(picture(), vocabulary)
        np.testing.assert_array_equal(one.ids, alone.ids)
        np.testing.assert_array_equal(one.classes, alone.classes)
        assert one.instances == alone.instances
    figure = vocabularies_figure({"cube, box; ring": found[0], "sky": found[1]})
    assert [text.get_text() for text in figure.texts].count("image") == 2
    assert {"cube, box; ring", "sky"} <= {text.get_text() for text in figure.texts}
    no_branch = OpenPanopticSegmenter(replace(model.config, clip_branch="none")).eval()
    no_branch.load_state_dict(model.state_dict())
    scores = [  # the untrained model's classes are as good as tied
        [instance.score for instance in result.instances]
        for result in (found[-1], no_branch(picture(), "cube; sea"))
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)


def test_a_figure_of_vocabularies_names_categories_once():
    ids = np.array([[1, 1, 1, 2], [3, 3, 3, 3]], np.int32)
    segments = tuple(Segment(i, category) for i, category in ((1, 1), (2, 1), (3, 0)))
    result = PanopticResult(
        np.zeros((2, 4, 3), np.uint8), ids, segments, np.zeros((2, 4), np.uint8),
        ("floor", "ball", "ring"), (False, True, True),
    )  # fmt: skip
    written = [text.get_text() for text in vocabularies_figure({"typed": result}).texts]
    assert written == ["typed", "image", "segments", "floor 50%", "ball x2 50%"]


def test_an_image_without_objects(model):
    """All masks fall below what is asked for."""
    for size in [(64, 64), (9, 200)]:
        found = model(np.zeros((*size, 3), np.uint8), "cube; ring", min_score=1.0)
        assert (found.segments, found.ids.max(), found.ids.shape) == ((), 0, size)
        assert "0 segments" in repr(found)
        assert found.show() is not None


def test_pictures_of_any_size(model):
    for size in [(1, 1), (33, 200), (64, 64)]:
        found = model(picture(*size), "cube")
        assert found.ids.shape == size
    small = scaled(picture(50, 70), 64 / 50)
    assert small.shape[-2:] == (64, 90)


def test_what_learns(model):
    names = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert names == {"adapter", "backbone", "head", "words"}


def test_a_model_comes_back_from_disk(model, tmp_path):
    again = vpd.load(store.save(model, tmp_path / "m", dtype=torch.float32))
    assert isinstance(again, vpd.OpenPanopticSegmenter)
    assert asdict(again.config) == asdict(model.config)
    one, two = model(picture(), "cube; ring"), again(picture(), "cube; ring")
    np.testing.assert_array_equal(one.ids, two.ids)
    np.testing.assert_array_equal(one.classes, two.classes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"supervision": "both"}, "supervision"),
        ({"clip_branch": "some"}, "clip_branch"),
        ({"alpha": 1.5}, "alpha"),
        ({"test_size": 200}, "test_size <= max_size"),
        ({"text": PARTS["text"]}, "one projection_dim"),
        ({"image": None, "captioner": "none"}, "one projection_dim"),
    ],
)
def test_configs_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        OpenPanopticConfig(**{**SMALL, **change})


def test_a_model_without_categories_needs_words():
    own = segmenter(categories=(), things=())
    assert own(picture(), "cube").names == ("cube",)
    with pytest.raises(ValueError, match="at least one category"):
        own(picture())
    assert replace(own.config, categories=(("a",),)).categories == (("a",),)
