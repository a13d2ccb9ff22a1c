"""Large-scale jittering of pictures and segments."""

from __future__ import annotations

import numpy as np
import pytest

from vpd.data import PanopticAugmentation, PanopticLabel, Segment, sample_generator
from vpd.data.jitter import GREY


def sample(size=(60, 90)):
    """The picture tells of each pixel where it is from and, in blue, of which segment."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    ids = np.ones(size, np.int32)
    ids[10:30, 5:40], ids[40:55, 60:85], ids[:4, :4] = 300, 70_000, 0
    blue = np.select([ids == 300, ids == 70_000, ids == 0], [80, 160, 240], 20)
    image = np.stack([rows * 2, columns * 2, blue], -1).astype(np.uint8)
    return image, PanopticLabel(ids, (Segment(1, 0), Segment(300, 1), Segment(70_000, 2, True)))


@pytest.mark.parametrize("scale", [(1, 1), (0.1, 0.6), (1.4, 2.0), (0.1, 2.0)])
def test_picture_and_segments_stay_together(scale):
    image, label = sample()
    change = PanopticAugmentation((48, 64), scale)
    seen = set()
    for step in range(30):
        picture, found = change(image, label, sample_generator(0, step, 0))
        assert picture.shape == (48, 64, 3)
        assert (picture.dtype, found.ids.dtype) == (np.uint8, np.int32)
        assert picture.flags.c_contiguous
        assert set(found.segments) <= set(label.segments)
        assert {s.id for s in found.segments} == set(np.unique(found.ids)) - {0}
        for value, blue in ((1, 20), (300, 80), (70_000, 160)):
            own = found.ids == value
            if own.sum() > 20:  # the rest are border pixels, which are mixtures
                near = np.abs(picture[own][:, 2].astype(int) - blue) < 25
                assert near.mean() > 0.6
                assert np.median(picture[own][:, 2]) == pytest.approx(blue, abs=2)
        seen.add(picture.tobytes())
    assert len(seen) > (1 if scale == (1, 1) else 15)


def test_without_chance_it_is_the_picture():
    image, label = sample((48, 64))
    change = PanopticAugmentation((48, 64), (1, 1), flip=0)
    picture, found = change(image, label, sample_generator(0, 0, 0))
    np.testing.assert_array_equal(picture, image)
    np.testing.assert_array_equal(found.ids, label.ids)
    flipped, found = PanopticAugmentation((48, 64), (1, 1), flip=1)(
        image, label, sample_generator(0, 0, 0)
    )
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    np.testing.assert_array_equal(found.ids, label.ids[:, ::-1])


def test_small_pictures_are_padded_and_large_ones_cut():
    image, label = sample()
    half = PanopticAugmentation((60, 90), (0.5, 0.5), flip=0)
    picture, found = half(image, label, sample_generator(0, 0, 0))
    assert (picture[30:] == GREY).all()
    assert (picture[:, 45:] == GREY).all()
    assert not found.ids[30:].any()
    assert not found.ids[:, 45:].any()
    assert (found.ids[:30, :45] > 0).mean() > 0.95
    double = PanopticAugmentation((60, 90), (2, 2), flip=0)
    corners = []
    for step in range(40):
        picture, found = double(image, label, sample_generator(0, step, 0))
        assert found.ids.any()
        corners.append(picture[0, 0, :2] / 2)
    corners = np.array(corners)
    # Both axes are cut by the same share of what is too much: 30 rows and 45 columns.
    np.testing.assert_allclose(corners[:, 0] / 30, corners[:, 1] / 45, atol=0.06)
    assert corners[:, 0].max() - corners[:, 0].min() > 20


def test_scales_are_uniform():
    image, label = sample((40, 40))
    change = PanopticAugmentation((80, 80), (0.1, 1.0), flip=0)
    shares = []
    for step in range(400):
        picture, _ = change(image, label, sample_generator(4, step, 1))
        shares.append((picture != GREY).any(-1).any(1).sum() / 80)
    assert np.mean(shares) == pytest.approx(0.55, abs=0.05)
    assert min(shares) < 0.15
    assert max(shares) > 0.95


def test_repeatable():
    image, label = sample()
    change = PanopticAugmentation((32, 32))
    first, second = (change(image, label, sample_generator(5, 6, 7)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1].ids, second[1].ids)


def test_bad_input():
    image, label = sample()
    for options, message in (
        ({"crop": (0, 4)}, "crop must be two positive numbers"),
        ({"scale": (0, 1)}, "scale must be 0 < least <= most"),
        ({"scale": (2, 1)}, "scale must be 0 < least <= most"),
        ({"flip": 2}, "flip must be within 0..1, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            PanopticAugmentation(**options)
    change = PanopticAugmentation((8, 8))
    with pytest.raises(ValueError, match=r"label must be \[59, 90\] like the image"):
        change(image[1:], label, sample_generator(0, 0, 0))
    with pytest.raises(ValueError, match="image must be uint8"):
        change(image.astype(float), label, sample_generator(0, 0, 0))
