"""``vpd predict``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vpd.cli.answer import Answer
from vpd.cli.found import Found, depth_found, panoptic_found, refer_found, semantic_found
from vpd.cli.launch import Launcher
from vpd.cli.models import DType
from vpd.cli.open_vocabulary import VOCABULARY, is_open, open_asker
from vpd.cli.options import check_options

if TYPE_CHECKING:
    from vpd.cli.inputs import Source

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
    launcher: Launcher = "local",
    workers: int = 2,
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
        launcher: local: here; ray: in workers of a Ray cluster, or of this machine if there is
            none; out must be on a file system that they share
        workers: of ray: how many; each has the model in memory
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
    ready = partial(_ready, task, model, given, device, dtype, _Saving(task, out, figure, npz))
    pictures = sources(image, _OWN, every)
    if launcher == "ray":
        from vpd.train.workers import spread

        outcomes = spread(ready, pictures, workers, gpu=device.startswith("cuda"))
    else:
        outcomes = map(ready(), pictures)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    lines: list[str] = []
    with tqdm(total=known, unit="image", disable=known == 1 or not sys.stderr.isatty()) as bar:
        for outcome in outcomes:
            bar.update()
            if outcome.error is not None:
                if not image.is_dir():
                    raise outcome.error
                told = " ".join(str(outcome.error).split())
                failed.append({"image": outcome.where, "error": told})
                tqdm.write(f"vpd: failed: {told}", file=sys.stderr)
                continue
            if outcome.about.get("truncated"):
                print("vpd: warning: the sentence is longer than the model reads", file=sys.stderr)
            files = [str(file) for file in outcome.files]
            done.append({"image": outcome.where, "files": files} | outcome.about)
            lines.append(f"{outcome.where}: {outcome.said} -> {files[0]}")
    lines += [f"failed: {row['error']}" for row in failed]
    data = {"task": task, "results": done, "failed": failed} | ({"text": text} if text else {})
    return Answer(data, "\n".join(lines), code=1 if failed else 0)


@dataclass(frozen=True)
class _Outcome:
    """What became of one picture."""

    where: str
    files: list[Path] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    error: Exception | None = None


class _Saving(NamedTuple):
    """Which files are written of a picture."""

    task: Task
    out: Path
    figure: bool
    npz: bool

    def __call__(self, found: Found, name: str) -> list[Path]:
        endings = [*_MAIN[self.task], *[".figure.png"] * self.figure]
        files = [found.result.save(self.out / f"{name}{ending}") for ending in endings]
        if found.noise is not None:
            files.append(found.noise.save(self.out / f"{name}.noise.png"))
        if self.npz:
            files.append(found.result.save(self.out / f"{name}.npz"))
        return files


def _ready(
    task: Task,
    model: str | None,
    given: dict[str, Any],
    device: str,
    dtype: DType,
    save: _Saving,
) -> Callable[[Source], _Outcome]:
    """Loads a model; predicts and writes one picture. What it says can be pickled."""
    ask = _asker(task, model, given, device, dtype)

    def predicted(source: Source) -> _Outcome:
        try:
            found = ask(source.image)
        except (ValueError, OSError) as error:
            return _Outcome(source.where, error=error)
        return _Outcome(source.where, save(found, source.name), found.about, found.said)

    return predicted


def _asker(
    task: Task,
    model: str | None,
    given: dict[str, Any],
    device: str,
    dtype: DType,
) -> Callable[[Any], Found]:
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
        return lambda image: refer_found(image, text, segmenter, noisy)
    chosen = {key: given[key] for key in _CHOICES[task] if given[key] is not None}
    if task == "panoptic" and is_open(model, given):
        look = open_asker(model, given, device, dtype, chosen)
        return lambda image: panoptic_found(look(image))
    strange = [key for key in VOCABULARY if given[key] is not None]
    if strange:
        raise ValueError(f"{strange[0]} needs an open-vocabulary model, got {name}")
    network = dense_model(task, name, device, dtype)
    if task == "depth":
        return lambda image: depth_found(network(image, **chosen))
    if given["text"] is not None:
        chosen["words"] = words_said(given["text"], getattr(network.config, "condition", ""))
    said = semantic_found if task == "semantic" else panoptic_found
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
