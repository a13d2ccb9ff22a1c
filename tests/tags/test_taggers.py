"""Taggers: files of tags and captions, CLIP, models of others, Tabletop's truth."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import dense_toys
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from PIL import Image

import vpd
from vpd.data import tabletop
from vpd.models.clip import CLIP, CLIPConfig
from vpd.tags import (
    CachedTagger,
    ClipTagger,
    RamTagger,
    TabletopTagger,
    TagSet,
    read_captions,
    read_clip,
    tag_attention,
    write_tags,
)

WIDTH = 64  # of one head, as in all published models
SMALL = CLIPConfig(
    replace(
        tiny.PARTS["text"],
        hidden_size=WIDTH, num_attention_heads=1, projection_dim=12, vocab_subset=(),
    ),
    vpd.CLIPImageConfig(
        hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=1,
        image_size=24, patch_size=8, projection_dim=12,
    ),
    token_length=64,
)  # fmt: skip


def picture(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def clip():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = CLIP(SMALL)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, 0, 0.3)
    return model.eval()


@dataclass
class OnDisk:
    """As a sample of a data set on disk."""

    image_path: Path
    id: str = "another name"


@dataclass
class Rendered:
    id: str


FORMS = {
    "a/one.png": {"tags": ["cube", "ball", "cube"], "scores": [0.5, 0.9, 0.7]},
    "two.jpg": " ball | red cube |",
    "b/three.png": {"tags": "cone|ring", "caption": "a cone"},
    "c/three.jpg": ["cube"],
    "empty.png": {"tags": [], "scores": []},
    "3000000": "wall",
}


@pytest.fixture
def cache(tmp_path):
    path = tmp_path / "tags.json"
    path.write_text(json.dumps(FORMS))
    return path


def test_tags_of_every_form(cache):
    tagger = CachedTagger(cache)
    assert tagger.tags("a/one.png") == [("ball", 0.9), ("cube", 0.7)]
    assert tagger.tags("two.jpg") == [("ball", 1.0), ("red cube", 1.0)]
    assert tagger.tags("b/three.png") == [("cone", 1.0), ("ring", 1.0)]
    assert tagger.tags("c/three.jpg") == [("cube", 1.0)]
    assert tagger.tags("empty.png") == []
    assert tagger.names == ("ball", "cone", "cube", "red cube", "ring", "wall")


def test_pictures_are_found_by_their_names(cache):
    tagger = CachedTagger(cache)
    one = tagger.tags("a/one.png")
    for name in ("/data/a/one.png", "one.png", Path("one.jpg"), OnDisk(Path("/x/a/one.png"))):
        assert tagger.tags(name) == one, name
    assert tagger.tags(Rendered("3000000")) == [("wall", 1.0)]
    assert tagger.tags(Path("3000000.png")) == [("wall", 1.0)]
    with pytest.raises(ValueError, match=r"could be 'b/three.png' or 'c/three.jpg'"):
        tagger.tags("x/three.bmp")
    with pytest.raises(ValueError, match=r"tags\.json: nothing for 'x.png' among 6 pictures"):
        tagger.tags("x.png")
    with pytest.raises(TypeError, match="pixels have no name"):
        tagger.tags(picture())


def test_captions(tmp_path):
    path = tmp_path / "captions.json"
    said = {"a.png": {"captions": ["one", "two"]}, "b.png": {"tags": "x", "caption": "c"}, "c": "d"}
    path.write_text(json.dumps(said))
    table = read_captions(path)
    assert table.of("dir/a.png") == ("one", "two")
    assert [table.of(name) for name in ("b.jpg", "c")] == [("c",), ("d",)]
    assert list(table) == list(said)
    path.write_text('{"a.png": {"tags": "x"}}')
    images = [{"id": 7, "file_name": "7.jpg"}, {"id": 9, "file_name": "9.jpg"}]
    rows = [{"image_id": 7, "caption": "one"}, {"image_id": 7, "caption": "two"}]
    path.write_text(json.dumps({"images": images, "annotations": rows}))
    assert dict(read_captions(path)) == {"7.jpg": ("one", "two")}
    beside = [{"image_id": 9, "segments_info": [], "coco_captions": ["a", "b"]}]
    path.write_text(json.dumps({"images": images, "annotations": beside}))
    assert dict(read_captions(path)) == {"9.jpg": ("a", "b")}
    path.write_text(json.dumps({"images": images, "annotations": [{"image_id": 7}]}))
    with pytest.raises(ValueError, match="expected captions of COCO, but 'caption' is missing"):
        read_captions(path)
    path.write_text(json.dumps(said | {"a.png": 3}))
    with pytest.raises(ValueError, match=r"'a\.png': expected captions"):
        read_captions(path)


def test_what_is_written_is_read(tmp_path):
    tags = {"ü.png": [("cube", 0.123456789), ("ball", 0.1)], "b.png": []}
    tagger = CachedTagger(write_tags(tmp_path / "new" / "t.json", tags))
    assert tagger.tags("ü.png") == [("cube", 0.123457), ("ball", 0.1)]
    assert tagger.tags("b.png") == []


@pytest.mark.parametrize(
    "said",
    [
        "", "[1]", "3", '{"a": 3}', '{"a": {"tags": [1]}}', '{"a": {"tags": ["x", " "]}}',
        '{"a": {"tags": ["x"], "scores": []}}', '{"a": {"tags": ["x"], "scores": [NaN]}}',
        '{"a": {"tags": ["x"], "scores": ["y"]}}', '{"a": {"scores": [1]}}', "[" * 100_000,
    ],
    ids=range(11),
)  # fmt: skip
def test_damaged_files(tmp_path, said):
    (tmp_path / "t.json").write_text(said)
    with pytest.raises(ValueError, match=r"t\.json.*expected"):
        CachedTagger(tmp_path / "t.json")


def test_clip_scores_are_cosines(clip):
    tags = TagSet(["cube", "ball; sphere"], templates_=["a {}", "the {}"])
    tagger = ClipTagger(clip, tags)
    found = tagger.scores(picture())
    small = Image.fromarray(picture()).resize((24, 24), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(small).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        image = clip.embed_images(pixels)[0]
        cube = clip.embed_text(["a cube", "the cube"]).mean(0)
        ball = clip.embed_text(["a ball", "the ball", "a sphere", "the sphere"]).mean(0)
    expected = [float(F.cosine_similarity(image, one, dim=0)) for one in (cube, ball)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert float(found[0] - found[1]) != 0
    order = sorted(zip(tags.names, found.tolist(), strict=True), key=lambda tag: -tag[1])
    assert tagger.tags(picture()) == order
    assert ClipTagger(clip, tags, top=1).tags(picture()) == order[:1]
    middle = sum(score for _, score in order) / 2
    assert ClipTagger(clip, tags, top=None, threshold=middle).tags(picture()) == order[:1]
    for options in ({"top": None}, {"top": 0}):
        with pytest.raises(ValueError, match="top"):
            ClipTagger(clip, tags, **options)


def test_clip_from_one_file(clip, tmp_path):
    state = {
        **clip.text.state_dict(),
        **clip.image.state_dict(),
        "logit_scale": torch.tensor(3.5),
    }
    vpd.save_weights(state, tmp_path / "clip.safetensors")
    read = read_clip(tmp_path / "clip.safetensors")
    assert read.config == SMALL
    assert read.logit_scale.item() == 3.5
    tags = TagSet(["cube", "ring"])
    found = ClipTagger(read, tags).scores(picture())
    assert torch.equal(found, ClipTagger(clip, tags).scores(picture()))
    vpd.save_weights(clip.text, tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match=r"text\.safetensors: expected both towers of CLIP"):
        read_clip(tmp_path / "text.safetensors")


def test_a_model_of_logits():
    seen = []

    def model(pixels):
        seen.append(pixels)
        return torch.tensor([[2.0, 0.0, 5.0]])

    tags = TagSet(["cube", "ball", "ring"], thresholds=[0.9, 0.4, 0.9])
    said = RamTagger(model, tags, size=32).tags(picture())
    assert [name for name, _ in said] == ["ring", "ball"]
    assert [score for _, score in said] == pytest.approx([0.9933071, 0.5])
    small = Image.fromarray(picture()).resize((32, 32), Image.Resampling.BILINEAR)
    unit = torch.from_numpy(np.array(small).copy()).double().permute(2, 0, 1) / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).double().view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).double().view(3, 1, 1)
    assert torch.allclose(seen[0][0].double(), (unit - mean) / std, atol=1e-5)
    assert RamTagger(model, tags).pixels(picture()).shape == (1, 3, 384, 384)
    with pytest.raises(ValueError, match="needs tags"):
        RamTagger(model)
    with pytest.raises(ValueError, match=r"expected logits \[1, 1\], got \[1, 3\]"):
        RamTagger(model, TagSet(["cube"])).tags(picture())


def test_a_model_that_says_words():
    class Ram:
        def generate_tag(self, pixels):
            assert pixels.shape == (1, 3, 384, 384)
            return ["table | red cube | wall"], ["..."]

    said = RamTagger(Ram()).tags(picture())
    assert said == [("table", 1.0), ("red cube", 1.0), ("wall", 1.0)]
    assert RamTagger(Ram(), TagSet(["Wall", "ball"])).tags(picture()) == [("wall", 1.0)]


@pytest.fixture(scope="module")
def samples():
    return tabletop.semantic(dense_toys.Split("val", 4))


def test_tabletop_truth(samples):
    tagger = TabletopTagger()
    for i, sample in enumerate(samples):
        expected = tabletop.tags(tabletop.render(3_000_000 + i))
        assert len(expected) > 5
        assert tagger.truth(sample) == expected
        assert tagger.tags(sample) == [(name, 1.0) for name in expected]
    seed = samples[0].id
    same = [seed, Path(f"x/ADE_val_0{seed}.png"), tabletop.render(int(seed)), Rendered(seed)]
    assert all(tagger.tags(name) == tagger.tags(samples[0]) for name in same)
    shapes = TabletopTagger(["ring", "cube"])
    assert set(shapes.truth(samples[1])) == set(tagger.truth(samples[1])) & {"ring", "cube"}
    with pytest.raises(ValueError, match="number of a scene"):
        tagger.tags("image.png")
    with pytest.raises(TypeError, match="pixels"):
        tagger.tags(picture())
    with pytest.raises(ValueError, match="'elf' is none"):
        TabletopTagger(["elf"])
    with pytest.raises(ValueError, match=r"miss must be in \[0, 1\], got 2"):
        TabletopTagger(miss=2)


def names(tagger, sample) -> set[str]:
    return {name for name, _ in tagger.tags(sample)}


def test_tabletop_errors_are_as_frequent_as_asked():
    """Over pictures without objects that could be seen, every tag is a false alarm; the rate of a
    mean of n draws is off by less than 4 standard deviations."""

    @dataclass
    class Spec:
        seed: int

    @dataclass
    class Scene:
        spec: Spec
        objects: tuple = ()

    rate, count = 0.1, 200
    wrong = TabletopTagger(false_alarm=rate)
    said = [len(wrong.tags(Scene(Spec(i)))) for i in range(count)]
    n = count * len(tabletop.TAGS)
    assert abs(sum(said) / n - rate) < 4 * (rate * (1 - rate) / n) ** 0.5
    full = tabletop.render(3_000_000)
    true = len(TabletopTagger().truth(full))
    missing = TabletopTagger(miss=0.3)
    kept = sum(len(missing.tags(replace_seed(full, i))) for i in range(count))
    n = count * true
    assert abs(kept / n - 0.7) < 4 * (0.21 / n) ** 0.5


def replace_seed(scene, seed):
    return replace(scene, spec=replace(scene.spec, seed=seed))


def test_tabletop_errors_are_fixed_and_nested(samples):
    sample = samples[2]
    true = names(TabletopTagger(), sample)
    assert names(TabletopTagger(miss=1), sample) == set()
    assert names(TabletopTagger(false_alarm=1), sample) == set(tabletop.TAGS)
    rates = (0.1, 0.4, 0.7)
    less, more, most = (names(TabletopTagger(miss=r, false_alarm=r), sample) for r in rates)
    assert less == names(TabletopTagger(miss=0.1, false_alarm=0.1), sample)
    assert true - less <= true - more <= true - most
    assert less - true <= more - true <= most - true
    again = [names(TabletopTagger(miss=0.5, seed=s), sample) for s in range(5)]
    assert len({frozenset(one) for one in again}) > 1


def test_results_show_and_save(tmp_path, samples):
    result = TabletopTagger(false_alarm=0.1)(samples[0], truth=["ball", "elf"])
    assert np.array_equal(result.image, samples[0].read_image())
    assert result.names == tuple(name for name, _ in result.tags)
    assert "tags: " in repr(result)
    said = json.loads(result.save(tmp_path / "t.json").read_text())
    assert said == {"tags": list(result.names), "scores": [1.0] * len(result.tags)}
    assert cv2.imread(str(result.save(tmp_path / "t.figure.png"))) is not None
    with pytest.raises(ValueError, match=r"t\.npz: expected a name ending in"):
        result.save(tmp_path / "t.npz")


def test_attention_of_tags_is_the_queries_weighted():
    tags, image = torch.rand(5, 3).softmax(1), torch.rand(5, 13).softmax(1)
    tags[:, 1] = 0  # a tag that nobody reads
    found = tag_attention(tags, image, (3, 4))
    assert found.shape == (3, 3, 4)
    for t in (0, 2):
        want = sum(float(tags[q, t]) * image[q, 1:] for q in range(5))
        assert torch.allclose(found[t].flatten(), want / want.sum(), atol=1e-6)
    assert not found[1].any()
    assert torch.equal(tag_attention(tags, image[:, 1:], (3, 4)), found)
    with pytest.raises(ValueError, match="expected 9 image tokens, or one more"):
        tag_attention(tags, image, (3, 3))
    with pytest.raises(ValueError, match="of the same queries"):
        tag_attention(tags[:4], image, (3, 4))
