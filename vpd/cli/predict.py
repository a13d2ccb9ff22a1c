"""``vpd predict``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from vpd.cli.answer import Answer
from vpd.cli.models import DEFAULT, DType

_OWN = (".mask.png", ".figure.png")


def predict(
    image: Path,
    text: str,
    *,
    out: Path = Path("vpd-out"),
    model: str = DEFAULT,
    weights: list[Path] | None = None,
    token_length: int | None = None,
    npz: bool = False,
    figure: bool = True,
    device: str = "cpu",
    dtype: DType = "float32",
) -> Answer:
    """Segments what a sentence refers to, in one image or in every image of a folder.

    Writes NAME.mask.png (0 and 255, at the image's size) and NAME.figure.png. Files that exist are
    replaced. In a folder, an
    image that cannot be read is named and the others are done; the exit code is then 1.

    Args:
        image: an image file, or a folder of them
        text: what to look for, e.g. "the red cube behind the ball"
        out: folder for the results, made if missing
        model: a shipped model, or a folder that vpd train wrote
        weights: instead of a model: Stable Diffusion v1 (one file or a diffusers folder) and an
            official VPD referring
            checkpoint
        token_length: tokens of a sentence, with weights
        npz: also write NAME.npz with image, probability, mask and attention maps
        figure: write the figure
        device: cpu, cuda or cuda:N
        dtype: precision of the networks
    """
    from vpd.cli.models import refer_model

    if not text.strip():
        raise ValueError("the sentence is empty: say what to look for")
    paths = _images(image)
    network = refer_model(model, weights, device, dtype, token_length)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    several = image.is_dir()
    for path, name in zip(paths, _names(paths), strict=True):
        try:
            result = network(path, text)
        except (ValueError, OSError) as error:
            if not several:
                raise
            failed.append({"image": str(path), "error": " ".join(str(error).split())})
            print(f"vpd: failed: {failed[-1]['error']}", file=sys.stderr)
            continue
        if result.truncated:
            print("vpd: warning: the sentence is longer than the model reads", file=sys.stderr)
        files = [result.save(out / f"{name}.mask.png")]
        if figure:
            files.append(result.save(out / f"{name}.figure.png"))
        if npz:
            files.append(result.save(out / f"{name}.npz"))
        done.append(
            {
                "image": str(path),
                "files": [str(file) for file in files],
                "mask_pixels": int(result.mask.sum()),
                "pixels": int(result.mask.size),
                "largest_probability": float(result.probability.max()),
                "truncated": result.truncated,
            }
        )
    lines = [
        f"{row['image']}: {row['mask_pixels'] / row['pixels']:.1%} of it -> {row['files'][0]}"
        for row in done
    ]
    lines += [f"failed: {row['error']}" for row in failed]
    data = {"text": text, "results": done, "failed": failed}
    return Answer(data, "\n".join(lines), code=1 if failed else 0)


def _images(path: Path) -> list[Path]:
    from vpd.images import list_images

    if not path.is_dir():
        return [path]
    # A second run on a folder that results were written to does not take them for images.
    images = [file for file in list_images(path) if not file.name.endswith(_OWN)]
    if not images:
        raise ValueError(f"{path}: expected at least one image, got only results of vpd")
    return images


def _names(paths: list[Path]) -> list[str]:
    """The stem of each file; its full name where several share a stem."""
    stems = [path.stem for path in paths]
    return [p.stem if stems.count(p.stem) == 1 else p.name for p in paths]
