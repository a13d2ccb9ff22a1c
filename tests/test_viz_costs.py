"""Costs as bars: what is drawn is what a record holds."""

from __future__ import annotations

import json

import pytest

from vpd.viz.costs import Cost, costs_figure, read_costs


def test_time_and_memory_of_a_record(tmp_path):
    record = {
        "title": "one $ forward",
        "seconds": {"peer": [3.0, 3.5], "vpd": [2.0, 1.5]},
        "peak_mib_above_weights": {"vpd": 100.0, "peer": 140.0},
    }
    (tmp_path / "b.json").write_text(json.dumps(record))
    record = {"title": "a step", "seconds": {"vpd all": [1.0]}}
    (tmp_path / "a.json").write_text(json.dumps(record))
    (tmp_path / "c.json").write_text("{}")
    rows = read_costs(tmp_path)
    assert rows == [
        (Cost("a step", {"vpd all": 1.0}), None),
        (
            Cost("one $ forward", {"vpd": 1.5, "peer": 3.0}),
            Cost("one $ forward", {"vpd": 100.0, "peer": 140.0}, "MiB"),
        ),
    ]
    figure = costs_figure(rows)
    alone, time, memory = figure.axes
    assert [bar.get_width() for bar in time.patches] == [1.5, 3.0]
    assert [label.get_text() for label in memory.get_yticklabels()] == ["vpd", "peer"]
    assert [text.get_text().strip() for text in memory.texts] == ["100 MiB", "140 MiB"]
    ours = alone.patches[0].get_facecolor()
    assert [bar.get_facecolor() == ours for bar in time.patches] == [True, False]
    assert figure.png()[:4] == b"\x89PNG"


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got none"):
        read_costs(tmp_path)
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match=r"a\.json: expected an object"):
        read_costs(tmp_path)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json: expected JSON"):
        read_costs(tmp_path)
    with pytest.raises(ValueError, match="at least one benchmark"):
        costs_figure([])
    for bad in ({}, {"vpd": 0.0}, {"vpd": float("nan")}):
        with pytest.raises(ValueError, match="'a step': expected positive numbers"):
            costs_figure([(Cost("a step", bad), None)])
