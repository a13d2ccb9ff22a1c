"""Pictures in memory, whole and damaged; Pillow decodes the same pixels."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from vpd.decoding import decode


@pytest.fixture
def png() -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_pixels_are_those_of_pillow(png):
    here = decode(png, cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(here[..., ::-1], np.asarray(Image.open(io.BytesIO(png))))
    np.testing.assert_array_equal(decode(png + b"more", cv2.IMREAD_UNCHANGED), here)


def test_no_whole_picture(png):
    assert decode(b"", cv2.IMREAD_COLOR) is None
    assert decode(b"no picture", cv2.IMREAD_COLOR) is None
    for end in range(8, len(png) - 12):
        assert decode(png[:end], cv2.IMREAD_COLOR) is None, end


def test_a_chunk_longer_than_the_file_is_not_handed_to_opencv(png, monkeypatch):
    """OpenCV would take 4 GB for it."""
    at = png.index(b"IDAT") - 4
    long = png[:at] + b"\xff\xff\xff\xff" + png[at + 4 :]
    monkeypatch.setattr(cv2, "imdecode", None)
    assert decode(long, cv2.IMREAD_UNCHANGED) is None
