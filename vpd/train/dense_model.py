"""The models that trainings of semantic segmentation and of depth start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from vpd.models.clip_text import CLIPTextEncoder
from vpd.nn import channels_last
from vpd.tasks import store
from vpd.tasks.class_texts import embed_classes, read_class_texts
from vpd.tasks.dense import DenseModel
from vpd.tasks.depth import DepthConfig, DepthEstimator
from vpd.tasks.foundation import Foundation
from vpd.tasks.semantic import SemanticConfig, SemanticSegmenter
from vpd.tasks.sources import build_foundation
from vpd.tokens import tokenize
from vpd.train.dense_config import DenseTrainConfig, DepthTrainConfig, SemanticTrainConfig
from vpd.weights import StateDict, load_weights, read_state_dict

__all__ = ["build_depth", "build_semantic"]

M = TypeVar("M", bound=DenseModel[Any])


def build_semantic(config: SemanticTrainConfig, names: Sequence[str]) -> SemanticSegmenter:
    """The segmenter of some classes that a run starts from: pre-trained parts, a fresh head and
    adapter, the same whenever it is built.

    Raises:
        OSError: Weights or texts that cannot be read. ValueError: Those of something else.
    """
    torch.manual_seed(config.seed)
    base, heads = _sources(config)
    model = SemanticSegmenter(
        SemanticConfig(
            **_shared(config, base),
            attention=config.attention,
            map_scale=_count(config, names) if config.scale_maps else 1.0,
            map_grad=config.map_grad,
            classes=tuple(names),
            texts=int(_count(config, names)),
            head=config.head,
            channels=config.channels,
            auxiliary=config.auxiliary,
            dropout=config.dropout,
            stride=max(1, config.crop * 2 // 3),
            resize=config.test_resize,
        )
    )
    if config.text_prompts == "empty":
        return _filled(model, config, base, _empty(base.text), heads)
    return _filled(model, config, base, _texts(config, names, base.text), heads)


def build_depth(config: DepthTrainConfig, scenes: Sequence[str]) -> DepthEstimator:
    """The depth estimator of some types of scenes that a run starts from; raises as
    :func:`build_semantic`."""
    torch.manual_seed(config.seed)
    base, heads = _sources(config)
    model = DepthEstimator(
        DepthConfig(
            **_shared(config, base),
            scenes=tuple(scenes),
            max_depth=config.max_depth,
            embed_dim=config.embed_dim,
            num_filters=(config.num_filters,) * (len(base.config.vae.ch_mult) - 1),
            norm_groups=config.norm_groups,
        )
    )
    return _filled(model, config, base, _texts(config, scenes, base.text), heads)


def _sources(config: DenseTrainConfig) -> tuple[Foundation, list[tuple[Path, StateDict]]]:
    """The pre-trained networks, and checkpoints of the task to put on top of them."""
    if not config.weights:
        return store.load_foundation(config.foundation), []
    files, heads = [], []
    for path in config.weight_files:
        tensors, info = read_state_dict(path)
        if info.layout.startswith("vpd-"):
            heads.append((path, tensors))
        else:
            files.append(path)
    return build_foundation(files), heads


def _shared(config: DenseTrainConfig, base: Foundation) -> dict[str, Any]:
    """Fields of both tasks' configs."""
    parts = base.config
    return {
        "unet": parts.unet,
        "vae": replace(parts.vae, encode_only=True),
        "noise": config.noise_at(parts.scale_factor),
        "text_adapter": config.text_adapter,
        "image_norm": config.image_norm,
        "scale_factor": parts.scale_factor,
        "image_size": config.crop,
    }


def _count(config: SemanticTrainConfig, names: Sequence[str]) -> float:
    """How many texts condition the U-Net."""
    return float(len(names)) if config.text_prompts == "classes" else 1.0


def _texts(config: DenseTrainConfig, names: Sequence[str], text: CLIPTextEncoder) -> Tensor:
    """Embeddings [K, C] of names."""
    if config.class_texts is None:
        return embed_classes(text, names, config.templates)
    found = read_class_texts(config.class_texts, names).embeddings
    if found.shape[1] != text.config.hidden_size:
        raise ValueError(
            f"class_texts={config.class_texts}: expected embeddings of {text.config.hidden_size} "
            f"channels, as the U-Net reads, got {found.shape[1]}"
        )
    return found


@torch.no_grad()
def _empty(text: CLIPTextEncoder) -> Tensor:
    """The embedding [1, C] of the empty sentence."""
    ids = tokenize([""], length=text.config.max_position_embeddings).ids
    return text(ids).pooled.float()


def _filled(
    model: M,
    config: DenseTrainConfig,
    base: Foundation,
    embeddings: Tensor,
    heads: list[tuple[Path, StateDict]],
) -> M:
    """The model with its pre-trained parts."""
    encoder = model.vae.state_dict()
    model.vae.load_state_dict({k: v for k, v in base.vae.state_dict().items() if k in encoder})
    if config.unet_init == "pretrained":
        model.unet.load_state_dict(base.unet.state_dict())
    model.class_embeddings.copy_(embeddings)
    for path, tensors in heads:
        found = load_weights(model, tensors, strict=False)
        if found.mismatched:
            name, expected, got = found.mismatched[0]
            raise ValueError(
                f"{path}: {len(found.mismatched)} tensors do not fit this model: {name} must be "
                f"{list(expected)}, got {list(got)}"
            )
    return channels_last(model)
