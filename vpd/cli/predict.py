"""``vpd predict``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vpd.cli.answer import Answer
from vpd.cli.models import DType
from vpd.cli.open_vocabulary import VOCABULARY, is_open, open_asker
from vpd.cli.options import check_options

Task = Literal["refer", "semantic", "panoptic", "depth"]
_MAIN = {
    "refer": (".mask.png",),
    "semantic": (".classes.png",),
    "panoptic": (".segments.png", ".segments.json"),
    "depth": (".depth.png",),
}
_OTHERS = (".segments.ids.png", ".figure.png", ".noise.png")
_OWN = (*(ending for own in _MAIN.values() for ending in own), *_OTHERS)
# Which options belong to some tasks alone, those of referring segmentation apart.
_OWNERS: dict[str, tuple[str, ...]] = {
    "text": ("refer", "semantic", "panoptic"),
    "weights": ("refer", "panoptic"),
    **dict.fromkeys(VOCABULARY, ("panoptic",)),
    "mode": ("semantic",),
    "scales": ("semantic",),
    "flip": ("semantic", "depth"),
    "scene": ("depth",),
    "min_score": ("panoptic",),
    "min_overlap": ("panoptic",),
}

# Which of them a model of a task takes as they are.
_CHOICES = {
    "semantic": ("mode", "scales", "flip"),
    "panoptic": ("min_score", "min_overlap"),
    "depth": ("scene", "flip"),
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
    min_score: float | None = None,
    min_overlap: float | None = None,
    vocabulary: str | None = None,
    caption: str | None = None,
    label_sets: list[str] | None = None,
    stuff: str | None = None,
    steps: list[int] | None = None,
    protocol: str | None = None,
    every: int = 1,
    npz: bool = False,
    figure: bool = True,
    device: str = "cpu",
    dtype: DType = "float32",
) -> Answer:
    """Predicts for one image, every image of a folder, or the frames of a video.

    refer: what a sentence refers to, NAME.mask.png (0 and 255). semantic: the class of each pixel,
    NAME.classes.png (ids, with a palette). panoptic: every object and area, NAME.segments.png (over
    the image), NAME.segments.json (COCO's format) and NAME.segments.ids.png; an
    open-vocabulary model looks for a vocabulary. depth: metres, NAME.depth.png (16 bit,
    millimetres). All at the image's size, and each with NAME.figure.png.
    Files that exist are replaced. In a folder, an image that cannot be read is named and the others
    are done; the exit code is then 1.

    Args:
        image: an image file, a folder of them, or a video
        text: of refer: what to look for, e.g. "the red cube behind the ball"; of a semantic or
            panoptic model that is told something: the image's caption, or its tags, e.g.
            "cube | ball"
        task: what to predict
        out: folder for the results, made if missing
        model: a shipped model, or a folder that vpd train wrote; by default the shipped one of the
            task
        weights: of refer, instead of a model: Stable Diffusion v1 (one file or a diffusers folder)
            and an official VPD referring checkpoint; of panoptic: Stable Diffusion v1, CLIP
            ViT-L/14 at 336 pixels and an official ODISE checkpoint
        token_length: of refer: tokens of a sentence, with weights
        mode: of semantic: overlapping windows (slide, the default) or the image in one piece
        scales: of semantic: sizes to average over, e.g. 1,1.25,1.5
        flip: of semantic and depth: average over the mirrored image too
        scene: of depth: type of the scene, one of the model's; the mean of all by default
        min_score: of panoptic: masks of a class less likely than this are no segments; the model's
            own choice by default
        min_overlap: of panoptic: a segment keeps at least this share of its mask where others win
            pixels, or is none; the model's own choice by default
        vocabulary: of panoptic, by an open-vocabulary model: what to look for, e.g. "cube, box;
            ring; floor", with semicolons between categories and commas between names of one; or a
            label set, its name or its file. By default what the model was trained on
        caption: of panoptic: look for the nouns of this sentence
        label_sets: of panoptic: label sets to look for besides, names or files, e.g. coco_panoptic
        stuff: of panoptic: names of categories that have no countable objects, e.g. "floor, wall"
        steps: of refer: also draw the masks under noise of these timesteps, NAME.noise.png
        protocol: of steps: where that noise goes and what the U-Net is told; latent_match by
            default
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
        "scales": scales, "flip": flip, "scene": scene, "min_score": min_score,
        "min_overlap": min_overlap, "steps": steps, "protocol": protocol,
        "vocabulary": vocabulary, "caption": caption, "label_sets": label_sets, "stuff": stuff,
    }  # fmt: skip
    check_options(task, given, _OWNERS, "the task")
    if protocol is not None and not steps:
        raise ValueError("protocol is that of steps, e.g. --steps 0,100,500")
    known = count(image, _OWN, every)
    ask = _asker(task, model, given, device, dtype)
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
            files = [found.result.save(out / f"{source.name}{ending}") for ending in _MAIN[task]]
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
        protocol = given["protocol"] or "latent_match"
        noisy = _under_noise(segmenter, protocol, given["steps"] or [])
        return lambda image: _refer(image, text, segmenter, noisy)
    chosen = {key: given[key] for key in _CHOICES[task] if given[key] is not None}
    if task == "panoptic" and is_open(model, given):
        look = open_asker(model, given, device, dtype, chosen)
        return lambda image: _panoptic(look(image))
    strange = [key for key in VOCABULARY if given[key] is not None]
    if strange:
        raise ValueError(f"{strange[0]} needs an open-vocabulary model, got {name}")
    network = dense_model(task, name, device, dtype)
    if task == "depth":
        return lambda image: _depth(network(image, **chosen))
    if given["text"] is not None:
        chosen["words"] = words_said(given["text"], getattr(network.config, "condition", ""))
    said = _semantic if task == "semantic" else _panoptic
    return lambda image: said(network(image, **chosen))


def words_said(text: str, condition: str) -> Any:
    """What a text says to a segmenter: a caption, or words with bars between them."""
    return text if condition == "caption" else [word.strip() for word in text.split("|")]


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


def _panoptic(result: Any) -> _Found:
    counts: dict[str, int] = {}
    for segment in result.segments:
        name = result.names[segment.category]
        counts[name] = counts.get(name, 0) + 1
    about = {
        "segments": [
            {"id": own.id, "name": result.names[own.category], "score": own.score, "pixels": area}
            for own, area in zip(result.segments, result.label.areas(), strict=True)
        ],
        "pixels": int(result.ids.size),
    }
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    return _Found(result, about, said or "no segment")


def _depth(result: Any) -> _Found:
    depth = result.depth_m
    about = {
        "least_m": float(depth.min()),
        "mean_m": float(depth.mean()),
        "greatest_m": float(depth.max()),
    }
    return _Found(result, about, f"{about['least_m']:.2f} to {about['greatest_m']:.2f} m")
