"""``vpd predict``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vpd.cli.answer import Answer
from vpd.cli.models import DType
from vpd.cli.options import check_options

Task = Literal["refer", "semantic", "depth"]
_MAIN = {"refer": ".mask.png", "semantic": ".classes.png", "depth": ".depth.png"}
_OWN = (*_MAIN.values(), ".figure.png", ".noise.png")
# Which options belong to some tasks alone, those of referring segmentation apart.
_OWNERS: dict[str, tuple[str, ...]] = {
    "mode": ("semantic",),
    "scales": ("semantic",),
    "flip": ("semantic", "depth"),
    "scene": ("depth",),
}


class _Found(NamedTuple):
    result: Any
    about: dict[str, Any]
    """What --json says of it."""
    said: str
    """The same in words."""
    noise: Any = None
    """A picture of what noise does to it."""


def predict(
    image: Path,
    text: str | None = None,
    *,
    task: Task = "refer",
    out: Path = Path("vpd-out"),
    model: str | None = None,
    weights: list[Path] | None = None,
    token_length: int | None = None,
    mode: Literal["slide", "whole"] | None = None,
    scales: list[float] | None = None,
    flip: bool | None = None,
    scene: str | None = None,
    steps: list[int] | None = None,
    protocol: str = "latent_match",
    every: int = 1,
    npz: bool = False,
    figure: bool = True,
    device: str = "cpu",
    dtype: DType = "float32",
) -> Answer:
    """Predicts for one image, every image of a folder, or the frames of a video.

    refer: what a sentence refers to, NAME.mask.png (0 and 255). semantic: the class of each pixel,
    NAME.classes.png (ids, with a palette). depth: metres, NAME.depth.png (16 bit, millimetres). All
    at the image's size, and each with NAME.figure.png. Files that exist are replaced. In a folder,
    an image that cannot be read is named and the others are done; the exit code is then 1.

    Args:
        image: an image file, a folder of them, or a video
        text: of refer: what to look for, e.g. "the red cube behind the ball"
        task: what to predict
        out: folder for the results, made if missing
        model: a shipped model, or a folder that vpd train wrote; by default the shipped one of the
            task
        weights: of refer, instead of a model: Stable Diffusion v1 (one file or a diffusers folder)
            and an official VPD referring checkpoint
        token_length: of refer: tokens of a sentence, with weights
        mode: of semantic: overlapping windows (slide, the default) or the image in one piece
        scales: of semantic: sizes to average over, e.g. 1,1.25,1.5
        flip: of semantic and depth: average over the mirrored image too
        scene: of depth: type of the scene, one of the model's; the mean of all by default
        steps: of refer: also draw the masks under noise of these timesteps, NAME.noise.png
        protocol: of steps: where that noise goes and what the U-Net is told
        every: of a video: every so manyth frame
        npz: also write NAME.npz with everything as arrays
        figure: write the figure
        device: cpu, cuda or cuda:N
        dtype: precision of the networks
    """
    from tqdm import tqdm

    from vpd.cli.inputs import count, sources

    given = {
        "text": text, "weights": weights, "token_length": token_length, "mode": mode,
        "scales": scales, "flip": flip, "scene": scene, "steps": steps,
    }  # fmt: skip
    check_options(task, given, _OWNERS, "the task")
    known = count(image, _OWN, every)
    ask = _asker(task, model, given, protocol, device, dtype)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    lines: list[str] = []
    several = image.is_dir()
    bar = tqdm(total=known, unit="image", disable=known == 1 or not sys.stderr.isatty())
    with bar:
        for source in sources(image, _OWN, every):
            try:
                found = ask(source.image)
            except (ValueError, OSError) as error:
                if not several:
                    raise
                failed.append({"image": source.where, "error": " ".join(str(error).split())})
                tqdm.write(f"vpd: failed: {failed[-1]['error']}", file=sys.stderr)
                continue
            finally:
                bar.update()
            files = [found.result.save(out / f"{source.name}{_MAIN[task]}")]
            if figure:
                files.append(found.result.save(out / f"{source.name}.figure.png"))
            if found.noise is not None:
                files.append(found.noise.save(out / f"{source.name}.noise.png"))
            if npz:
                files.append(found.result.save(out / f"{source.name}.npz"))
            row = {"image": source.where, "files": [str(file) for file in files]}
            done.append(row | found.about)
            lines.append(f"{source.where}: {found.said} -> {files[0]}")
    lines += [f"failed: {row['error']}" for row in failed]
    data = {"task": task, "results": done, "failed": failed} | ({"text": text} if text else {})
    return Answer(data, "\n".join(lines), code=1 if failed else 0)


def _asker(
    task: Task,
    model: str | None,
    given: dict[str, Any],
    protocol: str,
    device: str,
    dtype: DType,
) -> Callable[[Any], _Found]:
    """Predicts one picture."""
    from vpd.cli.models import DEFAULTS, dense_model, refer_model

    name = model or DEFAULTS[task]
    if task == "refer":
        text = given["text"]
        if text is None or not text.strip():
            raise ValueError("the sentence is empty: say what to look for")
        segmenter = refer_model(name, given["weights"], device, dtype, given["token_length"])
        noisy = _under_noise(segmenter, protocol, given["steps"] or [])
        return lambda image: _refer(image, text, segmenter, noisy)
    network = dense_model(task, name, device, dtype)
    if task == "semantic":
        chosen = {"mode": given["mode"], "scales": given["scales"], "flip": given["flip"]}
        options = {key: value for key, value in chosen.items() if value is not None}
        return lambda image: _semantic(network(image, **options))
    chosen = {"scene": given["scene"], "flip": given["flip"]}
    options = {key: value for key, value in chosen.items() if value is not None}
    return lambda image: _depth(network(image, **options))


def _under_noise(segmenter: Any, protocol: str, steps: list[int]) -> dict[str, Any]:
    """The segmenter under noise of each timestep, by what a figure calls it."""
    from vpd.tasks.evaluate import under
    from vpd.tasks.maps import at_timestep

    noises = {f"t = {t}": at_timestep(protocol, t, segmenter.config.noise) for t in steps}
    return {name: under(segmenter, noise) for name, noise in noises.items()}


def _refer(image: Any, text: str, segmenter: Any, noisy: dict[str, Any]) -> _Found:
    from vpd.viz import noise_figure

    result = segmenter(image, text)
    drawn = noise_figure({name: one(image, text) for name, one in noisy.items()}) if noisy else None
    if result.truncated:
        print("vpd: warning: the sentence is longer than the model reads", file=sys.stderr)
    about = {
        "mask_pixels": int(result.mask.sum()),
        "pixels": int(result.mask.size),
        "largest_probability": float(result.probability.max()),
        "truncated": result.truncated,
    }
    return _Found(result, about, f"{result.mask.mean():.1%} of it", drawn)


def _semantic(result: Any) -> _Found:
    shares = result.shares
    top = ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:5])
    return _Found(result, {"shares": shares, "pixels": int(result.classes.size)}, top)


def _depth(result: Any) -> _Found:
    depth = result.depth_m
    about = {
        "least_m": float(depth.min()),
        "mean_m": float(depth.mean()),
        "greatest_m": float(depth.max()),
    }
    return _Found(result, about, f"{about['least_m']:.2f} to {about['greatest_m']:.2f} m")
