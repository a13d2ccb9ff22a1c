"""Data sets: the rendered world `tabletop` and readers of the official on-disk layouts."""

import importlib
from typing import Any

# Public name -> module that defines it. Imported on first use, so that `import vpd.data` is light.
_PUBLIC = {
    "ReferDataset": "vpd.data.refer",
    "SemanticDataset": "vpd.data.semantic",
    "SemanticSample": "vpd.data.semantic",
    "ade20k": "vpd.data.semantic",
    "coco_stuff": "vpd.data.semantic",
    "cityscapes": "vpd.data.semantic",
    "image_mask_folder": "vpd.data.semantic",
    "PanopticDataset": "vpd.data.panoptic_sets",
    "PanopticSample": "vpd.data.panoptic_sets",
    "PanopticLabel": "vpd.data.segments",
    "Segment": "vpd.data.segments",
    "Instance": "vpd.data.segments",
    "coco_panoptic": "vpd.data.panoptic",
    "ade20k_panoptic": "vpd.data.panoptic",
    "prepare_ade20k": "vpd.data.ade_panoptic",
    "DepthDataset": "vpd.data.depth",
    "DepthSample": "vpd.data.depth",
    "nyuv2": "vpd.data.depth",
    "image_depth_folder": "vpd.data.depth",
    "extract_nyu_mat": "vpd.data.nyu_mat",
    "SemanticAugmentation": "vpd.data.augment",
    "DepthAugmentation": "vpd.data.augment",
    "PanopticAugmentation": "vpd.data.jitter",
    "sample_generator": "vpd.data.augment",
    "pad_to": "vpd.data.augment",
    "EditAugmentation": "vpd.data.edit",
    "EditDataset": "vpd.data.edit",
    "EditPair": "vpd.data.edit_files",
    "EditThresholds": "vpd.data.edit_generation",
    "PairRanges": "vpd.data.edit_generation",
    "make_edits": "vpd.data.edit_generation",
    "PromptToPromptSampler": "vpd.data.edit_sampler",
    "FileTriplets": "vpd.data.edit_texts",
    "CallableTriplets": "vpd.data.edit_texts",
    "RuleTriplets": "vpd.data.edit_rules",
    "Triplet": "vpd.data.triplets",
    "read_triplets": "vpd.data.triplets",
    "write_triplets": "vpd.data.triplets",
    "write_finetuning": "vpd.data.triplets",
    "caption_words": "vpd.data.nouns",
    "noun_phrases": "vpd.data.nouns",
    "class_names": "vpd.data.naming",
    "read_names": "vpd.data.naming",
    "check_refer": "vpd.data.check",
    "check_edits": "vpd.data.edit_check",
    "check_pairs": "vpd.data.pair_check",
    "make_tabletop": "vpd.data.tabletop.layout",
}
_MODULES = ("augment", "check", "depth", "masks", "pair_check", "refer", "semantic", "tabletop")

__all__ = [*_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"vpd.data.{name}")
    else:
        raise AttributeError(f"module 'vpd.data' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
