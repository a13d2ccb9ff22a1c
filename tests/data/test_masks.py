"""Masks against pycocotools' COCO class and shapely-simple closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from pycocotools.coco import COCO

from vpd.data.masks import decode_segmentation, encode_mask, mask_box

SQUARE = [2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]
SHIFTED = [5.0, 5.0, 12.0, 5.0, 12.0, 12.0, 5.0, 12.0]


def official(segmentation, height, width):
    """The mask as the COCO API's own class gives it."""
    table = COCO()
    table.imgs = {1: {"id": 1, "height": height, "width": width}}
    return table.annToMask({"image_id": 1, "segmentation": segmentation}).astype(bool)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-5, 45, width=32), min_size=6, max_size=14).filter(
            lambda p: len(p) % 2 == 0
        ),
        min_size=1,
        max_size=3,
    )
)
def test_polygons_as_the_coco_api(polygons):
    expected = official(polygons, 30, 40)
    np.testing.assert_array_equal(decode_segmentation(polygons, 30, 40), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_run_lengths_round_trip(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    runs = encode_mask(mask)
    np.testing.assert_array_equal(decode_segmentation(runs, height, width), mask)
    as_bytes = {"size": runs["size"], "counts": runs["counts"].encode()}
    np.testing.assert_array_equal(decode_segmentation([as_bytes], height, width), mask)
    np.testing.assert_array_equal(official(runs, height, width), mask)
    # uncompressed: column by column, starting with the zeros
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    counts = [0, *counts] if flat[0] else counts
    plain = {"size": [height, width], "counts": counts}
    np.testing.assert_array_equal(decode_segmentation(plain, height, width), mask)


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.3))
@settings(max_examples=40, deadline=None)
def test_boxes_as_the_coco_api(seed, share):
    mask = np.random.default_rng(seed).random((17, 23)) < share
    expected = coco.toBbox(coco.encode(np.asfortranarray(mask, dtype=np.uint8))).tolist()
    assert mask_box(mask) == expected


def test_sum_eq1_loses_what_two_parts_share():
    union = decode_segmentation([SQUARE, SHIFTED], 16, 16)
    once = decode_segmentation([SQUARE, SHIFTED], 16, 16, "sum_eq1")
    a, b = (decode_segmentation([p], 16, 16) for p in (SQUARE, SHIFTED))
    assert (a & b).sum() == 9
    np.testing.assert_array_equal(union, a | b)
    np.testing.assert_array_equal(once, a ^ b)


def test_many_equal_parts_do_not_wrap_around():
    once = decode_segmentation([SQUARE] * 257, 16, 16, "sum_eq1")
    assert not once.any()


def test_degenerate_polygons_have_no_area():
    with_line = decode_segmentation([SQUARE, [1.0, 1.0, 9.0, 9.0]], 16, 16)
    np.testing.assert_array_equal(with_line, decode_segmentation([SQUARE], 16, 16))
    assert not decode_segmentation([[1.0, 1.0, 9.0, 9.0]], 16, 16).any()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "polygons or run lengths, got NoneType"),
        ([], "got an empty list"),
        ("abc", "got str"),
        ([[1.0, 2.0, 3.0]], "flat list x, y"),
        ([[1.0, 2.0, 3.0, 4.0, float("nan"), 6.0]], "finite numbers"),
        ([[1.0, 2.0, 3.0, 4.0, "5", 6.0]], "finite numbers"),
        ([[1.0, 2.0, 3.0, 4.0, 10**400, 6.0]], "finite numbers"),
        ([[-9e5, 9e5, 9e5, -9e5] * 3], "outline must be at most 1e7 pixels long"),
        ([SQUARE, {"size": [16, 16], "counts": "0"}], "flat list x, y"),
        ({"size": [8, 8], "counts": [64]}, r"size must be that of the picture \[16, 16\]"),
        ({"counts": [256]}, "size must be"),
        ({"size": [16, 16], "counts": [200]}, "sum to 256"),
        ({"size": [16, 16], "counts": [-4, 260]}, "sum to 256"),
        ({"size": [16, 16], "counts": [1.5, 254.5]}, "sum to 256"),
        ({"size": [16, 16], "counts": 5}, "list or a string"),
        ({"size": [16, 16], "counts": "zzzz"}, "sum to 256"),
        ({"size": [16, 16], "counts": "P"}, "sum to 256"),
        ({"size": [16, 16], "counts": "\u00e9\u4e2d"}, "sum to 256"),
    ],
)
def test_bad_segmentations(segmentation, message):
    with pytest.raises(ValueError, match=message):
        decode_segmentation(segmentation, 16, 16)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(min_codepoint=30, max_codepoint=130), max_size=12))
def test_no_counts_string_reaches_the_decoder_unchecked(counts):
    try:
        mask = decode_segmentation({"size": [4, 4], "counts": counts}, 4, 4)
    except ValueError:
        return
    assert encode_mask(mask)["size"] == [4, 4]


@pytest.mark.parametrize("size", [(1 << 15, 1 << 14), (0, 4), (4.0, 4), (4, "4"), (4, None)])
def test_bad_sizes(size):
    with pytest.raises(ValueError, match="a picture"):
        decode_segmentation([SQUARE], *size)


def test_unknown_merge():
    with pytest.raises(ValueError, match="mask_merge must be one of union, sum_eq1, got 'or'"):
        decode_segmentation([SQUARE], 16, 16, "or")
