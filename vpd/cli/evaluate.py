"""``vpd evaluate``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from vpd.cli.answer import Answer, plain
from vpd.cli.launch import Launch, Launcher, scored
from vpd.cli.models import DEFAULT, DType
from vpd.cli.splits import Data
from vpd.data.dense import DenseName

DepthCrop = Literal["nyu_eigen", "kitti_kb", "kitti_garg", "kitti_eigen", "none"]


def evaluate(
    *,
    model: str = DEFAULT,
    weights: list[Path] | None = None,
    token_length: int | None = None,
    data: Data | DenseName = "tabletop",
    root: Path | None = None,
    split: str = "val",
    split_by: str | None = None,
    limit: int | None = None,
    text_blind: bool = False,
    protocol: str | None = None,
    t: int = 0,
    timesteps: list[int] | None = None,
    image_norm: Literal["half", "none"] | None = None,
    text_adapter: bool | None = None,
    attn_t_ensemble: list[int] | None = None,
    denoise_steps: int | None = None,
    denoise_guidance: float | None = None,
    mode: Literal["slide", "whole"] | None = None,
    scales: list[float] | None = None,
    flip: bool | None = None,
    windows: int | None = None,
    crop: DepthCrop | None = None,
    variant: Literal["mmseg", "d2"] | None = None,
    per_class: bool | None = None,
    words: Path | None = None,
    tag_curves: Path | None = None,
    min_score: float | None = None,
    min_overlap: float | None = None,
    vocabulary: str | None = None,
    by: Literal["shape", "color"] | None = None,
    shuffled: bool | None = None,
    without_clip: bool | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    reduce_zero_label: bool | None = None,
    units_per_metre: float | None = None,
    scene: str | None = None,
    batch: int | None = None,
    pictures: int = 0,
    out: Path | None = None,
    launcher: Launcher = "local",
    workers: int = 2,
    device: str = "cpu",
    dtype: DType = "float32",
) -> Answer | None:
    """Scores a model on a data set's split: every sentence of it, every segment, every pixel's
    class or its depth.

    Tabletop needs no files: its scenes are rendered (once, into a cache) when no root is given.
    Scores on it are printed beside what guessing reaches, and compare with nothing measured on
    photographs. Several processes share the pictures: torchrun --nproc-per-node 4 -m vpd.cli
    evaluate ..., or srun; or workers of a Ray cluster, which may die: --launcher ray --workers 4.

    Args:
        model: a shipped model, or a folder that vpd train wrote
        weights: instead of a model: Stable Diffusion v1 (one file or a diffusers folder) and an
            official VPD referring checkpoint; or Stable Diffusion v1, CLIP and one of ODISE
        token_length: tokens of a sentence, with weights
        data: the data set
        root: folder that holds it; of folder: images, and masks (with classes.txt) or depths
        split: e.g. val, testA
        split_by: maker of the splits (unc, google, umd); the data set's usual one by default
        limit: only the first so many images
        text_blind: also score the same model given the empty sentence
        protocol: a named noise protocol instead of the model's own, e.g. latent_match
        t: timestep of that protocol, 0 to 999
        timesteps: of referring segmentation, instead of t: several, in one pass over the pictures,
            e.g. 0,5,100,200,500
        image_norm: none shows the autoencoder images in [0, 1] instead of [-1, 1]; the model's own
            choice by default
        text_adapter: false bypasses the text adapter; the model's own choice by default
        attn_t_ensemble: of referring segmentation: average the attention maps over these timesteps
            of the protocol
        denoise_steps: of referring segmentation: remove the protocol's noise again in so many
            passes guided by the sentence; features are those of the last one
        denoise_guidance: how closely that follows the sentence; 1, the default, is its plain
            prediction
        mode: of semantic segmentation: overlapping windows (slide, the default) or whole images
        scales: of semantic segmentation: sizes to average over, e.g. 1,1.125,1.25,1.375,1.5
        flip: of semantic segmentation and depth: average over mirrored images (depth's default)
        windows: of depth: shifted windows of an image; as few as cover it by default
        crop: of depth: where pixels count; by default nyu_eigen on nyuv2 and none on others
        variant: of semantic segmentation: classes that mIoU averages, all that are labelled or
            predicted (mmseg, the default) or those labelled (d2)
        per_class: of semantic and panoptic segmentation: also the scores of each class
        words: of semantic and panoptic segmentation under captions or tags: JSON file with those of
            the images; rendered scenes of Tabletop have their own
        tag_curves: of models with the tagging adapter: draw precision against recall of the classes
            that it finds into this .png
        min_score: of panoptic segmentation: masks of a class less likely than this are no segments
        min_overlap: of panoptic segmentation: a segment keeps at least this share of its mask, or
            is none
        vocabulary: of an open-vocabulary model: names of the data set's classes in their order, a
            label set or a file of one; by default the label set of the data set
        by: of an open-vocabulary model on rendered scenes of Tabletop: what a class is, an object's
            shape (the default) or its color
        shuffled: of an open-vocabulary model: also score it with the names of things mixed up
        without_clip: of an open-vocabulary model: also score it without what CLIP says
        alpha: of an open-vocabulary model: how much CLIP counts for categories that were trained
            on, 0 to 1; the model's own choice by default
        beta: the same for other categories
        reduce_zero_label: of a folder of masks: stored values are class ids plus one, 0 is no class
        units_per_metre: of a folder of depths: 256 for KITTI's files, 1 for metres; 1000 by default
        scene: of a folder of depths: type of the scene of all images, room by default
        batch: sentences or windows per pass, 16 by default
        pictures: of referring segmentation: draw image | attention | mask | truth of the first so
            many images
        out: folder for them, by default vpd-out; with timesteps, for timesteps.jsonl (a record
            each), timesteps.md and timesteps.png. Made if missing
        launcher: local: here; ray: in workers of a Ray cluster, or of this machine if there is none
        workers: of ray: how many; each has the model in memory
        device: cpu, cuda or cuda:N
        dtype: precision of the networks
    """
    from vpd.cli import evaluate_open
    from vpd.cli.evaluate_dense import DENSE, OWNERS, evaluate_dense
    from vpd.cli.evaluate_refer import by_timestep, ready
    from vpd.cli.options import check_options
    from vpd.cli.pictures import draw_comparisons
    from vpd.tasks.denoising import Denoising
    from vpd.tasks.sources import task_of_weights
    from vpd.tasks.store import task_of

    task = task_of_weights(weights) if weights else task_of(model)
    if task == "edit":
        raise ValueError(f"{model} is an editor: vpd evaluate edit --model {model}")
    test = {
        "mode": mode, "scales": scales, "flip": flip, "windows": windows, "crop": crop,
        "variant": variant, "per_class": per_class, "words": words, "min_score": min_score,
        "min_overlap": min_overlap,
    }  # fmt: skip
    folder = {
        "reduce_zero_label": reduce_zero_label, "units_per_metre": units_per_metre, "scene": scene,
    }  # fmt: skip
    refer = {
        "token_length": token_length, "split_by": split_by, "text_blind": text_blind or None,
        "timesteps": timesteps, "attn_t_ensemble": attn_t_ensemble, "pictures": pictures or None,
        "denoise_steps": denoise_steps, "denoise_guidance": denoise_guidance,
    }  # fmt: skip
    opened = {
        "vocabulary": vocabulary, "by": by, "shuffled": shuffled, "without_clip": without_clip,
        "alpha": alpha, "beta": beta,
    }  # fmt: skip
    owners = OWNERS | evaluate_open.OWNERS
    tags = {"tag_curves": tag_curves}
    check_options(task, test | tags | folder | refer | opened, owners, "the model's task")
    if protocol is None and (t or timesteps is not None):
        which = "t" if timesteps is None else "timesteps"
        raise ValueError(f"{which} needs a protocol, e.g. --protocol latent_match")
    launch = Launch(launcher, workers, device)
    if task == "open-panoptic":
        others = {
            "protocol": protocol, "image_norm": image_norm, "text_adapter": text_adapter,
            "batch": batch,
        }  # fmt: skip
        strange = [name for name, value in others.items() if value is not None]
        if strange:
            raise ValueError(f"{strange[0]} is no option of an open-vocabulary model")
        named = ("per_class", "min_score", "min_overlap")
        options = {name: test[name] for name in named} | {k: opened[k] for k in opened if k != "by"}
        pictures_of = {"root": root, "limit": limit, "by": by}
        return evaluate_open.evaluate_open_model(
            model, weights, data, split, pictures_of, options, launch, dtype
        )
    if task in DENSE:
        conditions = {"image_norm": image_norm, "text_adapter": text_adapter}
        where = {"root": root, "limit": limit, **folder}
        return evaluate_dense(
            task, model, data, split, where, test | {"batch": batch}, protocol, t, conditions,
            launch, dtype, tag_curves,
        )  # fmt: skip
    if timesteps is not None and (t or pictures):
        raise ValueError("t and pictures are of one timestep: leave them or timesteps out")
    if denoise_guidance is not None and denoise_steps is None:
        raise ValueError("denoise_guidance needs denoise_steps, e.g. 10")
    if timesteps == []:
        raise ValueError("timesteps must name one at least, got none")
    denoising = None
    if denoise_steps is not None:
        guidance = 1.0 if denoise_guidance is None else denoise_guidance
        denoising = Denoising(denoise_steps, guidance=guidance)
    whole = scored(
        partial(
            ready,
            {"model": model, "weights": weights, "token_length": token_length, "device": device,
             "dtype": dtype},
            {"data": data, "root": root, "split": split, "split_by": split_by, "limit": limit},
            protocol,
            [t] if timesteps is None else list(dict.fromkeys(timesteps)),
            {"image_norm": image_norm, "text_adapter": text_adapter, "denoise": denoising,
             "attn_t_ensemble": attn_t_ensemble},
            {"batch": 16 if batch is None else batch, "text_blind": text_blind, "limit": limit},
        ),
        launch,
    )  # fmt: skip
    if whole is None:
        return None
    found, network, samples, peak_bytes = whole
    name: str | list[str] = [str(path) for path in weights] if weights else model
    if timesteps is not None:
        return by_timestep(name, found, network.config, peak_bytes, out)
    (one,) = found
    result = one.to_dict()
    result["protocol"] = {"model": name, **result["protocol"]}
    text = f"{name} on {one.table()}"
    if pictures > 0:
        out = out or Path("vpd-out")
        drawn = draw_comparisons(network, samples, out, pictures)
        result["pictures"] = [str(path) for path in drawn]
        text += f"\nwrote {len(drawn)} pictures to {out}"
    return Answer(plain(result), text)
