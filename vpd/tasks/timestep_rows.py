"""Scores by timestep as records, as a table and as curves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vpd.data.files import json_lines, write_texts
from vpd.protocol import NoiseSpec
from vpd.tables import markdown_table
from vpd.tasks.evaluate import COLUMNS, Evaluation, preset_name
from vpd.tasks.refer import ReferConfig

__all__ = ["config_hash", "markdown", "timestep_rows", "write_rows"]

_DRAWN = ("oIoU", "mIoU", "P@0.5", "pick")


def config_hash(config: ReferConfig) -> str:
    """A short, stable hash of every field of a model's config, its noise protocol among them."""
    text = json.dumps(asdict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def timestep_rows(
    found: Sequence[Evaluation], config: ReferConfig, peak_bytes: int | None = None
) -> list[dict[str, Any]]:
    """A flat record of each evaluation of one model: protocol, t, noise seed, config hash, n,
    scores in percent, its share of the seconds, and the peak memory of all together."""
    rows = []
    for one in found:
        noise = NoiseSpec(**one.protocol["noise"])
        rows.append(
            {
                "protocol": preset_name(replace(noise, noise_t=0)),
                "t": noise.noise_t,
                "seed": noise.seed,
                "config": config_hash(replace(config, noise=noise)),
                "data": one.protocol["data"],
                "split": one.protocol["split"],
                "images": one.protocol["images"],
                "n": int(one.metrics["n"]),
                **{name: one.metrics[name] for name in COLUMNS if name in one.metrics},
                "seconds": one.seconds_per_image * one.protocol["images"],
                "peak_bytes": peak_bytes,
            }
        )
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table with a line for each record: t and the scores; the protocol too where there are
    several."""
    names = [name for name in COLUMNS if name in rows[0]]
    several = len({row["protocol"] for row in rows}) > 1
    lines = [[*["protocol"] * several, "t", *names]]
    for row in rows:
        lines.append([*[row["protocol"]] * several, str(row["t"])])
        lines[-1] += [f"{row[name]:.2f}" for name in names]
    return markdown_table(lines)


def write_rows(rows: Sequence[dict[str, Any]], out: Path) -> list[Path]:
    """Writes ``timesteps.jsonl``, which is the record, and what is drawn from it:
    ``timesteps.md`` and the curves ``timesteps.png``."""
    files = write_texts(out, {"timesteps.jsonl": json_lines(rows), "timesteps.md": markdown(rows)})
    return [*files, _curves(rows, out / "timesteps.png")]


def _curves(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    from vpd.viz.lines import Line, lines_figure

    lines = []
    protocols = list(dict.fromkeys(row["protocol"] for row in rows))
    for style, protocol in enumerate(protocols):
        own = sorted((row for row in rows if row["protocol"] == protocol), key=lambda row: row["t"])
        for color, name in enumerate(name for name in _DRAWN if name in rows[0]):
            label = f"{name}, {protocol}" if len(protocols) > 1 else name
            xs, ys = [row["t"] for row in own], [row[name] for row in own]
            lines.append(Line(label, xs, ys, color=color, style=style))
    return lines_figure(lines, x_label="timestep of the noise", y_label="percent").save(path)
