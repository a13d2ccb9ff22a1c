"""Predictions beside the truth, one picture file per image, and curves of scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vpd.metrics import TagMetrics
    from vpd.tasks.refer import ReferSegmenter


def draw_comparisons(
    network: ReferSegmenter, samples: Any, out: Path, limit: int | None = None
) -> list[Path]:
    """Writes image | attention | mask | truth, a row per sentence, as ``scene-NNN.png``."""
    from tqdm import tqdm

    from vpd.tasks.samples import first, refer_samples
    from vpd.viz import Comparison, comparison_sheet

    paths = []
    source = refer_samples(samples)
    total = min(len(source), limit or len(source))
    for index, picture in enumerate(
        tqdm(first(source, limit), total=total, desc="drawing", unit="image")
    ):
        results = network(picture.image, [question.text for question in picture.questions])
        rows = [
            Comparison(result, question.mask, question.kind or "")
            for result, question in zip(results, picture.questions, strict=True)
        ]
        paths.append(comparison_sheet(rows).save(out / f"scene-{index:03d}.png", dpi=100))
    return paths


def draw_tag_curves(tags: TagMetrics, path: Path) -> Path:
    """Precision against recall of all tags together, beside those of other pictures."""
    from vpd.viz.tags import curves_figure

    curves = {"all tags": tags.curve()}
    floors = {"of other pictures": tags.shuffled().curve()}
    return curves_figure(curves, floors).save(path)
