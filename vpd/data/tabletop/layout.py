"""Writes Tabletop in the REFER layout, so that the readers of real data sets read it too.

`vpd.data.tabletop.picture_layouts` writes labels and depth in theirs, `panoptic_layouts` segments.
"""

import json
import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vpd.data.check import ReferReport, check_refer
from vpd.data.edit_check import EditReport, check_edits
from vpd.data.files import atomic_write, write_png
from vpd.data.masks import encode_mask, mask_box
from vpd.data.pair_check import PairsReport, check_pairs
from vpd.data.tabletop.edit_layouts import TREES, write_ip2p
from vpd.data.tabletop.expressions import Expression
from vpd.data.tabletop.panoptic_layouts import write_ade20k_panoptic, write_coco_panoptic
from vpd.data.tabletop.picture_layouts import (
    USUAL_SPLITS,
    labelled_sizes,
    write_ade20k,
    write_nyuv2,
    written_sizes,
)
from vpd.data.tabletop.spec import IMAGE_SIZE, SHAPES, VERSION, VISIBLE_PX
from vpd.data.tabletop.splits import TabletopSplit, expressions_for, load_split

_CATEGORY = {shape: i for i, shape in enumerate(SHAPES, start=1)}


def make_tabletop(
    root: str | os.PathLike[str],
    splits: Iterable[str] = USUAL_SPLITS,
    counts: Mapping[str, int] | None = None,
    *,
    layout: str = "refer",
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> ReferReport | PairsReport | EditReport:
    """Writes the data set and checks it like any other.

    Args:
        layout: "refer" (sentences and masks, see `write_refer`), "ade20k" (semantic labels),
            "nyuv2" (depth; see `vpd.data.tabletop.picture_layouts`), "coco-panoptic" or
            "ade20k-panoptic" (segments; see `vpd.data.tabletop.panoptic_layouts`), or "ip2p"
            (edited pairs; see `vpd.data.tabletop.edit_layouts`).

    Raises:
        ValueError: on another layout, an unknown split or a count out of range.
    """
    writers = {
        "refer": write_refer,
        "ade20k": write_ade20k,
        "nyuv2": write_nyuv2,
        "coco-panoptic": write_coco_panoptic,
        "ade20k-panoptic": write_ade20k_panoptic,
        "ip2p": write_ip2p,
    }
    if layout not in writers:
        raise ValueError(f"layout must be one of {', '.join(writers)}, got {layout!r}")
    writers[layout](root, splits, counts, cache_dir=cache_dir, workers=workers, progress=progress)
    if layout == "ip2p":
        return check_edits(Path(root) / TREES)
    return check_refer(root, "tabletop") if layout == "refer" else check_pairs(root, layout)


def write_refer(
    root: str | os.PathLike[str],
    splits: Iterable[str] = USUAL_SPLITS,
    counts: Mapping[str, int] | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Writes `<root>/tabletop/{instances.json, refs(vpd).p}` and `<root>/images/tabletop/*.png`.

    Every object of 15 visible pixels or more is annotated; only targets have refs. Splits that an
    earlier call wrote stay. The work can be killed and repeated: rendered scenes are in the cache
    (see `load_split`), written pictures are kept, and the tables are written last.

    Args:
        root: any folder; made if it is missing.
        splits: of `SPLITS`, "pretrain" excepted: it has no labels.
        counts: only the first so many scenes of a split.

    Raises:
        ValueError: on an unknown split or a count out of range.
    """
    sizes = {**_existing_sizes(Path(root)), **labelled_sizes(splits, counts)}
    tables: dict[str, Any] = {
        "info": {
            "description": "Tabletop",
            "version": VERSION,
            "splits": dict(sorted(sizes.items())),
        },
        "images": [],
        "annotations": [],
        "categories": [
            {"id": i, "name": shape, "supercategory": "object"} for shape, i in _CATEGORY.items()
        ],
    }
    refs: list[dict[str, Any]] = []
    for name in sorted(sizes):
        split = load_split(name, cache_dir, workers, limit=sizes[name], progress=progress)
        _add_split(split, Path(root) / "images" / "tabletop", tables, refs, progress)
    folder = Path(root) / "tabletop"
    with atomic_write(folder / "instances.json") as file:
        file.write(json.dumps(tables).encode())
    with atomic_write(folder / "refs(vpd).p") as file:
        pickle.dump(refs, file, protocol=2)


def _existing_sizes(root: Path) -> dict[str, int]:
    """Splits and their sizes that an earlier call wrote."""
    path = root / "tabletop" / "instances.json"
    return written_sizes(path, lambda tables: tables["info"])


def _add_split(
    split: TabletopSplit,
    folder: Path,
    tables: dict[str, Any],
    refs: list[dict[str, Any]],
    progress: bool,
) -> None:
    from tqdm.auto import tqdm

    sentences = expressions_for(split)
    for i in tqdm(range(len(split)), desc=f"writing {split.name}", disable=not progress):
        image_id = split.seeds[i]
        path = folder / f"{split.name}_{image_id}.png"
        if not path.exists():
            write_png(path, split.images[i])
        row = {"id": image_id, "file_name": path.name, "height": IMAGE_SIZE, "width": IMAGE_SIZE}
        tables["images"].append(row)
        tables["annotations"] += _annotations(split, i)
        refs += _refs(split.name, image_id, path.name, split, i, sentences[i])


def _ann_id(image_id: int, target: int) -> int:
    return image_id * 10 + target + 1  # a scene has at most 9 objects


def _annotations(split: TabletopSplit, i: int) -> list[dict[str, Any]]:
    scene, instance = split.scene(i), split.instances[i]
    rows = []
    for k, o in enumerate(scene.objects):
        if o.visible_px < VISIBLE_PX:
            continue
        mask = instance == k + 1
        rows.append(
            {
                "id": _ann_id(split.seeds[i], k),
                "image_id": split.seeds[i],
                "category_id": _CATEGORY[o.shape],
                "segmentation": encode_mask(mask),
                "bbox": mask_box(mask),
                "area": o.visible_px,
                "iscrowd": 0,
                "attributes": {"size": o.size, "material": o.material, "color": o.color},
            }
        )
    return rows


def _refs(
    split_name: str,
    image_id: int,
    file_name: str,
    split: TabletopSplit,
    i: int,
    sentences: list[Expression],
) -> list[dict[str, Any]]:
    by_target: dict[int, list[Expression]] = {}
    for e in sentences:
        by_target.setdefault(e.target, []).append(e)
    rows = []
    for target, spoken in sorted(by_target.items()):
        ann_id = _ann_id(image_id, target)
        sent_ids = [ann_id * 10 + j for j in range(len(spoken))]
        rows.append(
            {
                "ref_id": ann_id,
                "ann_id": ann_id,
                "category_id": _CATEGORY[split.scene(i).objects[target].shape],
                "image_id": image_id,
                "file_name": file_name,
                "split": split_name,
                "sent_ids": sent_ids,
                "sentences": [
                    {
                        "tokens": e.text.split(),
                        "raw": e.text,
                        "sent": e.text,
                        "sent_id": sent_id,
                        "kind": e.kind,
                    }
                    for e, sent_id in zip(spoken, sent_ids, strict=True)
                ],
            }
        )
    return rows
