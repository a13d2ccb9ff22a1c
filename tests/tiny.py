"""A referring segmenter small enough to be built anew in a test, with random weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from vpd.images import to_network
from vpd.models.autoencoder import AutoencoderConfig
from vpd.models.clip import CLIPConfig
from vpd.models.clip_image import CLIPImageConfig
from vpd.models.clip_text import CLIPTextConfig
from vpd.models.unet import UNetConfig
from vpd.tasks.foundation import Foundation, FoundationConfig
from vpd.tasks.refer import ReferConfig, ReferSegmenter

PARTS = {
    "unet": UNetConfig(
        model_channels=16,
        channel_mult=(1, 2, 2, 2),
        num_res_blocks=1,
        attention_resolutions=(2, 4),
        num_heads=2,
        context_dim=32,
        norm_groups=4,
    ),
    "vae": AutoencoderConfig(
        ch=8, ch_mult=(1, 2, 2), num_res_blocks=1, norm_groups=4, mid_attention=False
    ),
    "text": CLIPTextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        vocab_subset=tuple(range(256, 2048)),
    ),
    "image_size": 64,
    "token_length": 16,
    "scale_factor": 0.8,
}
CLIP = CLIPConfig(
    text=replace(PARTS["text"], projection_dim=20),
    image=CLIPImageConfig(
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=20,
    ),
    token_length=16,
)


def segmenter(seed: int = 0, **changes) -> ReferSegmenter:
    torch.manual_seed(seed)
    return ReferSegmenter(ReferConfig(**{**PARTS, "hidden": 16, **changes})).eval()


def balance(model: ReferSegmenter) -> None:
    """Moves the decoder's bias so that masks are neither empty nor full."""
    pixels = to_network(np.array(val_scenes(1).images[0]), PARTS["image_size"])
    with torch.no_grad():
        logits = model.logits(pixels, model.encode_text(["the red cube"]))
        bias = model.decoder.get_parameter("conv1_1.bias")
        bias[0] += (logits[:, 1] - logits[:, 0]).median()


def foundation(seed: int = 0, clip: bool = False) -> Foundation:
    torch.manual_seed(seed)
    return Foundation(FoundationConfig(**PARTS, clip=CLIP if clip else None)).eval()


def val_scenes(count: int):
    """The first scenes of Tabletop's val split (a chunk of 100 is rendered once into the cache)."""
    from vpd.data import tabletop

    return tabletop.load_split("val", workers=1, limit=count, progress=False)
