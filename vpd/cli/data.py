"""``vpd data make``, ``vpd data edits`` and ``vpd data check``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vpd.cli.answer import Answer, plain
from vpd.cli.models import DType

if TYPE_CHECKING:
    from vpd.data.check import ReferReport
    from vpd.data.edit_check import EditReport
    from vpd.data.pair_check import PairsReport

_Layout = Literal["refer", "ade20k", "nyuv2", "coco-panoptic", "ade20k-panoptic", "ip2p"]
_REFER = ("refcoco", "refcoco+", "refcocog", "refclef")


def make(
    name: Literal["tabletop", "nyuv2", "ade20k-panoptic"],
    *,
    root: Path,
    layout: _Layout = "refer",
    splits: list[str] = ["train", "val", "test"],  # noqa: B006 - never changed
    workers: int | None = None,
    mat: Path | None = None,
    splits_mat: Path | None = None,
    table: Path | None = None,
) -> Answer:
    """Writes a data set to disk, in a layout that the readers of the real ones read.

    tabletop is rendered; nyuv2 is extracted from the official download, ade20k-panoptic made from
    its maps of classes and instances. Can be interrupted and repeated; what is finished stays.

    Args:
        name: the data set
        root: folder to write to
        layout: of tabletop: refer (sentences and masks), ade20k (semantic labels), nyuv2 (depth),
            coco-panoptic or ade20k-panoptic (segments), ip2p (edited pairs)
        splits: of tabletop: any of train, train-10k, val and test
        workers: of tabletop: rendering processes; one per core by default
        mat: of nyuv2: nyu_depth_v2_labeled.mat
        splits_mat: of nyuv2: splits.mat
        table: of ade20k-panoptic: which classes the categories of instances are; by default
            ade20k_instance_catid_mapping.txt beside the pictures' folder
    """
    report: ReferReport | PairsReport | EditReport
    if name != "nyuv2" and (mat is not None or splits_mat is not None):
        made = "rendered" if name == "tabletop" else "made from the official maps"
        raise ValueError(f"--mat and --splits-mat are for nyuv2; {name} is {made}")
    if name != "ade20k-panoptic" and table is not None:
        raise ValueError(f"--table is for ade20k-panoptic, got {name}")
    if name == "tabletop":
        from vpd.data.tabletop.layout import make_tabletop

        report = make_tabletop(root, splits, layout=layout, workers=workers)
    elif name == "nyuv2":
        if mat is None or splits_mat is None:
            raise ValueError(
                "nyuv2 needs --mat nyu_depth_v2_labeled.mat and --splits-mat splits.mat"
            )
        from vpd.data.nyu_mat import extract_nyu_mat
        from vpd.data.pair_check import check_pairs

        extract_nyu_mat(mat, splits_mat, root)
        report = check_pairs(root, "nyuv2")
    else:
        from vpd.data.ade_panoptic import prepare_ade20k
        from vpd.data.pair_check import check_pairs

        prepare_ade20k(root, table=table)
        report = check_pairs(root, "ade20k-panoptic")
    return _answer(report)


def edits(
    triplets: Path,
    *,
    root: Path,
    model: str = "vpd-mini",
    weights: list[Path] | None = None,
    clip: Path | None = None,
    mode: Literal["self", "cross"] = "self",
    method: Literal["ddpm", "ddim", "euler", "euler_ancestral", "dpm++"] = "euler_ancestral",
    steps: int = 100,
    share: list[float] = [0.1, 0.9],  # noqa: B006 - never changed
    guidance: list[float] = [7.5, 15.0],  # noqa: B006 - never changed
    samples: int = 100,
    keep: int = 4,
    sim_image: float = 0.7,
    sim_caption: float = 0.2,
    sim_direction: float = 0.2,
    batch: int = 4,
    part: int = 0,
    parts: int = 1,
    seed: int = 0,
    device: str = "cpu",
    dtype: DType = "float32",
) -> Answer:
    """Draws pairs of pictures for triplets with Prompt-to-Prompt, and keeps those that CLIP likes.

    Writes InstructPix2Pix's folder. Can be interrupted and repeated; finished triplets stay, and
    several processes may write different parts of the same folder.

    Args:
        triplets: JSON Lines file: caption, instruction and edited caption in each line
        root: folder to write to
        model: what draws
        weights: instead of a model: Stable Diffusion v1 (one file or a diffusers folder)
        clip: weights of the CLIP that judges, both towers in one file; by default the model's own
        mode: attention that the second picture takes from the first: self (of pixels to pixels, as
            in the released data) or cross (of pixels to words)
        method: sampler
        steps: of the sampler
        share: least and greatest share of steps with the first picture's attention
        guidance: least and greatest guidance
        samples: pairs drawn for each triplet
        keep: pairs kept of each triplet, at most
        sim_image: least cosine of the two pictures; 0 is no limit, for the next two, too
        sim_caption: least cosine of each picture and its caption
        sim_direction: least cosine of the ways from picture to picture and caption to caption
        batch: pairs at a time
        part: the share of the triplets that this process does, 0 to parts - 1
        parts: into how many the triplets are divided
        seed: of all that is drawn
        device: cpu, cuda or cuda:N
        dtype: precision of the diffusion model
    """
    from vpd.cli.models import clip_of, foundation_or_refer
    from vpd.data import EditThresholds, PairRanges, PromptToPromptSampler, make_edits
    from vpd.data.edit_check import check_edits
    from vpd.data.triplets import read_triplets
    from vpd.diffusion import AttentionEdit, Sampler
    from vpd.tasks.foundation import Foundation

    if len(share) != 2 or len(guidance) != 2:
        raise ValueError(f"share and guidance take least and greatest, got {share} and {guidance}")
    texts = read_triplets(triplets)
    found = foundation_or_refer(model, weights, device, dtype)
    if not isinstance(found, Foundation):
        raise ValueError(f"expected a foundation, got {model}: a {type(found).__name__}")
    make_edits(
        root,
        texts,
        PromptToPromptSampler(found, AttentionEdit(mode), Sampler(method, steps)),
        clip=clip_of(found, model, clip, device),
        thresholds=EditThresholds(sim_image, sim_caption, sim_direction, keep),
        ranges=PairRanges((share[0], share[1]), (guidance[0], guidance[1])),
        samples=samples,
        batch=batch,
        part=part,
        parts=parts,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    return _answer(check_edits(root))


def check(
    name: Literal[
        "tabletop",
        "refcoco",
        "refcoco+",
        "refcocog",
        "refclef",
        "ade20k",
        "coco-stuff",
        "cityscapes",
        "nyuv2",
        "coco-panoptic",
        "ade20k-panoptic",
        "ip2p",
        "folder",
    ]
    | None = None,
    *,
    root: Path,
    split_by: str | None = None,
    layout: _Layout = "refer",
    read_all: bool = False,
) -> Answer:
    """Counts what a data set on disk holds, says which variant it is, and names what is missing.

    The exit code is 1 if anything is.

    Args:
        name: the data set; without it, the one that lies in the folder. folder: images, and masks
            (with classes.txt) or depths, of equal names. ip2p: edited pairs, a seeds.json and a
            folder for each instruction
        root: folder that holds it
        split_by: of REFER data sets: maker of the splits (unc, google, umd); usual one by default
        layout: of tabletop: the layout it was written in
        read_all: read every picture of labels, segments or depth, not only some of each split
    """
    name = name or _only_one(root)  # type: ignore[assignment]
    if name in _REFER or (name == "tabletop" and layout == "refer"):
        from vpd.data.check import check_refer

        return _answer(check_refer(root, str(name), split_by))
    from vpd.data.pair_check import SAMPLE, check_pairs

    pictures = layout if name == "tabletop" else str(name)
    sample = None if read_all else SAMPLE
    if pictures == "ip2p":
        from vpd.data.edit_check import check_edits

        return _answer(check_edits(root, sample=sample))
    return _answer(check_pairs(root, pictures, sample=sample))


def _only_one(root: Path) -> str:
    from vpd.data.edit_check import trees_in
    from vpd.data.pair_check import LAYOUTS, layouts_in
    from vpd.data.refer import VARIANTS

    refer = [name for name in VARIANTS if (root / name / "instances.json").is_file()]
    found = [*refer, *layouts_in(root), *(["ip2p"] if trees_in(root) else [])]
    if len(found) != 1:
        known = ", ".join((*VARIANTS, *LAYOUTS, "ip2p"))
        what = f"several, {', '.join(found)}: say which" if found else f"none of {known}"
        raise ValueError(f"{root}: expected one data set, found {what}")
    return found[0]


def _answer(report: ReferReport | PairsReport | EditReport) -> Answer:
    data = asdict(report) | {"ok": report.ok, "recognised": report.recognised}
    return Answer(plain(data), report.table(), code=0 if report.ok else 1)
