"""A small open-vocabulary segmenter, and its weights by the names of ODISE's checkpoints."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch
from tiny import CLIP, PARTS
from torch import Tensor

from vpd.tasks.open_config import OpenPanopticConfig
from vpd.tasks.open_panoptic import OpenPanopticSegmenter
from vpd.weights import save_weights

FROZEN = ("vae.", "unet.", "clip.", "empty_states")
CONFIG = OpenPanopticConfig(
    unet=PARTS["unet"],
    vae=PARTS["vae"],
    image=CLIP.image,
    text=CLIP.text,
    image_size=64,
    scale_factor=0.8,
    token_length=16,
    projection_dim=16,
    norm_groups=4,
    channels=16,
    embedding_dim=12,
    num_queries=6,
    heads=2,
    encoder_layers=1,
    decoder_layers=2,
    test_size=64,
    max_size=160,
)


def segmenter(config: OpenPanopticConfig = CONFIG, seed: int = 0) -> OpenPanopticSegmenter:
    """A model in which no parameter is as it was initialised."""
    model = OpenPanopticSegmenter(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return model


def official(model: OpenPanopticSegmenter) -> dict[str, Tensor]:
    """What ODISE saves of such a model: the trained part, and a buffer of its criterion."""
    words = "category_head" if model.config.supervision == "labels" else "word_head"
    roots = {"adapter": "backbone.feature_extractor", "head": "sem_seg_head", "words": words}
    found = {"criterion.empty_weight": torch.tensor([1.0, 0.1])}
    for name, tensor in model.state_dict().items():
        if not name.startswith(FROZEN):
            root, rest = name.split(".", 1)
            found[f"{roots.get(root, root)}.{rest}"] = tensor.clone()
    return found


def published(model: OpenPanopticSegmenter, folder: Path) -> list[str]:
    """Its frozen networks as Stable Diffusion and CLIP are published: the text encoder that the
    U-Net reads is another one."""
    text = tiny.foundation(1).text.state_dict()
    sd = {f"cond_stage_model.transformer.{name}": tensor for name, tensor in text.items()}
    roots = {"vae": "first_stage_model", "unet": "model.diffusion_model"}
    for part, root in roots.items():
        state = getattr(model, part).state_dict()
        sd |= {f"{root}.{name}": tensor.contiguous() for name, tensor in state.items()}
    clip = {name.split(".", 1)[-1]: tensor for name, tensor in model.clip.state_dict().items()}
    save_weights(sd, folder / "sd.safetensors")
    save_weights(clip, folder / "clip.safetensors")
    return [str(folder / "sd.safetensors"), str(folder / "clip.safetensors")]
