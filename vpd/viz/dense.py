"""Classes and depths as pictures and files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vpd.data.files import atomic_write, write_npz, write_png
from vpd.viz.files import save_as
from vpd.viz.overlay import RGB, colorize, shrink
from vpd.viz.page import Band, Panel, Picture, page

if TYPE_CHECKING:
    from vpd.tasks.dense_results import DepthResult, SemanticResult

__all__ = [
    "blend",
    "class_colors",
    "depth_colors",
    "depth_figure",
    "legend",
    "palette",
    "save_depth",
    "save_semantic",
    "semantic_figure",
]

_NAMED = 24  # classes or segments that a figure names


def palette(count: int) -> RGB:
    """Colours of ids 0 ... count - 1, uint8 [count, 3]: those that PASCAL VOC gives the ids from 1
    on, so that none is black."""
    ids = np.arange(1, count + 1)[:, None]
    colors = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        channels = (ids >> np.arange(3)) & 1
        colors |= (channels << (7 - bit)).astype(np.uint8)
        ids = ids >> 3
    return colors


def class_colors(classes: NDArray[np.integer], count: int) -> RGB:
    """Class ids [H, W] as colours, uint8 [H, W, 3]."""
    return palette(count)[classes]


def depth_colors(depth_m: NDArray[np.floating], low: float, high: float) -> RGB:
    """Depth [H, W] as colours: near is pale yellow, far is black."""
    return colorize(-depth_m, -high, -low, "inferno")


def semantic_figure(result: SemanticResult) -> Picture:
    """Image, classes over it, classes and how sure the model is; below, each class by itself."""
    image = shrink(result.image)
    colors = palette(len(result.names))
    size = image.shape[:2]
    shown = class_colors(_nearest(result.classes, size), len(result.names))
    mixed = blend(image, shown)
    sure = colorize(shrink(result.probability), 0.0, 1.0, "inferno")
    bands = [
        Band(
            [
                Panel(image, "image"),
                Panel(mixed, "classes"),
                Panel(shown, "classes alone"),
                Panel(sure, "probability"),
            ]
        )
    ]
    ids = {name: i for i, name in enumerate(result.names)}
    found = result.shares.items()
    bands += legend([(f"{name} {share:.0%}", colors[ids[name]]) for name, share in found])
    return page(bands, columns=4)


def blend(image: RGB, shown: RGB) -> RGB:
    """Colours over an image, both uint8 [H, W, 3]."""
    return (0.45 * image + 0.55 * shown).round().astype(np.uint8)


def legend(rows: Sequence[tuple[str, NDArray[np.uint8]]]) -> list[Band]:
    """Patches of colour with what they stand for, as many as a figure names."""
    patches = [
        Panel(np.full((24, 64, 3), color, np.uint8), title) for title, color in rows[:_NAMED]
    ]
    return [Band(patches[i : i + 8], columns=8) for i in range(0, len(patches), 8)]


def depth_figure(result: DepthResult) -> Picture:
    """Image and depth, near in pale yellow, with the range of the colours."""
    depth = shrink(result.depth_m)
    low, high = float(depth.min()), float(depth.max())
    title = f"depth: {low:.2f} m (pale) to {high:.2f} m (dark)"
    colors = depth_colors(depth, low, high)
    return page([Band([Panel(shrink(result.image), "image"), Panel(colors, title)])], columns=2)


def save_semantic(result: SemanticResult, path: Path) -> Path:
    """Writes a result in the form that the file name asks for.

    ``.figure.png``: the figure; ``.png``: class ids, 8 bit with a palette (16 bit grey beyond 256
    classes); ``.npz``: ``image``, ``classes``, ``probability``, ``names``.

    Raises:
        ValueError: Another extension. OSError: the file cannot be written.
    """

    def figure(path: Path) -> None:
        semantic_figure(result).save(path)

    def ids(path: Path) -> None:
        with atomic_write(path) as file:
            file.write(_indexed(result.classes, len(result.names)))

    def arrays(path: Path) -> None:
        write_npz(
            path,
            image=result.image,
            classes=result.classes.astype(np.uint16 if len(result.names) > 256 else np.uint8),
            probability=result.probability,
            names=np.array(result.names, dtype=str),
        )

    forms = {".figure.png": figure, ".png": ids, ".npz": arrays}
    return save_as(path, forms)


def save_depth(result: DepthResult, path: Path) -> Path:
    """Writes a result in the form that the file name asks for.

    ``.figure.png``: the figure; ``.png``: millimetres, 16 bit, at most 65,535; ``.npz``: ``image``
    and ``depth_m``.

    Raises:
        ValueError: Another extension. OSError: the file cannot be written.
    """

    def figure(path: Path) -> None:
        depth_figure(result).save(path)

    def millimetres(path: Path) -> None:
        write_png(path, (result.depth_m * 1000).round().clip(0, 65535).astype(np.uint16))

    def arrays(path: Path) -> None:
        write_npz(path, image=result.image, depth_m=result.depth_m)

    forms = {".figure.png": figure, ".png": millimetres, ".npz": arrays}
    return save_as(path, forms)


def _indexed(classes: NDArray[np.integer], count: int) -> bytes:
    """A PNG file of class ids; OpenCV writes no palettes."""
    from PIL import Image

    if count > 256:
        image = Image.fromarray(classes.astype(np.uint16))
    else:
        image = Image.fromarray(classes.astype(np.uint8), mode="P")
        image.putpalette(palette(count).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


def _nearest(classes: NDArray[np.integer], size: tuple[int, ...]) -> NDArray[np.integer]:
    rows = (np.arange(size[0]) + 0.5) * classes.shape[0] / size[0]
    columns = (np.arange(size[1]) + 0.5) * classes.shape[1] / size[1]
    return classes[rows.astype(np.int64)[:, None], columns.astype(np.int64)]
