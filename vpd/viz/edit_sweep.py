"""An editor under several guidances: scores as a curve, pictures as a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vpd.viz.lines import Line, lines_figure
from vpd.viz.overlay import shrink
from vpd.viz.page import Band, Panel, Picture, page

if TYPE_CHECKING:
    from vpd.tasks.editor_results import EditResult

__all__ = ["guidance_grid", "tradeoff_figure"]


def tradeoff_figure(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """How well edits follow their texts against how near they stay to their pictures: a point for
    each row of :func:`vpd.tasks.evaluate_edit.evaluate_edit`, joined over image guidances
    (strengths of SDEdit).

    Raises:
        ValueError: No row with similarities.
    """
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("sim_image") is not None:
            kinds.setdefault(_label(row), []).append(row)
    if not kinds:
        raise ValueError("a trade-off needs rows with similarities, which take a CLIP; got none")
    lines = []
    styles = {"editor": 0, "sdedit": 1, "truth": 2}
    for color, (label, own) in enumerate(kinds.items()):
        xs, ys = ([row[name] for row in own] for name in ("sim_direction", "sim_image"))
        lines.append(Line(label, xs, ys, color=color, style=styles[own[0]["method"]]))
    return lines_figure(lines, x_label="CLIP direction similarity", y_label="CLIP image similarity")


def _label(row: Mapping[str, Any]) -> str:
    if row["method"] == "truth":
        return "true edited pictures"
    name = "SDEdit, strengths" if row["method"] == "sdedit" else "editor, image guidances"
    return f"{name}, text {row['scale_txt']:g}"


def guidance_grid(results: Sequence[EditResult]) -> Picture:
    """One edit of one picture under several guidances: a row for each of the text, a column for
    each of the image, the picture itself in front.

    Args:
        results: Each pair of guidances once, in any order.

    Raises:
        ValueError: No result, or not each pair once.
    """
    texts = sorted({one.text_guidance for one in results})
    images = sorted({one.image_guidance for one in results})
    found = {(one.text_guidance, one.image_guidance): one for one in results}
    if not results or len(found) < len(texts) * len(images) or len(found) < len(results):
        raise ValueError(
            f"a grid of {len(texts)} x {len(images)} guidances needs each pair of them once, got "
            f"{len(results)} results"
        )
    first, bands = results[0], []
    for text in texts:
        row = [found[text, image] for image in images]
        panels = [Panel(shrink(one.image), f"image {one.image_guidance:g}") for one in row]
        heading = f"“{first.instruction}”" if text == texts[0] else ""
        panels = [Panel(shrink(first.before), "before"), *panels]
        bands.append(Band(panels, heading=heading, label=f"text {text:g}"))
    return page(bands, width_in=0.6 + 1.5 * (len(images) + 1))
