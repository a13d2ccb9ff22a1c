"""What the page accepts of pictures and texts."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vpd.images import read_image
from vpd.serve.limits import Limits, read_upload

PICTURE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def png_of(width, height):
    """The head of a PNG file that says it is so large; a bomb has little more."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tiff"])
def test_pictures_are_read_as_everywhere(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(PICTURE).save(path)
    found = read_upload(path, Limits())
    expected = read_image(Image.open(path))
    np.testing.assert_array_equal(found, expected)
    path.rename(tmp_path / "a")  # the name says nothing
    np.testing.assert_array_equal(read_upload(tmp_path / "a", Limits()), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "expected a picture"),
        (b"%PDF-1.7", "expected a picture"),
        (png_of(6000, 5000), "expected at most 25 million pixels, got 6000 x 5000"),
        (png_of(11_000, 11_000), "got far more"),
        (png_of(2**31 - 1, 2**31 - 1), "got far more"),
        (png_of(40, 30), "cannot be read"),
        (b"\0" * (20 * 10**6 + 1), "at most 20 MB, got 20.0 MB"),
    ],
)
def test_what_is_refused(tmp_path, content, message):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_upload(path, Limits())


def test_nothing_is_refused_kindly():
    with pytest.raises(ValueError, match="no picture yet"):
        read_upload(None, Limits())


def test_limits():
    limits = Limits(max_mb=1, max_text=5)
    assert limits.max_bytes == 10**6
    assert limits.check_text(" abc ") == "abc"
    with pytest.raises(ValueError, match="at most 5 characters, got 6"):
        limits.check_text("abcdef")
    with pytest.raises(ValueError, match="max_waiting must be at least 1, got 0"):
        Limits(max_waiting=0)
