"""Lines of scores: what is drawn is what was given."""

from __future__ import annotations

import pytest

from vpd.viz.lines import Line, lines_figure


def test_lines_bars_and_labels():
    lines = [
        Line("a", [300, 1000], [10, 20], [0, 2.5]),
        Line("b", [300, 1000], [5, 6], color=1, style=1),
    ]
    figure = lines_figure(lines, x_label="scenes", y_label="oIoU", log_x=True)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["300", "1,000"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    drawn = [container.lines[0] for container in axes.containers]
    assert [list(line.get_ydata()) for line in drawn] == [[10, 20], [5, 6]]
    assert drawn[0].get_color() != drawn[1].get_color()
    assert drawn[0].get_linestyle() != drawn[1].get_linestyle()
    (bars,) = axes.containers[0].lines[2]
    assert [list(segment[:, 1]) for segment in bars.get_segments()] == [[10, 10], [17.5, 22.5]]
    assert figure.png()[:4] == b"\x89PNG"


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        lines_figure([], x_label="x", y_label="y")
    with pytest.raises(ValueError, match="'a': expected x, y and spread of one length"):
        lines_figure([Line("a", [1, 2], [3])], x_label="x", y_label="y")
