"""Figures of referring segmentation: results, attention, predictions beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vpd.viz.overlay import RGB, colorize, overlay_heat, overlay_mask, shrink
from vpd.viz.page import Band, Panel, Picture, page

if TYPE_CHECKING:
    from vpd.tasks.maps import AttentionMaps
    from vpd.tasks.results import ReferResult, WordMaps

__all__ = [
    "Comparison",
    "comparison_sheet",
    "confidence_map",
    "maps_figure",
    "noise_figure",
    "refer_figure",
]

_WORDS = 32  # as many as a figure shows
_GOOD, _BAD = "#1b6e3c", "#a3261d"


@dataclass(frozen=True)
class Comparison:
    """A prediction and what would have been right."""

    result: ReferResult
    truth: NDArray[np.bool_]
    """bool [H, W], of the image's size."""
    note: str = ""
    """Said behind the sentence, e.g. its kind."""

    @property
    def iou(self) -> float:
        """Intersection over union in percent; 0 where both masks are empty."""
        union = int(np.count_nonzero(self.result.mask | self.truth))
        return 100 * int(np.count_nonzero(self.result.mask & self.truth)) / union if union else 0.0


def confidence_map(probability: NDArray[np.floating]) -> RGB:
    """Probability [H, W] in [0, 1] as colours: black is 0 and pale yellow 1 in every picture."""
    return colorize(probability, 0.0, 1.0, "inferno")


def refer_figure(result: ReferResult) -> Picture:
    """Image, attention of all words, probability and mask; below, the attention of each word.

    Attention panels are each scaled from their least to their greatest value.
    """
    image = shrink(result.image)
    panels = [Panel(image, "image")]
    if result.attention.strides:
        panels.append(Panel(_attention(image, result.attention), "attention of all words"))
    panels.append(Panel(confidence_map(shrink(result.probability)), "probability"))
    panels.append(Panel(_spotlight(image, result.mask), "mask"))
    words: list[Panel] = []
    if result.attention.strides:
        shown = zip(result.attention.words, result.attention.finest, strict=True)
        words = [Panel(overlay_heat(image, map_), word) for word, map_ in shown]
    words = words[:_WORDS]
    cut = "  [the model read only its beginning]" if result.truncated else ""
    bands = [Band(panels, heading=f"“{result.text.strip()}”{cut}")]
    bands += [Band(words[i : i + 8], columns=8) for i in range(0, len(words), 8)]
    return page(bands, columns=4)


def noise_figure(results: Mapping[str, ReferResult]) -> Picture:
    """What noise does to a prediction (figure 6 of the F-VPD report): one column for each result,
    its mask in yellow on the image above, its probability below.

    Args:
        results: By what stands above them, such as the timestep; of one image and sentence.
    """
    if not results:
        raise ValueError("a figure of noise needs at least one result")
    several = list(results.values())
    image = shrink(several[0].image)
    masks = [Panel(_spotlight(image, r.mask), title) for title, r in results.items()]
    sure = [Panel(confidence_map(shrink(r.probability))) for r in several]
    heading = f"“{several[0].text.strip()}”"
    bands = [Band(masks, heading=heading, label="mask"), Band(sure, label="probability")]
    return page(bands, columns=max(3, len(several)))


def comparison_sheet(rows: Sequence[Comparison]) -> Picture:
    """Image | attention | mask | truth, one row per sentence, with the sentence and its IoU above.

    The heading is green from an IoU of 50 on, which is what P@0.5 counts, and red below.
    """
    bands = []
    for index, row in enumerate(rows):
        image = shrink(row.result.image)
        panels = [
            Panel(image),
            Panel(_attention(image, row.result.attention)),
            Panel(_spotlight(image, row.result.mask)),
            Panel(_spotlight(image, row.truth)),
        ]
        if index == 0:
            names = ("image", "attention of all words", "mask", "truth")
            panels = [Panel(p.pixels, name) for p, name in zip(panels, names, strict=True)]
        note = f" ({row.note})" if row.note else ""
        heading = f"“{row.result.text.strip()}”{note}, IoU {row.iou:.0f}"
        bands.append(Band(panels, heading=heading, color=_GOOD if row.iou >= 50 else _BAD))
    return page(bands, columns=4)


def maps_figure(
    maps: AttentionMaps | Sequence[AttentionMaps], *, overlay: bool = True, columns: int = 10
) -> Picture:
    """One row per timestep and stride, one column per word or token; long sentences continue below.

    Args:
        maps: Of one sentence on one image, e.g. at several timesteps.
        overlay: Over the image; otherwise the bare maps, pixel by pixel.
        columns: At most so many maps beside each other; then the sentence continues below.

    Each map is scaled from its least to its greatest value.
    """
    several = [maps] if not isinstance(maps, Sequence) else list(maps)
    if not several or not several[0].labels:
        raise ValueError("a figure of attention needs at least one map of at least one word")
    first = several[0]
    image = shrink(first.image)
    count = len(first.labels)
    columns = -(-count // -(-count // columns))  # lines of nearly equal length
    bands: list[Band] = []
    for start in range(0, len(first.labels), columns):
        labels = first.labels[start : start + columns]
        named = True
        for one in several:
            for values in one.maps.values():
                shown = values[start : start + columns]
                cells = [overlay_heat(image, v) if overlay else _bare(v) for v in shown]
                panels = [
                    Panel(cell, label if named else "")
                    for cell, label in zip(cells, labels, strict=True)
                ]
                named = False
                height, width = values.shape[-2:]
                heading = f"“{first.text.strip()}”" if not bands else ""
                label = f"{one.step}\n{height} × {width}{one.part}"
                bands.append(Band(panels, heading=heading, label=label))
    return page(bands, columns=columns, width_in=1.1 + 1.25 * max(columns, 2))


def _spotlight(image: RGB, mask: NDArray[np.bool_]) -> RGB:
    """The mask in yellow on the image, which is darkened elsewhere."""
    shown = shrink(mask)
    dark = np.where(shown[..., None], image, image * 0.55).astype(np.uint8)
    return overlay_mask(dark, shown)


def _bare(values: NDArray[np.float32]) -> RGB:
    """A map pixel by pixel, enlarged so that no viewer blurs it."""
    colors = colorize(values)
    times = max(1, 256 // max(values.shape))
    return colors.repeat(times, axis=0).repeat(times, axis=1)


def _attention(image: RGB, words: WordMaps) -> RGB:
    """Mean of the words' maps, each scaled to [0, 1]; the grey image if there is no map."""
    if not words.strides or not len(words.finest):
        return overlay_heat(image, np.zeros((1, 1), np.float32), 0, 1)
    maps = words.finest
    low = maps.min(axis=(1, 2), keepdims=True)
    span = np.maximum(maps.max(axis=(1, 2), keepdims=True) - low, 1e-12)
    return overlay_heat(image, ((maps - low) / span).mean(axis=0))
