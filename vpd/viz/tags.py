"""Tags as pictures: scores as bars, where each is looked for, precision against recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from vpd.metrics.tagging import PrecisionRecall
from vpd.viz.lines import COLORS
from vpd.viz.overlay import overlay_heat, shrink
from vpd.viz.page import Band, Panel, Picture, clipped, page, printable

if TYPE_CHECKING:
    from vpd.tags.result import TagResult

__all__ = ["curves_figure", "tag_attention_figure", "tags_figure"]

_BAR, _RIGHT, _WRONG, _PALE = "#2e6fb7", "#1b6e3c", "#a3261d", "#6a6a6a"
_ROW_IN, _LABEL_IN, _WIDTH_IN = 0.21, 1.5, 7.4
_POINTS = 1000  # of a curve, as many as can be told apart
_MAPS = 32  # as many as a figure shows


def tags_figure(result: TagResult, top: int = 12) -> Picture:
    """The image, and beside it the surest tags as bars; where the truth is known, green if they
    are right and red if not, with the tags that were missed below."""
    if top < 1:
        raise ValueError(f"a figure of tags needs top of at least 1, got {top}")
    image, shown = shrink(result.image), result.tags[:top]
    truth = result.truth
    missed = [name for name in truth or () if name not in result.names]
    height = max(2.6, _ROW_IN * (len(shown) + 3))
    figure = Picture(figsize=(_WIDTH_IN, height), facecolor="white")
    FigureCanvasAgg(figure)
    picture = figure.add_axes((0.02, 0.08, 0.42, 0.84))
    picture.imshow(image)
    picture.set_axis_off()
    left = 0.46 + _LABEL_IN / _WIDTH_IN
    axes = figure.add_axes((left, 0.14, 0.97 - left, 0.76))
    scores = [score for _, score in shown]
    colors = [_BAR if truth is None else _RIGHT if n in truth else _WRONG for n, _ in shown]
    axes.barh(range(len(shown)), scores, color=colors, height=0.72)
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    axes.set_xlim(min([0.0, *scores]), max([0.0, *scores]) * 1.16 or 1.0)
    axes.set_yticks(
        range(len(shown)),
        [clipped(n, _LABEL_IN, 8) for n, _ in shown],
        fontsize=8,
        parse_math=False,
    )
    for row, score in enumerate(scores):
        axes.text(max(score, 0), row, f" {score:.2f}", fontsize=7, va="center", color=_PALE)
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    more = len(result.tags) - len(shown)
    heading = f"{len(result.tags)} tags" + (f", the {len(shown)} surest" if more else "")
    axes.set_title(heading, fontsize=9, loc="left")
    if missed:
        said = clipped(f"missed: {', '.join(missed)}", 0.52 * _WIDTH_IN, 7.5)
        figure.text(0.46, 0.03, said, fontsize=7.5, color=_WRONG, parse_math=False)
    return figure


def tag_attention_figure(
    image: NDArray[np.uint8],
    attention: Any,
    names: Sequence[str],
    scores: Sequence[float] | None = None,
) -> Picture:
    """The image, and where each tag is looked for; each map is scaled from its least to its
    greatest value.

    Args:
        image: uint8 [H, W, 3].
        attention: [T, h, w], an array or a tensor, as of :func:`vpd.tags.tag_attention`.
        names: T tags. The first 32 are shown.
        scores: T numbers to say beside the names.

    Raises:
        ValueError: Not one map, name and score for each tag.
    """
    maps = np.asarray(
        attention.detach().float().cpu() if hasattr(attention, "detach") else attention
    )
    values = [None] * len(names) if scores is None else list(scores)
    if maps.ndim != 3 or len({len(maps), len(names), len(values)}) > 1:
        raise ValueError(
            "a figure of tags' attention needs maps [T, h, w], T names and T scores, got "
            f"{list(maps.shape)}, {len(names)} and {len(values)}"
        )
    small = shrink(image)
    said = [
        name if value is None else f"{name} {value:.2f}"
        for name, value in zip(names, values, strict=True)
    ]
    panels = [Panel(small, "image")]
    panels += [
        Panel(overlay_heat(small, one), title)
        for one, title in zip(maps[:_MAPS], said[:_MAPS], strict=True)
    ]
    return page([Band(panels[i : i + 6]) for i in range(0, len(panels), 6)], columns=6)


def curves_figure(
    curves: Mapping[str, PrecisionRecall], floors: Mapping[str, PrecisionRecall] | None = None
) -> Picture:
    """Precision against recall, in percent, with the average precision in the legend.

    Args:
        curves: By name.
        floors: Grey and dashed, such as that of shuffled tags.

    Raises:
        ValueError: No curve.
    """
    if not curves:
        raise ValueError("a figure of precision and recall needs at least one curve, got none")
    figure = Picture(figsize=(5.4, 4.4), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    styles: list[dict[str, Any]] = [
        {"color": COLORS[i % len(COLORS)], "linewidth": 1.6} for i in range(len(curves))
    ]
    greys = [{"color": "#8a8a8a", "linestyle": "--", "linewidth": 1.3}] * len(floors or {})
    drawn = [*curves.items(), *(floors or {}).items()]
    for (name, curve), style in zip(drawn, [*styles, *greys], strict=True):
        recall, precision = _thinned(curve)
        label = f"{printable(name)}, AP {curve.average_precision:.1f}".replace("$", r"\$")
        axes.plot(100 * recall, 100 * precision, label=label, drawstyle="steps-pre", **style)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 103)
    axes.set_xlabel("recall, %")
    axes.set_ylabel("precision, %")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def _thinned(curve: PrecisionRecall) -> tuple[NDArray[Any], NDArray[Any]]:
    """Recall and precision from recall 0 on, at most so many points as a picture can show."""
    count = len(curve.recall)
    if not count:
        return np.zeros(0), np.zeros(0)
    kept = np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(int))
    recall, precision = curve.recall[kept], curve.precision[kept]
    return np.append(0.0, recall), np.append(precision[0], precision)
