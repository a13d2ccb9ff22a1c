"""A panoptic segmenter of some ten thousand weights."""

from __future__ import annotations

import tiny
import torch

import vpd
from vpd.data.tabletop import CLASSES
from vpd.data.tabletop.pictures import THINGS

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
