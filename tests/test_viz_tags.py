"""Pictures of tags: what is drawn is what was given."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from vpd.metrics import TagMetrics
from vpd.tags import TagResult
from vpd.viz.bars import bars_figure, read_bars
from vpd.viz.tags import curves_figure, tag_attention_figure, tags_figure

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
TAGS = (("cube", 0.9), ("$ball_{2}$", 0.5), ("日本", 0.25), ("ring", -0.1))


def test_tags_are_bars_in_order():
    figure = tags_figure(TagResult(IMAGE, TAGS, ("cube", "wall")), top=3)
    axes = figure.axes[1]
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.5, 0.25]
    assert [text.get_text() for text in axes.get_yticklabels()][:2] == ["cube", "$ball_{2}$"]
    colors = [to_hex(bar.get_facecolor()) for bar in axes.patches]
    assert colors[0] != colors[1] == colors[2]  # right, wrong, wrong
    assert axes.get_title(loc="left") == "4 tags, the 3 surest"
    assert any(text.get_text() == "missed: wall" for text in figure.texts)
    assert figure.png()[:4] == b"\x89PNG"
    low, high = tags_figure(TagResult(IMAGE, TAGS)).axes[1].get_xlim()
    assert low <= -0.1
    assert high >= 0.9


@pytest.mark.parametrize("tags", [(), (("a", 0.0),), tuple((f"t{i}", 1.0) for i in range(5000))])
def test_any_number_of_tags_can_be_drawn(tags):
    result = TagResult(IMAGE, tags, ())
    assert result.show().get_size_inches()[1] < 8
    assert result._repr_png_()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="top of at least 1"):
        result.show(top=0)


def test_attention_has_a_panel_for_each_tag():
    maps = torch.zeros(8, 4, 6)
    maps[:, 1, 2] = 1
    names = [f"tag {i}" for i in range(8)]
    figure = tag_attention_figure(IMAGE, maps, names, np.full(8, 0.5))
    assert len(figure.axes) == 9
    texts = [text.get_text() for text in figure.texts]
    assert texts[0] == "image"
    assert "tag 7 0.50" in texts
    shown = np.asarray(figure.axes[1].images[0].get_array()).astype(int).sum(-1)
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert (row // 10, column // 10) == (1, 2)
    assert len(tag_attention_figure(IMAGE, maps.numpy(), names).axes) == 9
    for wrong in ((maps[0], names, None), (maps, names[:3], None), (maps, names, [0.5])):
        with pytest.raises(ValueError, match=r"maps \[T, h, w\]"):
            tag_attention_figure(IMAGE, *wrong)


def test_curves_and_their_floors():
    metrics = TagMetrics(2)
    metrics.update(torch.rand(3000, 2), torch.rand(3000, 2) < 0.3)
    curve = metrics.curve()
    figure = curves_figure({"all": curve}, {"shuffled": metrics.shuffled().curve()})
    first, floor = figure.axes[0].get_lines()
    assert floor.get_linestyle() == "--"
    x, y = first.get_data()
    assert len(x) <= 1001
    assert (x[0], x[-1]) == (0, pytest.approx(100))
    kept = np.searchsorted(curve.recall, x[-1] / 100)
    assert y[-1] == pytest.approx(100 * curve.precision[-1])
    assert kept < len(curve.recall)
    legend = figure.axes[0].get_legend().get_texts()[0].get_text()
    assert legend == f"all, AP {curve.average_precision:.1f}"
    assert figure.png()[:4] == b"\x89PNG"
    empty = TagMetrics(2)
    empty.update(torch.rand(1, 2), torch.zeros(1, 2))
    assert curves_figure({"$": empty.curve()}).png()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="at least one curve"):
        curves_figure({})


def test_bars_of_a_results_file(tmp_path):
    rows = [
        {"data": "ade20k", "condition": "uncond", "mIoU": 50.0},
        {"data": "ade20k", "condition": "oracle", "mIoU": 70.0},
        {"data": "ade20k", "condition": "oracle", "mIoU": 74.0},
        {"data": "cityscapes", "condition": "uncond", "mIoU": 80.0},
        {"data": "cityscapes", "condition": "oracle", "rmse": 1.0},
    ]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    values = read_bars(path, metric="mIoU", bar="condition", group="data")
    assert values == {
        "ade20k": {"uncond": [50.0], "oracle": [70.0, 74.0]},
        "cityscapes": {"uncond": [80.0]},
    }
    figure = bars_figure(values, y_label="mIoU")
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [50, 80, 72]
    assert [bar.get_hatch() for bar in axes.patches] == [None, None, "///"]
    assert axes.patches[2].get_x() > axes.patches[0].get_x()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["ade20k", "cityscapes"]
    assert [text.get_text() for text in axes.texts] == ["50.0", "80.0", "72.0"]
    assert "labels of the test pictures" in axes.get_xlabel()
    assert figure.png()[:4] == b"\x89PNG"
    one = bars_figure(read_bars(path, metric="mIoU", bar="condition"), y_label="mIoU", hatched=())
    assert one.axes[0].get_xlabel() == ""


def test_a_legend_of_long_names_stays_in_the_picture():
    bars = {f"told of everything, number {i}": [50.0] for i in range(7)}
    figure = bars_figure({"": bars}, y_label="mIoU")
    figure.png()
    legend, page = figure.legends[0].get_window_extent(), figure.bbox
    assert page.x0 <= legend.x0 < legend.x1 <= page.x1
    assert page.y0 <= legend.y0 < legend.y1 <= page.y1


def test_results_that_cannot_be_drawn(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match="expected rows with the fields mIoU, condition, got none"):
        read_bars(path, metric="mIoU", bar="condition")
    for text, message in (("{", "line 1: expected JSON"), ("[1]", "line 1: expected an object")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_bars(path, metric="mIoU", bar="condition")
    for values in ({}, {"g": {}}, {"g": {"b": []}}):
        with pytest.raises(ValueError, match="at least one value"):
            bars_figure(values, y_label="mIoU")
