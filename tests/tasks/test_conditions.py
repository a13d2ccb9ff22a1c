"""What the U-Net of a segmenter is told: six conditions, against what they are made of."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor

import vpd
from vpd.data import tabletop
from vpd.images import to_network
from vpd.models.clip_image import clip_pixels
from vpd.models.clip_text import CLIPTextEncoder
from vpd.tasks import store
from vpd.tasks.conditions import padded
from vpd.tasks.dense import Context
from vpd.tasks.evaluate_dense import evaluate_semantic
from vpd.tasks.words import present, words_of
from vpd.tokens import tokenize

NAMES = ("wall", "floor", "cube", "ball", "ring")
TEXT, IMAGE = tiny.PARTS["text"], tiny.CLIP.image
LENGTH = 16
ADAPTER = vpd.TaggingAdapterConfig(
    dim=32, text_dim=32, image_dim=IMAGE.hidden_size, queries=6, blocks=1, heads=4, hidden=48
)
TAGGING = {"condition": "tagging", "image": IMAGE, "tagging": ADAPTER}
KINDS = {
    "uncond": {"condition": "uncond"},
    "caption": {"condition": "caption", "text": TEXT},
    "classes": {"condition": "classes"},
    "implicit": {"condition": "implicit", "image": IMAGE},
    "implicit mlp": {"condition": "implicit", "image": IMAGE, "captioner": "mlp"},
    "tagging": TAGGING,
    "tagging by tags": {**TAGGING, "tag_source": "tags", "text": TEXT},
    "tagging, no image": {**TAGGING, "image": None, "tagging": replace(ADAPTER, image_dim=None)},
    "tagging, no text": {**TAGGING, "tag_source": "none",
                         "tagging": replace(ADAPTER, text_dim=None)},
    "oracle": {"condition": "oracle", "attention": ()},
}  # fmt: skip
WORDS = {
    "caption": "a small red cube",
    "tagging by tags": ["red cube", "ball"],
    "oracle": ("ball", "wall"),
}
TOKENS = {"uncond": LENGTH, "caption": LENGTH, "classes": 5, "implicit": LENGTH, "tagging": 6}


def segmenter(kind: str, **changes) -> vpd.SemanticSegmenter:
    """One whose U-Net listens, and whose adapters say something."""
    torch.manual_seed(0)
    parts = {name: tiny.PARTS[name] for name in ("unet", "vae", "scale_factor")}
    fields = {"classes": NAMES, "channels": 16, "image_size": 64, "stride": 43,
              "token_length": LENGTH, **KINDS[kind], **changes}  # fmt: skip
    model = vpd.SemanticSegmenter(vpd.SemanticConfig(**parts, **fields)).eval()
    with torch.no_grad():
        for buffer in model.own_buffers():
            buffer.normal_()
        for parameter in [
            *model.unet.parameters(),
            *getattr(model, "adapter", model.head).parameters(),
        ]:
            if not parameter.any():
                parameter.normal_(0, 0.2)
    return model


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixels(count: int = 2) -> Tensor:
    return torch.cat([to_network(picture(64, 64)[:: 1 - 2 * i], 64) for i in range(count)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_reads_what_the_unet_says_under_the_context(kind):
    model, image = segmenter(kind), pixels()
    words = [WORDS.get(kind)] * 2
    with torch.no_grad():
        context = model.context(words, model.look(image))
        latents = model.encode_image(image)
        out = model.attend(latents, context)
        plain = model.unet(
            latents, 1, context.states.expand(2, -1, -1), context_mask=context.mask,
            time_bias=context.time_bias, taps=vpd.Taps(attention=model.config.attention),
        )  # fmt: skip
        tokens, mask = model.condition.states(model, words)
        found = model.logits(image, tokens, mask)
        scores = F.interpolate(model.scores(plain), (64, 64), mode="bilinear")
    for one, other in zip(out.features, plain.features, strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(found, scores, rtol=1e-4, atol=1e-5)
    assert context.states.shape[1] == TOKENS.get(kind.split(",")[0].split(" ")[0], 2)


def test_unconditional_and_classes():
    model = segmenter("uncond")
    assert torch.equal(model.context([None]).states[0], model.empty_states)
    model = segmenter("classes")
    want = model.adapter(model.class_embeddings)
    assert torch.equal(model.context([None]).states[0], want)
    assert not torch.equal(want, model.class_embeddings)
    model = segmenter("classes", text_adapter=False)
    assert torch.equal(model.context([None]).states[0], model.class_embeddings)


def test_captions_are_read_by_the_text_encoder():
    model = segmenter("caption")
    captions = ["a small red cube", "a ball behind a cube and a large thing", None]
    with torch.no_grad():
        found = model.context(captions).states
        ids = tokenize(["" if c is None else c for c in captions], length=LENGTH).ids
        assert torch.allclose(found, model.text(ids).hidden, atol=1e-6)
    with pytest.raises(ValueError, match=r"must be a caption, got \['a'\]"):
        model.context([["a"]])


def test_an_oracle_is_told_the_classes_in_the_label():
    model = segmenter("oracle")
    said = [("ring", 0), (np.uint8(2),), (), ("ball", "ball", "wall", "cube")]
    context = model.context(said)
    rows = [[0, 4], [2], None, [0, 2, 3]]
    assert context.mask.sum(1).tolist() == [2, 1, 1, 3]
    for states, mask, ids in zip(context.states, context.mask, rows, strict=True):
        want = model.empty_embedding if ids is None else model.class_embeddings[ids]
        assert torch.equal(states[mask], want)
    for words, message in (
        (None, "is told which classes a picture's label has"),
        ("wall", "names or ids, got 'wall'"),
        (("sofa",), "expected some of wall, floor, cube, ball, ring, got 'sofa'"),
        ((5,), "got 5"),
    ):
        with pytest.raises(ValueError, match=message):
            model.context([words])


def test_padding_of_an_oracle_tells_nothing():
    """Pictures of different class sets in one batch say what each says alone."""
    model, image = segmenter("oracle"), pixels()
    said = [("ball",), ("wall", "cube", "ring")]
    with torch.no_grad():
        tokens, mask = model.condition.states(model, said)
        both = model.logits(image, tokens, mask)
        for i, words in enumerate(said):
            alone = model.logits(image[i : i + 1], *model.condition.states(model, [words]))
            torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-4, atol=1e-5)
        other = model.logits(image[:1], *model.condition.states(model, [("floor",)]))
    assert not torch.allclose(both[:1], other, atol=1e-4)


@pytest.mark.parametrize("kind", ["implicit", "tagging"])
def test_the_image_encoder_sees_the_picture_squashed(kind):
    model, image = segmenter(kind), torch.rand(2, 3, 40, 56) * 2 - 1
    found = model.look(image)
    side = IMAGE.image_size
    small = F.interpolate(
        image, (side, side), mode="bicubic", align_corners=False, antialias=kind == "tagging"
    )
    out = model.clip["image"](clip_pixels(small))
    want = out.projected if kind == "implicit" else out.hidden
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    assert not found.requires_grad
    exact = torch.rand(1, 3, side, side) * 2 - 1
    want = model.clip["image"](clip_pixels(exact))
    want = want.projected if kind == "implicit" else want.hidden
    torch.testing.assert_close(model.look(exact), want, rtol=1e-5, atol=1e-5)


def test_implicit_context_and_time():
    model, image = segmenter("implicit"), pixels()
    seen = model.look(image)
    context = model.context([None, None], seen)
    want = model.adapter(seen, model.empty_states)
    assert torch.equal(context.states, want.context)
    assert torch.equal(context.time_bias, want.time_bias)
    latents = model.encode_image(image)
    with torch.no_grad():
        plain = model.attend(latents, Context(context.states)).features[0]
        moved = model.attend(latents, context).features[0]
    assert not torch.allclose(plain, moved, atol=1e-4)


def test_tagging_reads_classes_or_tags():
    model, image = segmenter("tagging"), pixels()
    seen = model.look(image)
    context = model.context([None, None], seen)
    text = model.class_embeddings.expand(2, -1, -1)
    want = model.adapter(text, seen, classes=model.class_embeddings)
    assert torch.equal(context.states, want.context)
    assert torch.equal(context.tags, want.logits)

    model = segmenter("tagging by tags")
    said = [["red cube", "ball", "red cube", " "], [("ball", 0.7)], [], None]
    tokens, mask = model.condition.states(model, said)
    assert mask.sum(1).tolist() == [2, 1, 1, 1]

    def pooled(text: str) -> Tensor:
        return model.text(tokenize([text], length=64).ids).pooled[0]

    with torch.no_grad():
        cube, ball = pooled("a photo of a red cube."), pooled("a photo of a ball.")
        for row, want in (
            (tokens[0], [cube, ball]),
            (tokens[1], [ball]),
            (tokens[2], [pooled("")]),
        ):
            for got, one in zip(row, want, strict=False):
                torch.testing.assert_close(got, one, rtol=1e-5, atol=1e-5)
    assert torch.equal(tokens[2], tokens[3])
    with pytest.raises(ValueError, match="must be a list of tags"):
        model.context(["red cube"])
    # Embeddings of tags that are known belong to the weights that made them.
    with torch.no_grad():
        for parameter in model.text.parameters():
            parameter.mul_(1.1)
    again, _ = model.condition.states(model, [["ball"]])
    torch.testing.assert_close(again[0, 0], pooled("a photo of a ball.").detach())
    assert not torch.allclose(again[0, 0], ball)


def test_what_inference_has_met_serves_training():
    model = segmenter("tagging by tags")
    model(picture(40, 40), words=["cube"])
    seen = model.look(pixels(1))
    model.context([["cube"]], seen).tags.sum().backward()
    assert model.adapter.queries.grad is not None


def test_many_unknown_and_no_tags():
    model, image = segmenter("tagging by tags"), picture(50, 64)
    many = model(image, states=torch.randn(5000, 32))
    assert many.classes.shape == (50, 64)
    none = model(image, words=[])
    assert np.array_equal(model(image).probability, none.probability)
    odd = model(image, words=["szczęśliwy", "🪑", "x" * 500])
    assert not np.array_equal(odd.probability, none.probability)
    states = torch.randn(7, 32)
    given = model(image, states=states)
    assert not np.array_equal(given.probability, none.probability)
    with pytest.raises(ValueError, match="both given"):
        model(image, states=states, words=[])


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_loaded_and_called(kind, tmp_path):
    model, words = segmenter(kind), WORDS.get(kind)
    store.save(model, tmp_path, dtype=torch.float32)
    again = vpd.load(tmp_path)
    assert again.config == model.config
    image = picture(70, 90)
    result = model(image, words=words)
    assert np.array_equal(again(image, words=words).classes, result.classes)
    assert result.oracle == (kind == "oracle")
    assert ("told its label's classes" in repr(result)) == (kind == "oracle")
    if words is None:
        with pytest.raises(ValueError, match="takes no words about a picture, got 'cube'"):
            model(image, words="cube")


def test_a_shipped_image_encoder_is_not_stored_twice(tmp_path, monkeypatch):
    base = tiny.foundation(clip=True)
    monkeypatch.setattr(store, "_ZOO", tmp_path / "zoo")
    store.save(base, tmp_path / "zoo" / "mini")
    model = segmenter("tagging by tags")
    model.clip["image"].load_state_dict(base.clip.image.state_dict())
    model.text.load_state_dict(base.text.state_dict())
    store.save(model, tmp_path / "own", foundation="mini")
    kept = vpd.weights.read_state_dict(tmp_path / "own" / "model.safetensors")[0]
    assert not any(name.startswith(("clip.", "text.")) for name in kept)
    found = vpd.load(tmp_path / "own").state_dict()
    for name, tensor in model.state_dict().items():
        if name.startswith(("clip.", "text.")):
            assert torch.equal(found[name], tensor.half().float()), name


def test_where_the_adapter_looks_for_each_class():
    model, image = segmenter("tagging"), picture(50, 90)
    found = model.tags(image)
    seen = model.look(to_network(image, 64))
    out = model.adapter(
        model.class_embeddings[None], seen, classes=model.class_embeddings, attention=True
    )
    np.testing.assert_allclose(found.scores, out.logits[0].sigmoid().detach(), rtol=1e-5)
    side = IMAGE.image_size // IMAGE.patch_size
    assert found.attention.shape == (5, side, side)
    for k in range(5):
        shares = (out.context[0] @ model.class_embeddings[k]).clamp(min=0)
        want = (shares[:, None] * out.image_attention[0, :, 1:]).sum(0)
        want = want / want.sum() if want.any() else want
        want = want.reshape(side, side).detach().numpy()
        np.testing.assert_allclose(found.attention[k], want, rtol=1e-4, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):  # as a validation between training steps
        half = model.tags(image)
    np.testing.assert_allclose(half.scores, found.scores, atol=0.02)
    np.testing.assert_allclose(half.attention, found.attention, atol=0.02)
    assert found.top(2)[0][1] == found.scores.max()
    assert found.show()._repr_png_().startswith(b"\x89PNG")
    assert segmenter("tagging, no image").tags(image).attention is None
    with pytest.raises(ValueError, match="tags need condition=tagging, this model has classes"):
        segmenter("classes").tags(image)


def test_words_of_rendered_scenes_and_of_files(tmp_path):
    samples = tabletop.semantic(tiny.val_scenes(3))
    ids = present(samples[0], 255)
    assert list(ids) == sorted(set(samples[0].read_label().ravel().tolist()))
    oracle = words_of("oracle", "all_classes", samples)
    assert oracle(samples[0]) == ids
    captions = words_of("caption", "all_classes", samples)
    assert captions(samples[1]) == words_of("caption", "all_classes", samples)(samples[1])
    assert any(shape in captions(samples[1]) for shape in (*tabletop.SHAPES, "thing", "object"))
    tags = words_of("tagging", "tags", samples)
    scene = samples.source.scene(2)
    assert set(tags(samples[2])) == set(tabletop.tags(scene))
    assert words_of("tagging", "all_classes", samples) is None
    assert words_of("uncond", "tags", samples) is None

    said = {sample.id: {"captions": [f"picture {sample.id}", "another"]} for sample in samples}
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(said))
    captions = words_of("caption", "all_classes", samples, path)
    assert captions(samples[1]) == f"picture {samples[1].id}"
    assert captions.source == str(path)
    path.write_text(json.dumps({sample.id: {"tags": []} for sample in samples}))
    assert words_of("tagging", "tags", samples, path)(samples[1]) == ()
    with pytest.raises(ValueError, match="condition=uncond reads neither captions nor tags"):
        words_of("uncond", "tags", samples, path)
    disk = type("Disk", (), {"name": "ade20k"})()
    with pytest.raises(ValueError, match=r"captions of the pictures are needed, .* got ade20k"):
        words_of("caption", "all_classes", disk)


@pytest.mark.parametrize("kind", ["caption", "tagging by tags", "oracle", "uncond"])
def test_evaluation_tells_each_picture_its_own(kind):
    model, samples = segmenter(kind), tabletop.semantic(tiny.val_scenes(2))
    model = vpd.SemanticSegmenter(replace(model.config, classes=tabletop.CLASSES)).eval()
    found = evaluate_semantic(model, samples, progress=False)
    words = words_of(model.config.condition, model.config.tag_source, samples)
    metrics = vpd.metrics.SemanticMetrics(8, 255)
    for sample in samples:
        image, label = sample.read()
        metrics.update(model(image, words=words and words(sample)).classes, label)
    assert found.metrics["mIoU"] == pytest.approx(metrics.compute()["mIoU"])
    assert found.protocol["condition"] == model.config.condition
    assert found.protocol["oracle"] == (kind == "oracle")
    assert found.metrics.get("oracle", 0.0) == float(kind == "oracle")
    assert ("ORACLE" in found.table()) == (kind == "oracle")
    assert ("tags/mAP" in found.metrics) == (found.tags is not None) == ("tagging" in kind)
    if found.tags is not None:
        assert found.tags.compute()["mAP"] == found.metrics["tags/mAP"]
    assert (found.protocol["words"] is None) == (kind == "uncond")


def test_padded():
    rows = [torch.ones(2, 3), torch.full((1, 3), 2.0)]
    tokens, mask = padded(rows)
    assert tokens.tolist() == [[[1] * 3, [1] * 3], [[2] * 3, [0] * 3]]
    assert mask.tolist() == [[True, True], [True, False]]
    assert padded(rows[:1] * 2)[1] is None


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("classes", {"condition": "class"}, "condition must be one of .* got 'class'"),
        ("oracle", {"attention": (2, 4)}, r"attention must be \(\) with condition=oracle"),
        ("caption", {"text": None}, "text: condition=caption needs one of 32 channels"),
        ("implicit", {"image": None}, "image: condition=implicit needs one, got none"),
        ("implicit", {"image": replace(IMAGE, projection_dim=None)}, "needs one, got none"),
        ("tagging", {"tagging": None}, "tagging: condition=tagging needs one of 32 channels"),
        ("tagging", {"image": None}, f"must be 32 and None .* got 32 and {IMAGE.hidden_size}"),
        ("tagging", {"tag_source": "none"}, "must be None and"),
        ("tagging", {"tag_source": "tags"}, "text: condition=tagging needs one"),
        ("tagging", {"tag_source": "tag"}, "tag_source must be one of"),
    ],
)  # fmt: skip
def test_configs_that_cannot_be(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        segmenter(kind, **changes)


def test_the_text_encoder_of_a_model_is_its_own():
    assert isinstance(segmenter("caption").text, CLIPTextEncoder)
    assert not hasattr(segmenter("classes"), "text")
