"""Augmentations against plain loops that replay the same draws, invariants, and frequencies."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch

from vpd.data import DepthAugmentation, SemanticAugmentation, pad_to, sample_generator
from vpd.data.colors import distort, vary
from vpd.images import in_range, scaled


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def blobs(height, width, classes=5, cell=6, seed=1):
    """A label of large squares, some without a class."""
    small = np.random.default_rng(seed).integers(
        0, classes, (height // cell + 1, width // cell + 1)
    )
    small[0, 0] = 255
    return np.kron(small, np.ones((cell, cell), int))[:height, :width].astype(np.uint8)


def painted(label):
    """A picture that shows its label."""
    return np.stack([label, 255 - label, label // 2], -1)


GEOMETRY = SemanticAugmentation(scale=(96, 48), crop=(32, 40), photometric=False)


def test_generators():
    draws = {
        key: tuple(sample_generator(*key).integers(0, 2**62, 2))
        for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)]
    }
    assert len(set(draws.values())) == len(draws)
    assert draws[0, 1, 1] == tuple(sample_generator(0, 1, 1).integers(0, 2**62, 2))
    with pytest.raises(ValueError, match="must not be negative, got 0, -1, 0"):
        sample_generator(0, -1, 0)


@pytest.mark.parametrize("augmentation", [SemanticAugmentation(crop=(40, 40)), DepthAugmentation])
def test_same_generator_same_sample(augmentation):
    image, label = noise(60, 80), blobs(60, 80)
    if isinstance(augmentation, SemanticAugmentation):
        runs = [augmentation(image, label, sample_generator(0, 3, i)) for i in (1, 1, 2)]
    else:
        crop = DepthAugmentation(crop=(40, 40))
        runs = [crop(image, label * 1.0, sample_generator(0, 3, i), 0) for i in (1, 1, 2)]
    for a, b in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert runs[0][0].shape != runs[2][0].shape or (runs[0][0] != runs[2][0]).any()


def test_inputs_are_left_alone():
    image, label = noise(60, 80), blobs(60, 80)
    before = image.copy(), label.copy()
    for i in range(8):
        SemanticAugmentation(scale=None, crop=None)(image, label, sample_generator(0, 0, i))
        DepthAugmentation(crop=None)(image, label * 1.0, sample_generator(0, 0, i), i)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(label, before[1])


# Semantic segmentation: geometry


@pytest.mark.parametrize("size", [(33, 61), (61, 33), (48, 48), (7, 90)])
@pytest.mark.parametrize("row", range(4))
def test_picture_and_label_stay_together(size, row):
    label = blobs(*size, cell=8)
    image, moved = GEOMETRY(painted(label), label, sample_generator(0, 0, row))
    assert image.shape[:2] == moved.shape
    assert image.dtype == np.uint8
    assert moved.dtype == np.uint8
    assert image.shape[0] <= 32
    assert image.shape[1] <= 40
    # Where the label is the same all around, the bilinear picture shows exactly its class.
    height, width = moved.shape
    compared = 0
    for y in range(2, height - 2):
        for x in range(2, width - 2):
            if (moved[y - 2 : y + 3, x - 2 : x + 3] == moved[y, x]).all():
                np.testing.assert_array_equal(image[y, x], painted(moved)[y, x])
                compared += 1
    assert compared or height < 10


def resized_size(height, width, long, short):
    factor = min(long / max(height, width), short / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


@pytest.mark.parametrize("row", range(6))
def test_resize_against_a_loop(row):
    image, label = noise(20, 34), blobs(20, 34)
    only_resize = SemanticAugmentation(scale=(64, 32), crop=None, flip=0, photometric=False)
    found, moved = only_resize(image, label, sample_generator(5, 0, row))
    ratio = 0.5 + 1.5 * sample_generator(5, 0, row).random()
    height, width = resized_size(20, 34, int(64 * ratio), int(32 * ratio))
    assert moved.shape == (height, width)
    step_y, step_x = 20 / height, 34 / width
    for y in range(height):
        for x in range(width):
            assert moved[y, x] == label[min(int(y * step_y), 19), min(int(x * step_x), 33)]
            # Bilinear about pixel centres, the edge repeated.
            v, u = (y + 0.5) * step_y - 0.5, (x + 0.5) * step_x - 0.5
            top, left = int(np.floor(v)), int(np.floor(u))
            rows, columns = np.clip([top, top + 1], 0, 19), np.clip([left, left + 1], 0, 33)
            corner = image[rows][:, columns].astype(float)
            weights = np.outer([1 - (v - top), v - top], [1 - (u - left), u - left])
            expected = np.einsum("yx,yxc->c", weights, corner)
            assert np.abs(found[y, x] - expected).max() <= 1.01


def test_official_size_rule():
    """The recipe's numbers: a 512 x 683 picture at ratio 1 keeps its size; 400 x 1600 is wide."""
    assert resized_size(512, 683, 2048, 512) == (512, 683)
    assert resized_size(375, 500, 2048, 512) == (512, 683)
    fixed = SemanticAugmentation(ratio=(1, 1), crop=None, flip=0, photometric=False)
    for size in ((375, 500), (400, 2000), (500, 375)):
        image, label = noise(*size), blobs(*size)
        found, moved = fixed(image, label, sample_generator(0, 0, 0))
        assert found.shape[:2] == moved.shape == resized_size(*size, 2048, 512)


def test_labels_of_many_classes():
    label = np.random.default_rng(0).integers(0, 900, (30, 30))
    still = SemanticAugmentation((60, 60), (1, 1), None, flip=0, photometric=False)
    _, moved = still(noise(30, 30), label, sample_generator(0, 0, 0))
    assert moved.dtype == np.int64
    np.testing.assert_array_equal(moved, label.repeat(2, 0).repeat(2, 1))


class Drawn:
    """A generator that counts the places drawn."""

    def __init__(self, seed=0):
        self.generator = np.random.default_rng(seed)
        self.places = 0

    def integers(self, *bounds):
        self.places += 1
        return self.generator.integers(*bounds)

    def random(self):
        return 1.0


@pytest.mark.parametrize(
    ("label", "places"),
    [
        (np.zeros((40, 40), np.uint8), 11),  # one class only: the eleventh draw is taken
        (np.full((40, 40), 255, np.uint8), 11),  # no class
        (np.indices((40, 40)).sum(0).astype(np.uint8) % 2, 1),  # half and half
        (np.where(np.indices((40, 40))[0] % 4 == 0, 1, 0).astype(np.uint8), 11),  # 3/4 is too much
        (np.where(np.indices((40, 40)).sum(0) % 4 < 2, 255, 3).astype(np.uint8), 11),
    ],
)
def test_tries_of_the_crop(label, places):
    drawn = Drawn()
    crop = SemanticAugmentation(scale=None, crop=(16, 16), photometric=False)
    crop(noise(40, 40), label, drawn)
    assert drawn.places == 2 * places
    drawn = Drawn()
    SemanticAugmentation(scale=None, crop=(16, 16), cat_max_ratio=1.0, photometric=False)(
        noise(40, 40), label, drawn
    )
    assert drawn.places == 2


def test_crops_with_enough_classes_are_preferred():
    label = np.zeros((64, 64), np.uint8)
    label[:, 40:] = 1
    shares = {}
    for ratio in (0.75, 1.0):
        crop = SemanticAugmentation(None, crop=(16, 16), cat_max_ratio=ratio, photometric=False)
        cuts = [crop(noise(64, 64), label, sample_generator(0, 0, i))[1] for i in range(300)]
        shares[ratio] = np.mean([np.bincount(c.ravel(), minlength=2).max() < 192 for c in cuts])
    # A place is good with probability p = 7/49 (4 < columns of the other class < 12).
    assert abs(shares[1.0] - 7 / 49) < 0.07
    assert abs(shares[0.75] - (1 - (42 / 49) ** 11)) < 0.07


def test_every_place_of_the_crop_is_equally_likely():
    label = np.arange(49).reshape(7, 7).astype(np.uint8)
    crop = SemanticAugmentation(None, crop=(5, 4), flip=0, cat_max_ratio=1, photometric=False)
    corners = [crop(painted(label), label, sample_generator(0, 0, i))[1][0, 0] for i in range(1200)]
    counts = {int(corner): corners.count(corner) for corner in set(corners)}
    assert set(counts) == {7 * y + x for y in range(3) for x in range(4)}
    assert all(abs(n - 100) < 45 for n in counts.values())  # 4.7 standard deviations


def test_flip():
    label = np.arange(12).reshape(3, 4).astype(np.uint8)
    flip = SemanticAugmentation(None, crop=None, photometric=False)
    flipped = 0
    for i in range(400):
        image, moved = flip(painted(label), label, sample_generator(0, 1, i))
        np.testing.assert_array_equal(image, painted(moved))
        flipped += moved[0, 0] == 3
    assert abs(flipped - 200) < 45
    for share, corner in ((0, 0), (1, 3)):
        always = SemanticAugmentation(None, crop=None, flip=share, photometric=False)
        assert always(painted(label), label, sample_generator(0, 0, 0))[1][0, 0] == corner


def test_pad_to():
    image, label = np.ones((3, 4, 3), np.float32), np.ones((3, 4), np.uint8)
    padded, filled = pad_to(image, (5, 6), 0), pad_to(label, (5, 6), 255)
    assert padded.shape == (5, 6, 3)
    assert padded.dtype == np.float32
    assert padded.sum() == 36
    assert (padded[:3, :4] == 1).all()
    assert filled.sum() == 12 + 255 * 18
    assert pad_to(label, (3, 2), 255) is label


# Colours


def to_hsv(rgb):
    """OpenCV's 8-bit HSV of one colour, from its definition (up to rounding)."""
    h, s, v = colorsys.rgb_to_hsv(*(int(c) / 255 for c in rgb))
    return h * 180, s * 255, v * 255


def to_rgb(h, s, v):
    return np.array(colorsys.hsv_to_rgb(h / 180, s / 255, v / 255)) * 255


def cut(value):
    return int(min(max(value, 0), 255))


def change_hsv(rgb, hue, saturation, value):
    h, s, v = (round(c) for c in to_hsv(rgb))
    return to_rgb(hue(h % 180), cut(saturation(s)), cut(value(v)))


def slow_distort(image, rng):
    """mmsegmentation's rules, one pixel at a time; up to rounding between the colour spaces."""

    def each(change):
        return np.array([[change(p) for p in row] for row in out], dtype=float)

    def linear(factor, offset):
        return each(lambda p: [cut(np.float32(c) * factor + offset) for c in p])

    out = image.astype(float)
    if rng.integers(2):
        out = linear(1, np.float32(rng.uniform(-32, 32)))
    early = rng.integers(2)
    if early and rng.integers(2):
        out = linear(np.float32(rng.uniform(0.5, 1.5)), 0)
    if rng.integers(2):
        factor = np.float32(rng.uniform(0.5, 1.5))
        out = each(lambda p: change_hsv(p, lambda h: h, lambda s: s * factor, lambda v: v))
    if rng.integers(2):
        shift = int(rng.integers(-18, 18))
        out = each(lambda p: change_hsv(p, lambda h: (h + shift) % 180, lambda s: s, lambda v: v))
    if not early and rng.integers(2):
        out = linear(np.float32(rng.uniform(0.5, 1.5)), 0)
    return out


def slow_vary(image, rng):
    """The depth recipe's colours, one pixel at a time."""

    def each(change):
        return np.array([[change(p) for p in row] for row in out], dtype=float)

    out = image.astype(float)
    if rng.random() < 0.5:
        contrast, brightness = rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)
        out = each(lambda p: [cut(c * (1 + contrast) + 255 * brightness) for c in p])
    if rng.random() < 0.5:
        gamma = rng.uniform(0.8, 1.2)
        out = each(lambda p: [cut(255 * (c / 255) ** gamma) for c in p])
    if rng.random() < 0.5:
        hue, saturation, value = rng.uniform(-20, 20), rng.uniform(-30, 30), rng.uniform(-20, 20)
        out = each(
            lambda p: change_hsv(
                p, lambda h: int((h + hue) % 180), lambda s: s + saturation, lambda v: v + value
            )
        )
    return out


@pytest.mark.parametrize(("fast", "slow"), [(distort, slow_distort), (vary, slow_vary)])
def test_colours_against_a_loop(fast, slow):
    image = noise(6, 7, seed=3)
    changed = 0
    for i in range(60):
        found = fast(image, sample_generator(1, 0, i)).astype(float)
        expected = slow(image, sample_generator(1, 0, i))
        # Hue is in steps of two degrees, so a round trip may move a colour by a few levels; twice
        # for saturation and hue.
        error = np.abs(found - expected)
        assert error.mean() < 2.5
        assert error.max() < 20
        changed += (found != image).any()
    assert 40 <= changed <= 60


def test_grey_ramp():
    """Grey has no hue and no saturation to multiply, so no rounding of colour spaces hides
    anything: brightness and contrast in both places are exact."""
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)[None]
    for i in range(25):
        found = distort(grey, sample_generator(2, 0, i))
        assert np.abs(found - slow_distort(grey, sample_generator(2, 0, i))).max() <= 1


def test_how_often_colours_change():
    """Identity needs every coin to fall on one side: brightness, contrast, saturation and hue."""
    image = noise(8, 8, seed=5)
    for change, coins in ((distort, 4), (vary, 3)):
        same = sum((change(image, sample_generator(3, 0, i)) == image).all() for i in range(800))
        expected = 800 / 2**coins
        assert abs(same - expected) < 4.5 * np.sqrt(expected)


# Depth


PLAIN = DepthAugmentation(crop=None, flip=0, colors=False)


@pytest.mark.parametrize("cast", ["scale", "wrap"])
@pytest.mark.parametrize("row", range(8))
def test_cutdepth_against_a_loop(cast, row):
    image = noise(9, 30)
    depth = np.random.default_rng(row).integers(0, 12_000, (9, 30)) / 1000
    depth[2, 5] = np.nan
    found, kept = DepthAugmentation(crop=None, flip=0, colors=False, cutdepth_cast=cast)(
        image, depth, sample_generator(4, 0, row), 8
    )
    alpha, beta = sample_generator(4, 0, row).random(2)
    left = int(alpha * 30)
    right = left + int(max((30 - alpha * 30) * beta * 0.75, 1))
    assert right <= 30
    for y in range(9):
        for x in range(30):
            metres = 0 if np.isnan(depth[y, x]) else depth[y, x]
            assert kept[y, x] == np.float32(metres)
            if left <= x < right:
                value = round(metres * 1000) % 256 if cast == "wrap" else min(metres / 10, 1) * 255
                assert np.abs(found[y, x] - value).max() <= 0.5 + 1e-4
                assert (found[y, x] == found[y, x, 0]).all()
            else:
                assert (found[y, x] == image[y, x]).all()


def test_which_samples_are_cut():
    image, depth = noise(6, 20), np.full((6, 20), 5.0)
    for every, numbers in ((4, {0, 4, 8}), (1, set(range(10))), (0, set())):
        cut_one = DepthAugmentation(crop=None, flip=0, colors=False, cutdepth_every=every)
        changed = {
            n
            for n in range(10)
            if (cut_one(image, depth, sample_generator(0, n, 0), n)[0] != image).any()
        }
        assert changed == numbers


def test_depth_and_picture_stay_together():
    depth = np.arange(1, 20 * 24 + 1).reshape(20, 24) / 100
    gray = (np.rint(depth * 100) % 256).astype(np.uint8)
    image = np.stack([gray] * 3, -1)
    crop = DepthAugmentation(crop=(12, 10), colors=False, cutdepth_every=0)
    corners, flips = set(), 0
    for i in range(300):
        moved, cut_out = crop(image, depth, sample_generator(0, 0, i), i)
        assert cut_out.shape == (12, 10)
        assert cut_out.dtype == np.float32
        np.testing.assert_array_equal(moved[..., 0], np.rint(cut_out * 100) % 256)
        flipped = cut_out[0, 0] > cut_out[0, 1]
        flips += flipped
        corners.add(round(float(cut_out.min() * 100)))
    assert abs(flips - 150) < 40
    assert corners < {24 * y + x + 1 for y in range(9) for x in range(15)}
    assert len(corners) > 100  # of 135 places


def test_what_is_not_measured_stays_so():
    depth = np.array([[0.0, np.nan, np.inf], [-np.inf, -2.0, 3.0]])
    _, kept = PLAIN(noise(2, 3), depth, sample_generator(0, 0, 0), 1)
    np.testing.assert_array_equal(kept, [[0, 0, 0], [0, 0, 3]])
    assert kept.dtype == np.float32


def test_depth_is_never_changed_by_colours():
    depth = np.random.default_rng(0).uniform(0, 10, (8, 8)).astype(np.float32)
    for i in range(20):
        found = DepthAugmentation(crop=None, flip=0)(
            noise(8, 8), depth, sample_generator(0, 0, i), i
        )
        np.testing.assert_array_equal(found[1], depth)


# Wrong use


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((480, 640), (512, 683)), ((48, 30), (82, 51)), ((60, 60), (51, 51)), ((200, 102), (100, 51))],
)
def test_depth_is_resized_first(shape, expected):
    """Against places looked up one by one; metres are never mixed with what was not measured."""
    side = 512 if shape == (480, 640) else 51
    image, depth = noise(*shape, seed=3), np.random.default_rng(3).random(shape, np.float32)
    depth[depth < 0.3] = 0
    augmentation = replace(PLAIN, short_side=side, cutdepth_every=0)
    found, kept = augmentation(image, depth, sample_generator(0, 0, 0), 1)
    assert found.shape == (*expected, 3)
    rows, columns = (
        np.minimum((np.arange(new) * (old / new)).astype(int), old - 1)
        for new, old in zip(expected, shape, strict=True)
    )
    np.testing.assert_array_equal(kept, depth[rows[:, None], columns])
    seen = in_range(found)
    torch.testing.assert_close(seen[None], scaled(image, side / min(shape)))  # as in the test
    cropped, _ = replace(augmentation, crop=(side, side))(
        image, depth, sample_generator(0, 0, 0), 1
    )
    assert cropped.shape == (side, side, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SemanticAugmentation(crop=(0, 5)), "crop must be two positive numbers"),
        (lambda: SemanticAugmentation(scale=(5,)), "scale must be two positive numbers"),
        (lambda: SemanticAugmentation(ratio=(2, 1)), "ratio must be 0 < least <= most"),
        (lambda: SemanticAugmentation(flip=2), r"flip must be within 0\.\.1, got 2"),
        (lambda: DepthAugmentation(cutdepth_cast="mm"), "must be scale or wrap, got 'mm'"),
        (lambda: DepthAugmentation(max_depth_m=0), "max_depth_m must be positive"),
        (lambda: DepthAugmentation(short_side=0), "short_side must be at least 1 pixel, got 0"),
        (lambda: DepthAugmentation(cutdepth_every=-1), "cutdepth_every must not be negative"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_samples():
    rng = sample_generator(0, 0, 0)
    with pytest.raises(
        ValueError, match=r"image must be uint8 \[H, W, 3\], got float64 \[4, 4, 3\]"
    ):
        GEOMETRY(np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), rng)
    with pytest.raises(ValueError, match=r"label must be \[4, 4\] like the image, got \[4, 5\]"):
        GEOMETRY(noise(4, 4), np.zeros((4, 5), np.uint8), rng)
    with pytest.raises(ValueError, match=r"smaller than the crop \[480, 480\], got \[4, 4\]"):
        DepthAugmentation()(noise(4, 4), np.ones((4, 4)), rng, 1)
