"""Figures of a prior's own grounding: curves by timestep, and maps over pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from vpd.viz.overlay import RGB, overlay_heat
from vpd.viz.page import Band, Panel, Picture, page

if TYPE_CHECKING:
    from vpd.tasks.grounding import Example, Grounding, GroundingRow

__all__ = ["grounding_figure", "grounding_maps"]

_COLORS = {
    "size": "#b07aa1", "material": "#59a14f", "color": "#d1495b", "shape": "#2e6fb7",
    "phrase": "#1c1c1c",
}  # fmt: skip
_NAMES = {"color": "colour word", "phrase": "all words together"}
_GREY = "#8a8a8a"
_SHOWN_PX = 256
_HIT, _MISS = (40, 220, 90), (255, 60, 60)


def grounding_figure(found: Grounding) -> Picture:
    """Pointing game (above) and oIoU (below) by timestep, a column per stride, a curve per kind of
    word.

    Hollow markers on the left are the pass without noise, bands 95 % intervals (binomial). Dashed:
    a random visible object; dotted: a random pixel, or for oIoU the whole picture; triangles on
    the right: a random object that the word alone is true of.
    """
    strides, kinds = found.strides, found.kinds
    figure = Picture(figsize=(1.2 + 2.6 * len(strides), 5.3), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(strides), sharex=True, sharey="row", squeeze=False)
    clean = [noise for noise in found.noises if not noise.adds_noise]
    noisy = sorted((n for n in found.noises if n.adds_noise), key=lambda n: n.noise_t)
    for column, stride in enumerate(strides):
        above, below = axes[0, column], axes[1, column]
        for kind in kinds:
            style = {"color": _COLORS[kind], "linewidth": 2.0 if kind == "phrase" else 1.4}
            rows = [found.row(noise, kind, stride) for noise in noisy]
            steps = [noise.noise_t for noise in noisy]
            name = _NAMES.get(kind, f"{kind} word")
            above.plot(steps, [r.pointing for r in rows], label=name, **style)
            low, high = zip(*map(_interval, rows), strict=True) if rows else ((), ())
            above.fill_between(steps, low, high, color=_COLORS[kind], alpha=0.12, linewidth=0)
            below.plot(steps, [r.oIoU for r in rows], **style)
            for noise in clean:
                row = found.row(noise, kind, stride)
                for panel, value in ((above, row.pointing), (below, row.oIoU)):
                    panel.plot(
                        -40, value, "o", color=_COLORS[kind], markerfacecolor="white", markersize=5
                    )
        _reference(above, found.references["object"], (0, (5, 3)), "a random object")
        _reference(above, found.references["anywhere"], (0, (1, 2)), "a random pixel")
        _reference(below, found.references["anywhere"], (0, (1, 2)), "")
        for kind in kinds:
            if f"word/{kind}" in found.references:
                height = found.references[f"word/{kind}"]
                above.plot(950, height, "<", color=_COLORS[kind], markersize=6, clip_on=False)
        above.plot([], [], "<", color=_GREY, markersize=6, label="an object the word fits")
        above.set_title("mean of all strides" if stride == "mean" else f"maps at stride {stride}")
        below.set_xlabel("timestep t of the noise")
    _dress(axes, figure, found)
    return figure


def _interval(row: GroundingRow) -> tuple[float, float]:
    share = row.pointing / 100
    half = 196 * float(np.sqrt(share * (1 - share) / row.n))
    return max(0.0, row.pointing - half), min(100.0, row.pointing + half)


def _reference(axes: Any, value: float, dashes: Any, name: str) -> None:
    axes.axhline(value, color=_GREY, linewidth=1.0, linestyle=dashes, label=name or None, zorder=0)


def _dress(axes: Any, figure: Picture, found: Grounding) -> None:
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="#e6e6e6", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8)
        panel.set_xticks(
            [-40, 100, 300, 500, 700, 900], ["none", "100", "300", "500", "700", "900"]
        )
        panel.set_xlim(-75, 960)
        panel.set_ylim(bottom=-0.03 * panel.get_ylim()[1])
        panel.title.set_fontsize(9.5)
        panel.xaxis.label.set_fontsize(8.5)
    axes[0, 0].set_ylabel("pointing game: maximum\non the named object (%)", fontsize=8.5)
    axes[1, 0].set_ylabel("overlap: oIoU of the map\nabove a threshold (%)", fontsize=8.5)
    handles, names = axes[0, 0].get_legend_handles_labels()
    p = found.protocol
    unseen = ", no mask ever seen" if p["task"] == "foundation" else ""
    figure.suptitle(
        f"Where words attend{unseen}: {p['phrases']} phrases, "
        f"{p['scenes']} scenes of Tabletop {p['split']}",
        fontsize=10.5, x=0.012, y=0.985, ha="left",
    )  # fmt: skip
    figure.legend(
        handles, names, loc="upper left", bbox_to_anchor=(0.005, 0.955), ncols=4, fontsize=8,
        frameon=False, columnspacing=1.6, handlelength=2.0,
    )  # fmt: skip
    height = figure.get_figheight()
    figure.subplots_adjust(
        left=0.75 / figure.get_figwidth(), right=0.985, bottom=0.5 / height, top=1 - 0.98 / height,
        wspace=0.08, hspace=0.12,
    )  # fmt: skip


def grounding_maps(shown: Sequence[Example]) -> Picture:
    """For each phrase the picture, then a row per word and a column per noise protocol.

    The named object is outlined in white. A dot marks the map's maximum: green on the object, red
    elsewhere. Each map is scaled from its least to its greatest value.
    """
    from vpd.tasks.grounding import label

    bands: list[Band] = []
    for example in shown:
        first = example.maps[0]
        image = _enlarged(first.image)
        empty = np.full_like(image, 255)
        stacks = [next(iter(maps.maps.values())) for maps in example.maps]
        titles = [label(maps.noise) for maps in example.maps]
        for row in range(1, len(first.labels)):  # behind the article
            top = row == 1
            panels = [Panel(_outlined(image, example.mask) if top else empty)]
            for values, title in zip(stacks, titles, strict=True):
                marked = _marked(image, values[row], example.mask)
                panels.append(Panel(marked, title if top else ""))
            heading = f"“{first.text}”" if top else ""
            bands.append(Band(panels, heading=heading, label=first.labels[row]))
    return page(bands, width_in=8.4)


def _enlarged(image: RGB) -> RGB:
    import cv2

    return np.asarray(
        cv2.resize(image, (_SHOWN_PX, _SHOWN_PX), interpolation=cv2.INTER_LINEAR), np.uint8
    )


def _outlined(image: RGB, mask: NDArray[np.bool_]) -> RGB:
    import cv2

    large = cv2.resize(mask.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    edges = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    drawn = image.copy()
    for color, width in (((0, 0, 0), 5), ((255, 255, 255), 2)):
        cv2.drawContours(drawn, edges, -1, color, width, cv2.LINE_AA)
    return drawn


def _marked(image: RGB, values: NDArray[np.float32], mask: NDArray[np.bool_]) -> RGB:
    import cv2
    import torch

    from vpd.tasks.pointing import heat_maps

    maps = torch.from_numpy(np.asarray(values))[None, None]
    heat = heat_maps({1: maps}, torch.ones(1, 1, 1), mask.shape)["1"][0, 0].numpy()
    y, x = np.unravel_index(int(heat.argmax()), heat.shape)
    drawn = _outlined(overlay_heat(image, values), mask)
    scale = image.shape[0] / mask.shape[0]
    center = (round((x + 0.5) * scale), round((y + 0.5) * scale))
    cv2.circle(drawn, center, 9, (0, 0, 0), -1, cv2.LINE_AA)
    cv2.circle(drawn, center, 7, _HIT if mask[y, x] else _MISS, -1, cv2.LINE_AA)
    return drawn
