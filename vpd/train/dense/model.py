"""The models that trainings of segmentation and of depth start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from vpd.images import Size
from vpd.models.clip_image import CLIPImageConfig
from vpd.models.clip_text import CLIPTextEncoder
from vpd.models.tagging_adapter import TaggingAdapterConfig
from vpd.nn import channels_last
from vpd.tasks import store
from vpd.tasks.class_texts import embed_classes, embed_sentences, read_class_texts
from vpd.tasks.condition_config import ConditionedConfig
from vpd.tasks.conditioned import ConditionedModel
from vpd.tasks.conditions import CONDITIONS
from vpd.tasks.dense import DenseModel
from vpd.tasks.depth import DepthConfig, DepthEstimator
from vpd.tasks.foundation import Foundation, FoundationConfig
from vpd.tasks.semantic import SemanticConfig, SemanticSegmenter
from vpd.tasks.sources import build_foundation
from vpd.train.dense.condition_fields import ConditionedTrainConfig
from vpd.train.dense.config import DepthTrainConfig, SemanticTrainConfig
from vpd.train.dense.fields import DenseTrainConfig
from vpd.train.dense.vit import fill_vit
from vpd.weights import StateDict, load_weights, read_state_dict

__all__ = [
    "build_depth",
    "build_semantic",
    "built",
    "conditioned_fields",
    "empty_depth",
    "empty_semantic",
    "fill_condition",
    "parts_of",
    "with_scaled_maps",
]

M = TypeVar("M", bound=DenseModel[Any])
S = TypeVar("S", bound=ConditionedConfig)


def build_semantic(config: SemanticTrainConfig, names: Sequence[str]) -> SemanticSegmenter:
    """The segmenter of some classes that a run starts from: pre-trained parts, a fresh head and
    adapter, the same whenever it is built.

    Raises:
        OSError: Weights or texts that cannot be read. ValueError: Those of something else.
    """
    return built(
        config,
        lambda parts: SemanticSegmenter(_semantic_shape(config, parts, names)),
        lambda model, base: fill_condition(model, config, base, names),
    )


def build_depth(config: DepthTrainConfig, scenes: Sequence[str]) -> DepthEstimator:
    """The depth estimator of some types of scenes that a run starts from; raises as
    :func:`build_semantic`."""

    def fill(model: DepthEstimator, base: Foundation) -> None:
        model.class_embeddings.copy_(_texts(config, scenes, base.text))

    return built(config, lambda parts: DepthEstimator(_depth_shape(config, parts, scenes)), fill)


def empty_semantic(config: SemanticTrainConfig, names: Sequence[str]) -> SemanticSegmenter:
    """The segmenter of a run as it is, its weights apart: nothing is read but the foundation's
    config."""
    return SemanticSegmenter(_semantic_shape(config, parts_of(config), names))


def empty_depth(config: DepthTrainConfig, scenes: Sequence[str]) -> DepthEstimator:
    """As :func:`empty_semantic`, of depth."""
    return DepthEstimator(_depth_shape(config, parts_of(config), scenes))


def built(
    config: DenseTrainConfig,
    make: Callable[[FoundationConfig], M],
    fill: Callable[[M, Foundation], None],
) -> M:
    """A model from its sources.

    Args:
        config: Of the run.
        make: The model on some pre-trained networks, without their weights.
        fill: Brings what the U-Net is told, in place.
    """
    torch.manual_seed(config.seed)
    if config.backbone == "vit":
        return channels_last(fill_vit(make(parts_of(config)), config))
    base, heads = _sources(config)
    model = make(base.config)
    fill(model, base)
    return _filled(model, config, base, heads)


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


def parts_of(config: DenseTrainConfig) -> FoundationConfig:
    """Of the pre-trained networks; a vision transformer needs none."""
    alone = bool(config.weights) or config.backbone == "vit"
    found = FoundationConfig() if alone else store.read_config(config.foundation)
    if not isinstance(found, FoundationConfig):
        raise ValueError(f"{config.foundation} is no foundation, its config is a {type(found)}")
    return found


def _semantic_shape(
    config: SemanticTrainConfig, parts: FoundationConfig, names: Sequence[str]
) -> SemanticConfig:
    """A segmenter of these networks, with everything that the recipe decides."""
    found = SemanticConfig(
        **conditioned_fields(config, parts, names),
        head=config.head,
        channels=config.channels,
        auxiliary=config.auxiliary,
        dropout=config.dropout,
        stride=_two_thirds(config.crop),
        resize=config.test_resize,
    )
    return with_scaled_maps(found, config)


def _two_thirds(size: Size) -> Size:
    if isinstance(size, int):
        return max(1, size * 2 // 3)
    return max(1, size[0] * 2 // 3), max(1, size[1] * 2 // 3)


def conditioned_fields(
    config: ConditionedTrainConfig, parts: FoundationConfig, names: Sequence[str]
) -> dict[str, Any]:
    """Fields of the configs of both segmentations."""
    found = {**_shared(config, parts), "classes": tuple(names)}
    if config.backbone == "vit":
        return {**found, "attention": (), "condition": "uncond"}
    return found | {
        "attention": config.attention,
        "map_grad": config.map_grad,
        "condition": config.condition,
        "token_length": parts.token_length,
        "text": parts.text if config.reads else None,
        "image": _image(config, parts),
        "captioner": config.captioner,
        "tagging": _tagging(config, parts),
        "tag_source": config.tagging.text,
    }


def with_scaled_maps(found: S, config: ConditionedTrainConfig) -> S:
    """Maps at the scale of features, if the recipe wants it so."""
    if found.vit is not None:
        return found
    tokens = CONDITIONS[config.condition](found).tokens
    return replace(found, map_scale=float(tokens)) if config.scale_maps and tokens else found


def _image(config: ConditionedTrainConfig, parts: FoundationConfig) -> CLIPImageConfig | None:
    """The image encoder that a condition needs: the foundation's, or CLIP's."""
    if not config.sees:
        return None
    if config.weights:
        return getattr(CLIPImageConfig, config.image_encoder)()
    if parts.clip is None:
        raise ValueError(
            f"condition={config.condition} needs a foundation with an image encoder, got "
            f"{config.foundation} without"
        )
    return parts.clip.image


def _tagging(
    config: ConditionedTrainConfig, parts: FoundationConfig
) -> TaggingAdapterConfig | None:
    if config.condition != "tagging":
        return None
    own, width, image = config.tagging, parts.unet.context_dim, _image(config, parts)
    return TaggingAdapterConfig(
        dim=width,
        text_dim=None if own.text == "none" else width,
        image_dim=None if image is None else image.hidden_size,
        queries=own.queries,
        blocks=own.blocks,
        heads=own.heads,
        hidden=round(own.mlp_ratio * width),
        single_cross=own.single_cross,
        head_norm=own.head_norm,
    )


def _depth_shape(
    config: DepthTrainConfig, parts: FoundationConfig, scenes: Sequence[str]
) -> DepthConfig:
    """As :func:`_semantic_shape`, of depth."""
    finest = (
        config.vit.strides[0] if config.backbone == "vit" else 2 ** (len(parts.vae.ch_mult) - 1)
    )
    return DepthConfig(
        **_shared(config, parts),
        scenes=tuple(scenes),
        max_depth=config.max_depth,
        embed_dim=config.embed_dim,
        num_filters=(config.num_filters,) * (finest.bit_length() - 1),
        norm_groups=config.norm_groups,
    )


def _shared(config: DenseTrainConfig, parts: FoundationConfig) -> dict[str, Any]:
    """Fields of all tasks' configs."""
    if config.backbone == "vit":
        return {"vit": config.vit, "text_adapter": False, "image_size": config.crop}
    return {
        "unet": parts.unet,
        "vae": replace(parts.vae, encode_only=True),
        "noise": config.noise_at(parts.scale_factor),
        "text_adapter": config.text_adapter,
        "image_norm": config.image_norm,
        "scale_factor": parts.scale_factor,
        "image_size": config.crop,
    }


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
def fill_condition(
    model: ConditionedModel[Any],
    config: ConditionedTrainConfig,
    base: Foundation,
    names: Sequence[str],
) -> None:
    """Gives what the U-Net is told its pre-trained parts and embeddings, in place."""
    buffers = dict(model.named_buffers(recurse=False))
    if "class_embeddings" in buffers:
        buffers["class_embeddings"].copy_(_texts(config, names, base.text))
    if "empty_embedding" in buffers:
        buffers["empty_embedding"].copy_(embed_sentences(base.text, [""]))
    if "empty_states" in buffers:
        buffers["empty_states"].copy_(base.encode_text([""])[0])
    if config.reads:
        model.text.load_state_dict(base.text.state_dict())
    if config.sees and config.image_weights is not None:
        load_weights(model.clip["image"], config.image_weights)
    elif config.sees and base.clip is not None:
        model.clip["image"].load_state_dict(base.clip.image.state_dict())


def _filled(
    model: M,
    config: DenseTrainConfig,
    base: Foundation,
    heads: list[tuple[Path, StateDict]],
) -> M:
    """The model with its pre-trained parts."""
    encoder = model.vae.state_dict()
    model.vae.load_state_dict({k: v for k, v in base.vae.state_dict().items() if k in encoder})
    if config.unet_init == "pretrained":
        model.unet.load_state_dict(base.unet.state_dict())
    for path, tensors in heads:
        found = load_weights(model, tensors, strict=False)
        if found.mismatched:
            name, expected, got = found.mismatched[0]
            raise ValueError(
                f"{path}: {len(found.mismatched)} tensors do not fit this model: {name} must be "
                f"{list(expected)}, got {list(got)}"
            )
    return channels_last(model)
