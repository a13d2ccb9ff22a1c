"""vpd.images: every kind of picture people have, and the errors for what is none."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from vpd.images import list_images, read_image, to_network


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def test_files_of_every_kind(tmp_path, rgb):
    image = Image.fromarray(rgb)
    for name in ("a.png", "b.bmp", "c.tif", "日本 ü.png"):
        image.save(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name), rgb)
        assert np.array_equal(read_image(str(tmp_path / name)), rgb)
    image.save(tmp_path / "d.jpg", quality=100, subsampling=0)
    assert np.abs(read_image(tmp_path / "d.jpg").astype(int) - rgb).max() < 8


def test_grey_palette_and_bilevel(tmp_path, rgb):
    grey = Image.fromarray(rgb[:, :, 0])
    for image in (grey, Image.fromarray(rgb).quantize(8), grey.convert("1")):
        image.save(tmp_path / "x.png")
        expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(read_image(tmp_path / "x.png"), expected)
        assert np.array_equal(read_image(image), expected)


def test_sixteen_bits_scale_to_eight(tmp_path):
    values = np.array([[0, 128, 129, 257 * 7, 65535]], dtype=np.uint16)
    expected = np.rint(values / 257.0).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "x.png"), values)
    opened = Image.open(tmp_path / "x.png")
    for source in (tmp_path / "x.png", values, opened, opened.convert("I")):
        assert np.array_equal(read_image(source)[:, :, 1], expected)


def test_alpha_is_composited_over_white(tmp_path, rgb):
    alpha = np.full((6, 8, 1), 255, np.uint8)
    alpha[0], alpha[1] = 0, 128
    rgba = np.concatenate([rgb, alpha], axis=2)
    image = Image.fromarray(rgba)
    image.save(tmp_path / "x.png")
    white = Image.new("RGBA", image.size, "white")
    expected = np.asarray(Image.alpha_composite(white, image).convert("RGB")).astype(int)
    for source in (tmp_path / "x.png", rgba, image, torch.from_numpy(rgba).permute(2, 0, 1)):
        result = read_image(source)
        assert (result[0] == 255).all()
        assert np.array_equal(result[2:], rgb[2:])
        assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, rgb, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(rgb).save(tmp_path / "x.jpg", exif=exif, quality=100, subsampling=0)
    result = read_image(tmp_path / "x.jpg")
    upright = cv2.imread(str(tmp_path / "x.jpg"))[:, :, ::-1]
    assert np.array_equal(result, upright)
    through_pil = read_image(Image.open(tmp_path / "x.jpg"))
    assert through_pil.shape == result.shape == ((6, 8, 3) if orientation < 5 else (8, 6, 3))
    assert np.abs(through_pil.astype(int) - result).max() <= 4


def test_arrays_and_tensors(rgb):
    assert read_image(rgb) is rgb
    for factor in (np.float16, np.float32, np.float64):
        assert np.array_equal(read_image((rgb / 255).astype(factor)), rgb)
    chw = torch.from_numpy(rgb).permute(2, 0, 1)
    for tensor in (chw, chw.float() / 255, (chw / 255).double().requires_grad_()):
        assert np.array_equal(read_image(tensor), rgb)
    assert read_image((chw / 255).bfloat16()).shape == rgb.shape
    for grey in (rgb[:, :, 0], rgb[:, :, :1], chw[0], chw[:1]):
        assert np.array_equal(read_image(grey), np.repeat(rgb[:, :, :1], 3, 2))
    assert np.array_equal(read_image(rgb[::-1, ::-1]), rgb[::-1, ::-1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_sizes_are_valid(shape):
    image = np.full((*shape, 3), 200, np.uint8)
    out = to_network(image, 32)
    assert out.shape == (1, 3, 32, 32)
    torch.testing.assert_close(out, torch.full_like(out, 200 / 127.5 - 1))


def test_to_network_range_layout_and_identity(rgb):
    out = to_network(rgb, (6, 8))
    expected = torch.from_numpy(rgb).permute(2, 0, 1).float()[None] / 127.5 - 1
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous()


def test_to_network_resizes_like_its_definition(rgb):
    down = to_network(rgb, (3, 4))
    means = rgb.reshape(3, 2, 4, 2, 3).mean((1, 3)).transpose(2, 0, 1)[None] / 127.5 - 1
    assert (down - torch.from_numpy(means)).abs().max() <= 0.51 / 127.5
    mixed = to_network(rgb, (3, 16))  # rows are averaged, columns interpolated
    rows = torch.from_numpy(rgb).permute(2, 0, 1).float()[None].reshape(1, 3, 3, 2, 8).mean(3)
    wide = torch.nn.functional.interpolate(rows, (3, 16), mode="bilinear") / 127.5 - 1
    assert (mixed - wide).abs().max() <= 1.6 / 127.5


@pytest.mark.parametrize("size", [0, -3, (4,), (4, 0), 2.5, "8"])
def test_to_network_bad_size(rgb, size):
    with pytest.raises(ValueError, match="size must be"):
        to_network(rgb, size)


def test_bad_files(tmp_path, rgb):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_image(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match="empty file"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("no image at all")
    with pytest.raises(ValueError, match="15 bytes that no image decoder accepts"):
        read_image(tmp_path / "text.png")
    Image.fromarray(rgb).save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((2, 2, 2), np.uint8), ValueError, r"got \[2, 2, 2\]"),
        (np.zeros((3, 9, 9), np.uint8), ValueError, "channels last"),
        (np.zeros((1, 9, 9, 3), np.uint8), ValueError, r"must be \[H, W\]"),
        (np.zeros((0, 9, 3), np.uint8), ValueError, "at least one pixel"),
        (np.zeros((2, 2, 3), complex), TypeError, "complex128"),
        (np.zeros((2, 2, 3), bool), TypeError, "bool"),
        (np.zeros((2, 2, 3), np.int64), TypeError, "int64"),
        (np.full((2, 2, 3), np.nan), ValueError, "12 NaN or infinite"),
        (np.array([[0.0, np.inf]]), ValueError, "1 NaN or infinite"),
        (np.array([[-1.0, 1.0]]), ValueError, "from -1 to 1"),
        (np.array([[0.0, 255.0]], np.float32), ValueError, "from 0 to 255"),
        (torch.zeros(9, 9, 3), ValueError, "channels first"),
        (torch.zeros(1, 3, 9, 9), ValueError, "one image of the batch"),
        (torch.zeros(3, 2, 2, dtype=torch.int32), TypeError, "int32"),
        ([[0, 1]], TypeError, "got list"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_bad_arrays(image, error, message):
    with pytest.raises(error, match=message):
        read_image(image)


def test_list_images(tmp_path, rgb):
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpg", "b.PNG"]
    with pytest.raises(FileNotFoundError):
        list_images(tmp_path / "none")
    with pytest.raises(ValueError, match="got 0"):
        list_images(tmp_path / "folder.png")
