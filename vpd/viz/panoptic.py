"""Segments as pictures and files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vpd.data.files import write_npz, write_png
from vpd.data.masks import mask_box
from vpd.data.panoptic_files import (
    category_rows,
    image_row,
    segments_info,
    write_ids,
    write_tables,
)
from vpd.viz.dense import blend, legend, palette
from vpd.viz.files import save_as
from vpd.viz.overlay import RGB, shrink
from vpd.viz.page import Band, Panel, Picture, page

if TYPE_CHECKING:
    from vpd.tasks.panoptic_results import PanopticResult

__all__ = [
    "panoptic_figure", "panoptic_overlay", "save_panoptic", "segment_colors",
    "vocabularies_figure",
]  # fmt: skip

_FIRST_CATEGORY = 1  # in the files, as in COCO's
_NUDGE = 40  # how much colours of objects of one class differ at most


def segment_colors(result: PanopticResult) -> RGB:
    """uint8 [segments + 1, 3]: black for no segment, then near its class's colour each segment;
    objects of one class differ a little, the same in every picture of as many."""
    colors = np.zeros((len(result.segments) + 1, 3), np.int64)
    classes, seen = palette(len(result.names)).astype(np.int64), dict.fromkeys(result.names, 0)
    for row, segment in enumerate(result.segments, start=1):
        name = result.names[segment.category]
        nudge = np.random.default_rng(seen[name]).integers(-_NUDGE, _NUDGE + 1, 3)
        colors[row] = classes[segment.category] + (nudge if seen[name] else 0)
        seen[name] += 1
    return colors.clip(0, 255).astype(np.uint8)


def panoptic_overlay(result: PanopticResult) -> RGB:
    """The picture, uint8 [H, W, 3], with its segments in colour and lines between them."""
    rows = result.label.rows()
    shown = segment_colors(result)[rows]
    mixed = blend(result.image, shown)
    mixed[rows == 0] = result.image[rows == 0]
    mixed[_borders(rows)] = 255
    return mixed


def panoptic_figure(result: PanopticResult) -> Picture:
    """Image, segments over it, segments alone; below, each segment with its share of the pixels."""
    alone = segment_colors(result)[result.label.rows()]
    panels = [
        Panel(shrink(result.image), "image"),
        Panel(shrink(panoptic_overlay(result)), "segments"),
        Panel(shrink(alone), "segments alone"),
    ]
    return page([Band(panels), *legend(_named(result))], columns=3)


def vocabularies_figure(results: Mapping[str, PanopticResult]) -> Picture:
    """What one picture shows in several vocabularies: for each the picture, the segments over it
    and the categories that were found, below what was asked for.

    Args:
        results: By vocabulary, as it was typed.
    """
    bands: list[Band] = []
    for asked, result in results.items():
        over = shrink(panoptic_overlay(result))
        panels = [Panel(shrink(result.image), "image"), Panel(over, "segments")]
        bands += [Band(panels, heading=asked, columns=3), *legend(_found(result))]
    return page(bands)


def _named(result: PanopticResult) -> list[tuple[str, NDArray[np.uint8]]]:
    """Each segment with its share of the pixels, and its colour; the largest first."""
    colors, counts = segment_colors(result), result.label.areas()
    rows = [
        (f"{result.names[s.category]} {area / result.ids.size:.0%}", colors[i])
        for i, (s, area) in enumerate(zip(result.segments, counts, strict=True), start=1)
    ]
    return [rows[i] for i in np.argsort([-area for area in counts], kind="stable")]


def _found(result: PanopticResult) -> list[tuple[str, NDArray[np.uint8]]]:
    """Each category with its segments' number and share of the pixels, and its colour."""
    colors, counts = palette(len(result.names)), np.array(result.label.areas())
    owners = np.array([segment.category for segment in result.segments], int)
    rows = []
    for category in np.unique(owners):
        own = counts[owners == category]
        number = f" x{len(own)}" if result.things[category] else ""
        share = own.sum() / result.ids.size
        rows.append((f"{result.names[category]}{number} {share:.0%}", colors[category]))
    return rows


def save_panoptic(result: PanopticResult, path: Path) -> Path:
    """Writes a result in the form that the file name asks for.

    ``.figure.png``: the figure; ``.png``: the segments over the image; ``.json``: a file of COCO's
    panoptic tables, whose map of ids is beside it (``.ids.png``), and the ``instances`` with
    run-length masks and scores; ids of categories are places among the names, from 1; ``.npz``:
    ``image``, ``ids``, ``segments`` [n, 2] (id, class), ``scores`` [n], ``classes``, ``names``,
    ``things``.

    Raises:
        ValueError: Another extension. OSError: the file cannot be written.
    """

    def figure(path: Path) -> None:
        panoptic_figure(result).save(path)

    def overlay(path: Path) -> None:
        write_png(path, panoptic_overlay(result))

    def tables(path: Path) -> None:
        ids_path = path.with_suffix(".ids.png")
        write_ids(ids_path, result.ids)
        write_tables(path, _tables(result, path.stem, ids_path.name))

    def arrays(path: Path) -> None:
        write_npz(
            path,
            image=result.image,
            ids=result.ids,
            segments=np.array([(s.id, s.category) for s in result.segments]).reshape(-1, 2),
            scores=np.array([np.nan if s.score is None else s.score for s in result.segments]),
            classes=result.classes,
            names=np.array(result.names, dtype=str),
            things=np.array(result.things),
        )

    forms = {".figure.png": figure, ".png": overlay, ".json": tables, ".npz": arrays}
    return save_as(path, forms)


def _tables(result: PanopticResult, image_id: str, ids_name: str) -> dict[str, Any]:
    ids = range(_FIRST_CATEGORY, _FIRST_CATEGORY + len(result.names))
    return {
        "images": [image_row(image_id, image_id, result.ids.shape)],
        "annotations": [
            {
                "image_id": image_id,
                "file_name": ids_name,
                "segments_info": segments_info(result.label, ids),
            }
        ],
        "categories": category_rows(result.names, result.things, _FIRST_CATEGORY),
        "instances": [
            {
                "image_id": image_id,
                "category_id": ids[one.category],
                "segmentation": one.mask,
                "bbox": mask_box(one.decode()),
                "area": one.area,
                "score": None if one.score is None else round(one.score, 6),
            }
            for one in result.instances
        ],
    }


def _borders(rows: NDArray[np.integer]) -> NDArray[np.bool_]:
    """bool [H, W]: pixels whose right or lower neighbour is of another segment."""
    found = np.zeros(rows.shape, bool)
    found[:, :-1] |= rows[:, :-1] != rows[:, 1:]
    found[:-1] |= rows[:-1] != rows[1:]
    return found
