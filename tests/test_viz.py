"""Pictures: overlays against their formula, layouts that hold anything, files that are whole."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from vpd import viz
from vpd.protocol import NoiseSpec
from vpd.tasks.maps import AttentionMaps
from vpd.tasks.results import ReferResult, WordMaps
from vpd.viz.overlay import shrink

RNG = np.random.default_rng(0)


def result(text="the red cube", height=40, width=60, strides=(2, 4)):
    image = RNG.integers(0, 255, (height, width, 3), dtype=np.uint8)
    tokens = {s: RNG.random((16, 16 // s, 16 // s)).astype(np.float32) for s in strides}
    probability = RNG.random((height, width)).astype(np.float32)
    return ReferResult(image, text, probability, WordMaps.from_tokens(text, 16, tokens))


def maps(words=("a", "b", "c"), t=0):
    values = {2: RNG.random((len(words), 8, 8)).astype(np.float32)}
    noise = NoiseSpec.preset("latent_match", noise_t=t)
    return AttentionMaps(result().image, " ".join(words), tuple(words), values, noise)


def pixels(picture, dpi=100):
    return cv2.imdecode(np.frombuffer(picture.png(dpi), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_a_mask_adds_seven_tenths_of_yellow():
    image = np.array([[[10, 20, 30], [200, 20, 30]], [[1, 2, 3], [4, 5, 6]]], np.uint8)
    mask = np.array([[True, True], [False, False]])
    expected = [[[188, 198, 30], [255, 198, 30]], [[1, 2, 3], [4, 5, 6]]]  # + 0.7 * 255 = 178.5
    assert viz.overlay_mask(image, mask).tolist() == expected
    assert viz.overlay_mask(image, mask, weight=0.0).tolist() == image.tolist()
    with pytest.raises(ValueError, match=r"\(2, 2\), got \(3, 2\)"):
        viz.overlay_mask(image, np.ones((3, 2), bool))


def test_colours_of_a_map():
    from matplotlib import colormaps

    ends = [(np.array(colormaps["hot"](v)[:3]) * 255).round().tolist() for v in (0.0, 1.0)]
    assert viz.colorize(np.array([[2.0, 5.0]]))[0].tolist() == ends
    assert viz.colorize(np.array([[2.0, 5.0]]), 5, 9)[0].tolist() == [ends[0], ends[0]]
    assert viz.colorize(np.full((2, 2), 7.0)).tolist() == [[ends[0]] * 2] * 2  # nothing to show
    assert viz.colorize(np.array([[np.nan, 0.0, 1.0]]))[0, 0].tolist() == ends[0]
    with pytest.raises(ValueError, match=r"\[h, w\], got \[2, 2, 2\]"):
        viz.colorize(np.zeros((2, 2, 2)))


def test_confidence_has_one_scale_in_every_picture():
    low, high = viz.confidence_map(np.array([[0.1, 0.5]])), viz.confidence_map(np.array([[0.5, 1]]))
    np.testing.assert_array_equal(low[0, 1], high[0, 0])


def test_a_heat_map_is_brightest_where_it_is_highest():
    image = np.full((32, 32, 3), 128, np.uint8)
    values = np.zeros((4, 4))
    values[1, 2] = 1
    heat = viz.overlay_heat(image, values).astype(int).sum(-1)
    assert heat.shape == (32, 32)
    assert divmod(heat.argmax(), 32)[0] // 8 == 1
    assert divmod(heat.argmax(), 32)[1] // 8 == 2


def test_large_images_are_shrunk_for_the_page_only():
    assert shrink(np.zeros((3000, 10, 3), np.uint8)).shape == (1024, 3, 3)
    mask = shrink(np.ones((1, 5000), bool))
    assert mask.shape == (1, 1024)
    assert mask.dtype == bool
    assert mask.all()


def test_panels_show_their_pixels():
    colors = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    panels = [viz.Panel(np.full((20, 20, 3), color, np.uint8), "title") for color in colors]
    shown = pixels(viz.page([viz.Band(panels, heading="heading", label="label")], width_in=6))
    assert shown.shape[1] == 600
    for color in colors:
        rows, columns = np.where((np.abs(shown.astype(int) - color) < 3).all(-1))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert abs(height - width) <= 2
        assert len(rows) >= 0.95 * height * width
    assert (shown[:10] == 255).all()  # the margin


@pytest.mark.parametrize(
    "text",
    [
        "the red cube",
        "costs $5 and $\\frac{1}{2$ more",
        "l\u00e4ngs \u65e5\u672c \U0001f355 \x07 cube",
        "word " * 500,
        "x" * 400,
    ],
)
def test_any_sentence_can_be_drawn(text, recwarn):
    picture = result(text).show()
    assert pixels(picture, 40).shape[1] == int(7.4 * 40)
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (40, 60)])
def test_any_size_can_be_drawn(size):
    shown = pixels(result("a cube", *size).show(), 40)
    assert shown.shape[0] < 2 * shown.shape[1]


def test_results_without_maps_can_be_drawn():
    bare = result(strides=())
    assert pixels(bare.show()).std() > 0
    assert pixels(viz.comparison_sheet([viz.Comparison(bare, bare.mask)])).std() > 0


def test_comparison_counts_its_iou():
    one = result()
    truth = np.zeros_like(one.mask)
    truth[:20] = True
    row = viz.Comparison(one, truth)
    assert row.iou == pytest.approx(100 * (one.mask & truth).sum() / (one.mask | truth).sum())
    nothing = replace(one, probability=np.zeros_like(one.probability))
    assert viz.Comparison(nothing, nothing.mask).iou == 0
    sheet = viz.comparison_sheet([row, replace(row, truth=one.mask, note="place")])
    texts = [text.get_text() for text in sheet.texts]
    assert any(text.endswith("(place), IoU 100") for text in texts)
    assert texts.count("truth") == 1


def test_maps_continue_below_when_they_are_many():
    words = tuple(f"w{i}" for i in range(13))
    figure = viz.maps_figure([maps(words, t) for t in (0, 500)])
    assert len(figure.axes) == 26
    texts = [text.get_text() for text in figure.texts]
    assert all(texts.count(word) == 1 for word in words)
    assert texts.count("t = 500\n8 × 8") == 2
    with pytest.raises(ValueError, match="at least one"):
        viz.maps_figure([])


def test_bare_maps_keep_their_pixels():
    shown = pixels(viz.maps_figure(maps(("a",)), overlay=False), 100)
    colors = {tuple(color) for color in viz.colorize(maps(("a",)).maps[2][0]).reshape(-1, 3)}
    assert len(colors) > 30
    assert shown.shape[0] > 100


def test_notebooks_draw_results_by_themselves():
    for thing in (result(), result().show(), maps()):
        assert thing._repr_png_().startswith(b"\x89PNG")
    assert len(repr(result())) < 120
    assert len(repr(result().attention)) < 120
    assert len(repr(maps())) < 120


def test_files_by_their_names(tmp_path):
    one = result()
    mask = cv2.imread(str(one.save(tmp_path / "new" / "m.png")), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, one.mask * np.uint8(255))
    arrays = np.load(one.save(tmp_path / "m.npz"))
    np.testing.assert_array_equal(arrays["image"], one.image)
    np.testing.assert_array_equal(arrays["attention_4"], one.attention.strides[4])
    assert str(arrays["text"]) == one.text
    assert cv2.imread(str(one.save(tmp_path / "m.figure.png"))).shape[1] == int(7.4 * 130)
    assert cv2.imread(str(maps().save(tmp_path / "maps.png"))) is not None
    with pytest.raises(ValueError, match=r"m\.jpg: expected a name ending in"):
        one.save(tmp_path / "m.jpg")
    assert sorted(p.name for p in tmp_path.rglob("*.tmp")) == []


def test_the_same_picture_gives_the_same_bytes():
    one = result()
    assert one.show().png() == one.show().png()


def test_no_global_state_is_touched():
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_viz; test_viz.result().show().png();"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    root = __file__.rsplit("/", 2)[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
