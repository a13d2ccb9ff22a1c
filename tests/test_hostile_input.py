"""Whatever comes in, a task model gives a whole answer of the input's size, or one clear error."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tiny
import torch

import vpd
from vpd.cli import main
from vpd.tasks import store


@pytest.fixture(scope="module", params=["tiny", "vpd-mini-refer"])
def model(request):
    if request.param == "tiny":
        return tiny.segmenter()
    return vpd.load(request.param)


def noise(*shape, dtype=np.uint8):
    rng = np.random.default_rng(0)
    if np.issubdtype(dtype, np.floating):
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def whole(found, height, width):
    assert found.probability.shape == found.mask.shape == (height, width)
    assert found.image.shape == (height, width, 3)
    assert found.probability.dtype == np.float32
    assert found.mask.dtype == bool
    assert np.isfinite(found.probability).all()
    assert 0 <= found.probability.min() <= found.probability.max() <= 1
    assert all(np.isfinite(maps).all() for maps in found.attention.strides.values())


IMAGES = {
    "one pixel": noise(1, 1, 3),
    "one row": noise(1, 5000, 3),
    "one column": noise(5000, 1, 3),
    "grey": noise(30, 50),
    "grey with a channel": noise(30, 50, 1),
    "transparent": noise(30, 50, 4),
    "16 bit": noise(30, 50, 3, dtype=np.uint16),
    "floats": noise(30, 50, 3, dtype=np.float64),
    "half floats": noise(30, 50, 3, dtype=np.float16),
    "black": np.zeros((30, 50, 3), np.uint8),
    "not contiguous": noise(60, 100, 3)[::2, ::-2],
}


@pytest.mark.parametrize("name", IMAGES)
def test_arrays(model, name):
    image = IMAGES[name]
    whole(model(image, "the red cube"), *image.shape[:2])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_tensors(model, dtype):
    image = torch.from_numpy(noise(3, 30, 50))
    image = image if dtype == torch.uint8 else (image / 255).to(dtype)
    whole(model(image, "the red cube"), 30, 50)


@pytest.mark.parametrize("name", ["grey", "transparent", "16 bit", "one row"])
def test_files(model, name, tmp_path):
    path = str(tmp_path / "picture \u00e4\U0001f355.png")
    (tmp_path / "picture \u00e4\U0001f355.png").write_bytes(
        cv2.imencode(".png", IMAGES[name])[1].tobytes()
    )
    whole(model(path, "the red cube"), *IMAGES[name].shape[:2])


@pytest.mark.parametrize(
    "text",
    [
        "cube",
        "THE RED CUBE!!!",
        "cube " * 500,
        "\U0001f9ca\U0001f534 \u7d05\u3044\u7acb\u65b9\u4f53",
        "<end_of_text> cube <start_of_text>",
        "&nbsp;",
        "\x00\x07\ud800 cube",
        "$\\frac{1}{2}$ %s {}",
        "x" * 5000,
    ],
)
def test_sentences(model, text, tmp_path):
    found = model(noise(30, 50, 3), text)
    whole(found, 30, 50)
    assert found.truncated == (len(text) > 1000)
    found.save(tmp_path / "a.figure.png")


def test_sentences_together_equal_sentences_alone(model):
    image, texts = noise(30, 50, 3), ["the red cube", "cube " * 500, "\U0001f355"]
    for text, found in zip(texts, model(image, texts), strict=True):
        np.testing.assert_allclose(found.probability, model(image, text).probability, atol=1e-4)


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (noise(30, 50, 3).astype(np.int64), TypeError, "uint8, uint16 or float"),
        (noise(30, 50, 3) / 1.0, ValueError, r"in \[0, 1\]"),
        (np.full((30, 50, 3), np.nan, np.float32), ValueError, "finite values, got 4500 NaN"),
        (np.full((30, 50, 3), np.inf), ValueError, "finite"),
        (np.zeros((0, 50, 3), np.uint8), ValueError, "at least one pixel"),
        (noise(30, 50, 2), ValueError, "C = 1, 3 or 4"),
        (noise(2, 30, 50, 3), ValueError, "must be"),
        (torch.zeros(1, 3, 30, 50), ValueError, "one image of the batch at a time"),
        (torch.zeros(30, 50, 3), ValueError, "channels first"),
        (None, TypeError, "got NoneType"),
        (7, TypeError, "got int"),
        ("nowhere.png", FileNotFoundError, "nowhere.png"),
        (".", IsADirectoryError, r"\."),
    ],
)
def test_bad_images(model, image, kind, message):
    with pytest.raises(kind, match=message):
        model(image, "the red cube")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("", ValueError, "empty"),
        (" \t\n", ValueError, "empty"),
        ([], ValueError, "empty list"),
        (["a cube", ""], ValueError, "empty"),
        (b"a cube", TypeError, "str"),
        (["a cube", 3], TypeError, "must be a str, got int"),
    ],
)
def test_bad_sentences(model, text, kind, message):
    with pytest.raises(kind, match=message):
        model(noise(30, 50, 3), text)


BROKEN = {
    "empty.png": b"",
    "text.png": b"this is no picture",
    "cut.png": cv2.imencode(".png", noise(30, 50, 3))[1].tobytes()[:100],
    "cut.jpg": cv2.imencode(".jpg", noise(30, 50, 3))[1].tobytes()[:30],
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(model, name, tmp_path):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(ValueError, match=f"{name}: expected an image, got"):
        model(tmp_path / name, "the red cube")


def test_a_model_is_as_before_after_an_error(model):
    image, text = noise(30, 50, 3), "the red cube"
    before = model(image, text).probability
    model.train()
    with pytest.raises(ValueError, match="empty"):
        model(image, "")
    assert model.training
    np.testing.assert_array_equal(model(image, text).probability, before)
    assert model.training
    model.eval()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", [*BROKEN, "nowhere.png"])
def test_the_command_line_says_it_in_one_line(name, tmp_path, monkeypatch, capfd):
    store.save(tiny.segmenter(), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    if name in BROKEN:
        (tmp_path / name).write_bytes(BROKEN[name])
    capfd.readouterr()
    assert main(["predict", name, "a cube", "--model", "model"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"vpd: error: {name}: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "vpd-out").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b"{", "expected JSON"),
        ("config.json", b"[]", "expected keys 'task'"),
        ("config.json", b'{"task": "refer", "config": {"unett": {}}}', "did you mean 'unet'?"),
        ("config.json", b'{"task": "refer", "config": {"unet": 3}}', "expected a mapping, got int"),
        ("model.safetensors", b"", "model.safetensors"),
        ("model.safetensors", b"\xff" * 64, "model.safetensors"),
        ("model.safetensors", None, "model.safetensors"),
    ],
)
def test_damaged_models(file, content, message, tmp_path, capfd):
    folder = store.save(tiny.segmenter(), tmp_path / "model")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    capfd.readouterr()
    code = main(["predict", "a.png", "a cube", "--model", str(folder)])
    err = capfd.readouterr().err
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
