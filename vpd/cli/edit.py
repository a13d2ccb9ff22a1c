"""``vpd edit``."""

from __future__ import annotations

import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vpd.cli.answer import Answer
from vpd.cli.models import DEFAULTS, DType, editor_model

_OWN = (".edited.png", ".figure.png")
_SEEDS = 100_000
# What the demonstration of InstructPix2Pix draws guidance from.
_TEXT, _IMAGE = (6.0, 9.0), (1.2, 1.8)


def edit(
    image: Path,
    instruction: str,
    *,
    out: Path = Path("vpd-out"),
    model: str = DEFAULTS["edit"],
    weights: list[Path] | None = None,
    average: bool | None = None,
    steps: int = 100,
    text_guidance: float | None = None,
    image_guidance: float | None = None,
    random_guidance: bool = False,
    sampler: Literal["euler_ancestral", "euler", "ddim", "ddpm", "dpm++"] = "euler_ancestral",
    seed: int | None = None,
    count: int = 1,
    resolution: int | None = None,
    figure: bool = True,
    device: str = "cpu",
    dtype: DType = "float32",
) -> Answer:
    """Edits an image, every image of a folder, or the frames of a video, as an instruction says.

    Writes NAME.edited.png, about as large as the resolution, and NAME.figure.png with the image
    before; with several seeds NAME.SEED.edited.png and so on. An image that cannot be read is named
    and the others are done; the exit code is then 1. Too little change: more text guidance or less
    image guidance; too much: the other way round.

    Args:
        image: an image file, a folder of them, or a video
        instruction: what to do, e.g. "make the cube blue"
        out: folder for the results, made if missing; for one image a name ending in .png will do
        model: a shipped model, or a folder that vpd train edit wrote
        weights: instead of a model: InstructPix2Pix (one file or a diffusers folder), and parts to
            replace, such as another autoencoder
        average: with weights: use the moving average of the U-Net's; where there is one by default
        steps: calls of the network
        text_guidance: how closely the instruction is followed; the model's own by default
        image_guidance: how close to the image the result stays; the model's own by default
        random_guidance: draw both by the seed instead, from 6 to 9 and from 1.2 to 1.8
        sampler: how to get from noise to an image
        seed: of the noise; drawn and told by default
        count: so many results of each image, by seeds that follow each other
        resolution: about the longer side of a result, in pixels; the model's own by default
        figure: write the figure
        device: cpu, cuda or cuda:N
        dtype: precision of the networks
    """
    from tqdm import tqdm

    from vpd.cli.inputs import count as count_images
    from vpd.cli.inputs import sources

    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    known = count_images(image, _OWN)
    alone = out.suffix.lower() == ".png"
    if alone and (known != 1 or image.is_dir() or count > 1):
        raise ValueError(f"{out}: a file takes one result, name a folder for several")
    editor = editor_model(model, device, dtype, weights, average)
    first = random.SystemRandom().randrange(_SEEDS) if seed is None else seed
    guidance = editor.guidance(text_guidance, image_guidance)
    asked = [
        _Asked(own, *(_drawn(own) if random_guidance else guidance))
        for own in range(first, first + count)
    ]
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    lines: list[str] = []
    total = None if known is None else known * count * steps
    with tqdm(total=total, unit="step", disable=not sys.stderr.isatty()) as bar:

        def stepped(*_: Any) -> None:
            bar.update()

        for source in sources(image, _OWN):
            try:
                results = [
                    editor.edit(
                        source.image, instruction, steps=steps, sampler=sampler,
                        resolution=resolution, on_step=stepped, **asdict(own),
                    )
                    for own in asked
                ]  # fmt: skip
            except (ValueError, OSError) as error:
                if not image.is_dir():
                    raise
                failed.append({"image": source.where, "error": " ".join(str(error).split())})
                continue
            for own, result in zip(asked, results, strict=True):
                name = source.name if count == 1 else f"{source.name}.{own.seed}"
                files = [result.save(out if alone else out / f"{name}.edited.png")]
                if figure and not alone:
                    files.append(result.save(out / f"{name}.figure.png"))
                row = {"image": source.where, "files": [str(file) for file in files]}
                done.append(row | asdict(own) | {"truncated": result.truncated})
                lines.append(f"{source.where}: {own} -> {files[0]}")
    if any(row["truncated"] for row in done):
        print("vpd: warning: the instruction is longer than the model reads", file=sys.stderr)
    lines += [f"failed: {row['error']}" for row in failed]
    data = {"instruction": instruction, "results": done, "failed": failed}
    return Answer(data, "\n".join(lines), code=1 if failed else 0)


@dataclass(frozen=True)
class _Asked:
    """What one result is made with."""

    seed: int
    text_guidance: float
    image_guidance: float

    def __str__(self) -> str:
        guidance = f"{self.text_guidance:g} of the text and {self.image_guidance:g} of the image"
        return f"seed {self.seed}, guidance {guidance}"


def _drawn(seed: int) -> tuple[float, float]:
    """Guidance of text and of image."""
    dice = random.Random(seed)
    text, image = round(dice.uniform(*_TEXT), 2), round(dice.uniform(*_IMAGE), 2)
    return text, image
