"""Where windows lie, and the mean of what overlaps, against plain references."""

from __future__ import annotations

import pytest
import torch
from helpers import load_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from vpd.memory import LiveBytes
from vpd.tasks.windows import Overlap, average_shifted, shifted_windows, slide_windows

SIDES = st.integers(1, 40)


@settings(deadline=None, max_examples=100)
@given(SIDES, SIDES, st.integers(1, 15), st.integers(1, 15), st.data())
def test_slide_windows_cover_once_each(height, width, crop_y, crop_x, data):
    """mmsegmentation's rule: moved by strides, moved back where they would leave the image."""
    step_y, step_x = (data.draw(st.integers(1, size)) for size in (crop_y, crop_x))
    found = slide_windows(height, width, (crop_y, crop_x), (step_y, step_x))
    want, y = [], 0
    while True:
        x = 0
        while True:
            want.append((max(min(y, height - crop_y), 0), max(min(x, width - crop_x), 0)))
            if x + crop_x >= width:
                break
            x += step_x
        if y + crop_y >= height:
            break
        y += step_y
    assert found == want
    assert len(set(found)) == len(found)
    visits = torch.zeros(height, width)
    for y, x in found:
        visits[y : y + crop_y, x : x + crop_x] += 1
    assert visits.min() >= 1


def test_slide_windows_of_known_images():
    assert slide_windows(512, 683, 512, 341) == [(0, 0), (0, 171)]
    assert slide_windows(300, 512, 512, 341) == [(0, 0)]
    assert slide_windows(1024, 512, (512, 512), (512, 1)) == [(0, 0), (512, 0)]
    assert len(slide_windows(512, 2048, 512, 341)) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, 3, 2), "at least 1 .* got an image of 0 x 5"),
        ((5, 5, 3, 4), "1 <= stride <= crop, got .* crop 3, stride 4"),
        ((5, 5, (3, 3), (3, 0)), r"stride \(3, 0\)"),
    ],
)
def test_bad_slides_are_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        slide_windows(*arguments)


def test_shifted_windows_match_original():
    case = load_golden("vpd_depth_tta")
    image, windows = case.inputs["image_full"], case.outputs["windows"]
    count = case.info["config"]["shift_size"]
    h, w = image.shape[2:]
    for index, (y, x) in enumerate(shifted_windows(h, w, count)):
        cut = image[0, :, y : y + h, x : x + h]
        assert torch.equal(cut, windows[index])
        assert torch.equal(cut.flip(-1), windows[count + index])
    predicted = case.inputs["window_predictions"]
    got = average_shifted(predicted[:count], w, predicted[count:])
    torch.testing.assert_close(got, case.outputs["pred_d"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        average_shifted(predicted[:count].double(), w, predicted[count:].double()),
        case.outputs["pred_d"].double(),
        rtol=1e-6,
        atol=1e-6,
    )


@settings(deadline=None, max_examples=100)
@given(SIDES, SIDES, st.integers(1, 6))
def test_shifted_windows_cover_or_refuse(height, more, count):
    width = height + more - 1
    step = (width - height) // max(count - 1, 1)
    last = width - height - max(count - 2, 0) * step  # to the one at the edge
    if max(step, last) > height or (count == 1 and step):
        with pytest.raises(ValueError, match="do not cover"):
            shifted_windows(height, width, count)
        return
    found = shifted_windows(height, width, count)
    assert len(found) == count
    assert {y for y, _ in found} == {0}
    covered = {column for _, x in found for column in range(x, x + height)}
    assert covered == set(range(width))
    if count > 1 and (width - height) % (count - 1) == 0:
        assert [x for _, x in found] == [
            i * ((width - height) // (count - 1)) for i in range(count)
        ]


def test_shifted_windows_of_nyu():
    assert shifted_windows(480, 640, 2) == [(0, 0), (0, 160)]
    assert shifted_windows(480, 640, 4) == [(0, 0), (0, 53), (0, 106), (0, 160)]
    assert shifted_windows(480, 480, 1) == [(0, 0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 3, 2), "height <= width .* got 4 x 3"),
        ((4, 8, 0), "at least 1 window, got 4 x 8 and 0"),
        ((4, 13, 2), "2 windows of 4 columns do not cover 13 columns, expected more"),
        ((4, 5, 1), "1 windows of 4 columns do not cover 5"),
    ],
)
def test_bad_shifts_are_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        shifted_windows(*arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_overlap_is_the_mean_of_all_that_cover(dtype):
    places = slide_windows(13, 17, (6, 7), (4, 3))
    windows = [torch.randn(2, 3, 6, 7, dtype=torch.double).to(dtype) for _ in places]
    overlap = Overlap(13, 17)
    for _ in range(2):  # it can be used again
        for window, (y, x) in zip(windows, places, strict=True):
            overlap.add(window, y, x)
        got = overlap.mean()
        assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        for i in range(13):
            for j in range(17):
                seen = [
                    window[..., i - y, j - x].double()
                    for window, (y, x) in zip(windows, places, strict=True)
                    if 0 <= i - y < 6 and 0 <= j - x < 7
                ]
                want = torch.stack(seen).mean(0)
                torch.testing.assert_close(got[..., i, j].double(), want, rtol=1e-5, atol=1e-6)


def test_overlap_holds_one_image():
    """However many windows: the sum, the visits and what looks at them."""
    height, width, classes = 96, 128, 12
    window = torch.randn(1, classes, 32, 32)
    with LiveBytes([window]) as live:
        overlap = Overlap(height, width)
        for y, x in slide_windows(height, width, 32, 4):
            overlap.add(window, y, x)
        overlap.mean()
    assert live.peak <= 1.3 * 4 * height * width * classes


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ([(torch.zeros(3, 4, 4), 0, 0)], r"\[B, C, h, w\], got torch.float32 \[3, 4, 4\]"),
        ([(torch.zeros(1, 3, 4, 4).long(), 0, 0)], "must be floating point"),
        ([(torch.zeros(1, 3, 4, 4), 3, 0)], r"inside of 6 x 8, got one of 4 x 4 at \(3, 0\)"),
        ([(torch.zeros(1, 3, 4, 4), 0, -1)], r"at \(0, -1\)"),
        ([(torch.zeros(1, c, 4, 4), 0, 0) for c in (3, 2)], r"\[1, 3, 'h', 'w'\], got \[1, 2"),
        ([(torch.zeros(1, 3, 4, 4), 0, 0)], "cover all pixels, got 32 outside of all"),
        ([], "at least one window, got none"),
    ],
)
def test_bad_windows_are_explained(calls, message):
    def run():
        overlap = Overlap(6, 8)
        for window, y, x in calls:
            overlap.add(window, y, x)
        overlap.mean()

    with pytest.raises(ValueError, match=message):
        run()


def test_bad_averages_are_explained():
    windows = torch.zeros(3, 1, 4, 4)
    with pytest.raises(ValueError, match=r"\[count, C, height, height\], got \[3, 1, 4, 3\]"):
        average_shifted(windows[..., :3], 8)
    with pytest.raises(ValueError, match=r"flipped must be \[3, 1, 4, 4\], got \[2, 1, 4, 4\]"):
        average_shifted(windows, 8, windows[:2])
    with pytest.raises(ValueError, match="do not cover 20 columns"):
        average_shifted(windows, 20)
