"""A panoptic segmenter of some ten thousand weights."""

from __future__ import annotations

import tiny
import torch

import vpd
from vpd.data.tabletop import CLASSES
from vpd.data.tabletop.pictures import THINGS
from vpd.losses import PointDraws, mask2former_loss

HEAD = {
    "channels": 16, "num_queries": 12, "heads": 2, "encoder_layers": 1, "decoder_layers": 2,
    "norm_groups": 4,
}  # fmt: skip


def segmenter(seed: int = 0, **changes) -> vpd.PanopticSegmenter:
    """With random weights; its classes are Tabletop's."""
    torch.manual_seed(seed)
    parts = {name: tiny.PARTS[name] for name in ("unet", "vae", "scale_factor")}
    sizes = {"image_size": 64, "max_size": 160}
    fields = {**parts, "classes": CLASSES, "things": THINGS, **HEAD, **sizes, **changes}
    model = vpd.PanopticSegmenter(vpd.PanopticConfig(**fields)).eval()
    if hasattr(model, "class_embeddings"):
        model.class_embeddings.normal_()
    return model


def same_points(logits, masks, labels, targets, **options):
    """The criterion at the same places for all masks, however a batch is divided."""
    draw = torch.Generator().manual_seed(0)
    points = options["points"]
    one, many, few = (torch.rand(1, n, 2, generator=draw) for n in (points, 3 * points, 16))
    matched = sum(min(len(own), logits[0].shape[1]) for own in labels)
    every = [one.expand(len(labels), -1, -1), many.expand(matched, -1, -1)]
    draws = PointDraws(*every, few.expand(matched, -1, -1))
    return mask2former_loss(logits, masks, labels, targets, **options, draws=[draws] * len(logits))
