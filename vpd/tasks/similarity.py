"""How much of what a U-Net sees and finds survives noise: clean against noisy latents, features and
attention maps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vpd.daam import prompt_tokens
from vpd.data.files import json_lines, write_texts
from vpd.models.unet import Taps
from vpd.protocol import NoiseSpec
from vpd.tables import markdown_table
from vpd.tasks.evaluate import preset_name
from vpd.tasks.foundation import Foundation
from vpd.tasks.passes import Pass, Passes
from vpd.tasks.refer import ReferSegmenter
from vpd.tasks.samples import SamplePicture, check_counts, groups, refer_samples
from vpd.tokens import tokenize

__all__ = ["PARTS", "Similarity", "SimilarityRow", "similarity"]

Part = Literal["latents", "features", "attention", "words"]
PARTS: tuple[Part, ...] = ("latents", "features", "attention", "words")


@dataclass(frozen=True)
class SimilarityRow:
    """One part of a model under one noise protocol against the same without noise: mean and
    standard deviation over ``n`` comparisons of whole tensors."""

    noise: NoiseSpec
    part: Part
    """``latents``, once per picture; ``features``, F1 ... F4 by stride; ``attention``, the averaged
    maps of all tokens, as a decoder sees them; ``words``, those of the sentence's own tokens:
    start, end and padding, which draw most of the attention anyhow, left out."""
    stride: int
    """On the latent grid."""
    n: int
    cosine: float
    """Of the angle between clean and noisy."""
    cosine_std: float
    relative_l2: float
    """|noisy - clean| / |clean|."""
    relative_l2_std: float


@dataclass(frozen=True)
class Similarity:
    """What :func:`similarity` found."""

    rows: tuple[SimilarityRow, ...]
    protocol: dict[str, Any]

    def row(self, noise: NoiseSpec, part: Part, stride: int) -> SimilarityRow:
        """One cell of the study."""
        key = (noise, part, stride)
        return next(row for row in self.rows if (row.noise, row.part, row.stride) == key)

    def records(self) -> list[dict[str, Any]]:
        """A flat record of each row."""
        names = ("part", "stride", "n", "cosine", "cosine_std", "relative_l2", "relative_l2_std")
        return [
            {
                "protocol": preset_name(replace(row.noise, noise_t=0)),
                "t": row.noise.noise_t,
                "seed": row.noise.seed,
                **{name: getattr(row, name) for name in names},
            }
            for row in self.rows
        ]

    def to_dict(self) -> dict[str, Any]:
        return {"protocol": self.protocol, "rows": self.records()}

    def table(self) -> str:
        """Markdown: a line for each part and level, a column for each timestep; cosine, then
        relative L2."""
        noises = list(dict.fromkeys(row.noise for row in self.rows))
        blocks = []
        for title, name in (("cosine", "cosine"), ("relative L2", "relative_l2")):
            lines = [[title, *(f"t = {noise.noise_t}" for noise in noises)]]
            for part, stride in dict.fromkeys((row.part, row.stride) for row in self.rows):
                values = [getattr(self.row(noise, part, stride), name) for noise in noises]
                lines.append([_label(part, stride), *(f"{value:.4f}" for value in values)])
            blocks.append(markdown_table(lines, left=1))
        return "\n".join(blocks)

    def write(self, out: str | Path) -> list[Path]:
        """Writes ``similarity.jsonl``, which is the record, and what is drawn from it:
        ``similarity.md`` and the curves ``similarity.cosine.png`` and ``similarity.l2.png``."""
        from vpd.viz.lines import Line, lines_figure

        out = Path(out)
        files = write_texts(
            out,
            {"similarity.jsonl": json_lines(self.records()), "similarity.md": self.table()},
        )
        for short, name, label in (
            ("cosine", "cosine", "cosine of clean and noisy"),
            ("l2", "relative_l2", "|noisy - clean| / |clean|"),
        ):
            lines = []
            for part, stride in dict.fromkeys((row.part, row.stride) for row in self.rows):
                own = [row for row in self.rows if (row.part, row.stride) == (part, stride)]
                own.sort(key=lambda row: row.noise.noise_t)
                ys = [getattr(row, name) for row in own]
                ts = [row.noise.noise_t for row in own]
                color, style = int(math.log2(stride)), PARTS.index(part)
                lines.append(Line(_label(part, stride), ts, ys, color=color, style=style))
            figure = lines_figure(lines, x_label="timestep of the noise", y_label=label)
            files.append(figure.save(out / f"similarity.{short}.png"))
        return files


@torch.inference_mode()
def similarity(
    model: ReferSegmenter | Foundation,
    samples: Any,
    noises: Sequence[NoiseSpec],
    *,
    clean: NoiseSpec | None = None,
    strides: Sequence[int] | None = None,
    batch: int = 16,
    limit: int | None = None,
    progress: bool = True,
) -> Similarity:
    """Compares what a U-Net sees and finds under noise with the same without noise.

    Two explanations of why noise hurts a perception model so little can be told apart by it: clean
    and noisy latents share most of their information, or the U-Net's features are alike whatever
    the noise.

    Args:
        model: A task model (its text adapter is applied) or a pre-trained foundation.
        samples: What :func:`vpd.tasks.evaluate.evaluate_refer` takes.
        noises: Protocols, usually one at several timesteps. A picture meets the same noise at each.
        clean: What they are compared with; the first one's protocol at timestep 0, without noise,
            if None.
        strides: Of the attention maps, on the latent grid; a task model's own, else (2, 4), if
            None.
        batch: Rows (sentence and timestep) per pass.
        limit: Only the first so many pictures.
        progress: Show a bar.

    Raises:
        ValueError: No protocol, strides that the U-Net lacks, or ``batch`` or ``limit`` below 1.
    """
    from tqdm import tqdm

    noises = list(dict.fromkeys(noises))
    if not noises:
        raise ValueError("expected at least one noise protocol, got none")
    check_counts(batch=batch, limit=limit)
    clean = clean or replace(noises[0], noise_t=0, t0_is_clean=True)
    if strides is None:
        strides = model.config.map_strides if isinstance(model, ReferSegmenter) else (2, 4)
    source = refer_samples(samples)
    specs = list(dict.fromkeys([clean, *noises]))
    passes = Passes(model, [(spec,) for spec in specs], batch)
    taps = Taps(attention=tuple(strides))
    found: dict[tuple[NoiseSpec, Part, int], list[tuple[float, float]]] = {}
    count = min(len(source), limit or len(source))
    with tqdm(total=count, desc="similarity", unit="image", disable=not progress) as bar:
        for places in groups(source, batch, limit):
            group = [source[place] for place in places]
            reference: dict[tuple[int, int], dict[tuple[Part, int], Tensor]] = {}
            for one in passes(group):
                for place, parts in enumerate(_parts(model, one, group, taps)):
                    row = one.rows[place]
                    known = reference.setdefault((row.image, row.question), parts)
                    for (part, stride), noisy in parts.items():
                        scores = found.setdefault((specs[row.protocol], part, stride), [])
                        scores.append(_compared(known[part, stride], noisy))
            bar.update(len(group))
    rows = [
        _row(noise, part, stride, found[noise, part, stride])
        for noise in noises
        for part in PARTS
        for stride in sorted({key[2] for key in found if key[1] == part})
    ]
    return Similarity(tuple(rows), _protocol(model, source, clean, count))


def _parts(
    model: ReferSegmenter | Foundation, one: Pass, group: Sequence[SamplePicture], taps: Taps
) -> Iterator[dict[tuple[Part, int], Tensor]]:
    """What is compared, of each row of a pass."""
    out = model.unet(
        one.latents, one.timesteps, one.context, image_index=one.index, taps=taps
    )  # fmt: skip
    for place, row in enumerate(one.rows):
        parts: dict[tuple[Part, int], Tensor] = {}
        if row.question == 0:
            parts["latents", 1] = one.latents[one.index[place]]
        for level, features in enumerate(out.features):
            parts["features", 2**level] = features[place]
        text = group[row.image].questions[row.question].text
        own = prompt_tokens(tokenize(text, one.context.shape[1]))[0]
        for stride, maps in out.attention.items():
            parts["attention", stride] = maps[place]
            if own.any():
                parts["words", stride] = maps[place, own]
        yield parts


def _compared(clean: Tensor, noisy: Tensor) -> tuple[float, float]:
    """Cosine and relative L2 of two tensors of one shape."""
    a, b = clean.flatten().double(), noisy.flatten().double()
    length = torch.linalg.vector_norm(a)
    cosine = a @ b / (length * torch.linalg.vector_norm(b))
    return float(cosine), float(torch.linalg.vector_norm(b - a) / length)


def _row(
    noise: NoiseSpec, part: Part, stride: int, scores: list[tuple[float, float]]
) -> SimilarityRow:
    cosines, distances = zip(*scores, strict=True)
    numbers = [
        value
        for values in (cosines, distances)
        for value in (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
    ]
    return SimilarityRow(noise, part, stride, len(scores), *numbers)


def _protocol(
    model: ReferSegmenter | Foundation, source: Any, clean: NoiseSpec, images: int
) -> dict[str, Any]:
    weight = next(model.unet.parameters())
    return {
        "task": "foundation" if isinstance(model, Foundation) else "refer",
        "clean": clean.to_dict(),
        "data": source.name,
        "split": source.split,
        "images": images,
        "image_size": model.config.image_size,
        "token_length": model.config.token_length,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "device": weight.device.type,
    }


def _label(part: str, stride: int) -> str:
    if part == "features":
        return f"F{int(math.log2(stride)) + 1}"
    return part if part == "latents" else f"{part}, stride {stride}"
