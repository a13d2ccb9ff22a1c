"""Vision transformers from files: DINOv2 as its authors or transformers name it, and timm's plain
ones."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from math import isqrt
from pathlib import Path

import torch
from torch import Tensor

from vpd.models.vit import ViTBackbone, ViTConfig
from vpd.weights import StateDict, load_weights, read_state_dict

__all__ = ["load_vit", "vit_config", "vit_names"]

_HEAD_CHANNELS = 64  # of an attention head, in all that were published
_STEMS = ("model.safetensors", "pytorch_model.bin")
# transformers' name, behind "dinov2." and the like -> DINOv2's
_NAMES = (
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"embeddings\.position_embeddings$", "pos_embed"),
    (r"embeddings\.(cls_token|register_tokens|mask_token)$", r"\1"),
    (r"(?:encoder\.)?layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"(?:encoder\.)?layer\.(\d+)\.attention\.attention\.", r"blocks.\1.attn."),
    (r"(?:encoder\.)?layer\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"(?:encoder\.)?layer\.(\d+)\.", r"blocks.\1."),
    (r"layernorm\.", "norm."),
)
# What no map needs: training with masks, and classification.
_UNUSED = re.compile(r"(mask_token$|head(_dist)?\.|classifier\.|pooler\.)")


def load_vit(
    path: str | os.PathLike[str],
    *,
    blocks: tuple[int, ...] = (),
    strides: tuple[int, ...] = (8, 16, 32, 64),
    image_scale: float = 1.0,
) -> ViTBackbone:
    """A backbone from a file; its shape is that of the weights.

    Args:
        path: A .safetensors or PyTorch file of DINOv2 (its authors', timm's or transformers') or of
            timm's plain vision transformers, or transformers' folder of one. Relative paths are
            also looked for below ``VPD_WEIGHTS``.
        blocks, strides, image_scale: Of :class:`ViTConfig`.

    Raises:
        OSError: A file that cannot be read.
        ValueError: A damaged one, or one of something else.
    """
    tensors, info = read_state_dict(_file(path))
    try:
        named = vit_names(tensors)
        config = vit_config(named)
    except ValueError as error:
        raise ValueError(f"{info.path}: {error}") from error
    chosen = {"blocks": blocks, "strides": strides, "image_scale": image_scale}
    backbone = ViTBackbone(replace(config, **chosen))  # type: ignore[arg-type]
    report = load_weights(backbone, named, strict=False)
    lost = [*report.missing, *report.unexpected, *(one.name for one in report.mismatched)]
    if lost:
        raise ValueError(
            f"{info.path}: expected the weights of a plain vision transformer, got "
            f"{len(report.missing)} too few, {len(report.unexpected)} too many, "
            f"{len(report.mismatched)} of another shape, such as {lost[0]}"
        )
    return backbone.eval()


def vit_names(tensors: StateDict) -> StateDict:
    """Tensors under DINOv2's names; those that no map needs are left out.

    Raises:
        ValueError: Queries, keys and values that are not all there.
    """
    found: StateDict = {}
    for name, tensor in tensors.items():
        plain = re.sub(r"^(module|model|backbone|teacher|dinov2(_with_registers)?)\.", "", name)
        for pattern, ours in _NAMES:
            plain, changed = re.subn("^" + pattern, ours, plain)
            if changed:
                break
        if not _UNUSED.match(plain):
            found[plain] = tensor
    return _fused(found)


def _fused(tensors: StateDict) -> StateDict:
    """Queries, keys and values, which transformers keeps apart, as one."""
    parts = ("query", "key", "value")
    for name in [name for name in tensors if re.search(r"attn\.query\.", name)]:
        names = [name.replace("query", part) for part in parts]
        lacking = [one for one in names if one not in tensors]
        if lacking:
            raise ValueError(f"expected queries, keys and values, got no {lacking[0]}")
        tensors[name.replace("query", "qkv")] = torch.cat([tensors.pop(one) for one in names])
    return tensors


def vit_config(tensors: StateDict) -> ViTConfig:
    """The shape of a transformer with these tensors, by DINOv2's names.

    Raises:
        ValueError: A tensor that tells it is not there, or tells of something else.
    """
    patch, positions = (
        _shape(tensors, "patch_embed.proj.weight", 4),
        _shape(tensors, "pos_embed", 3),
    )
    hidden = patch[0]
    grid = isqrt(max(positions[1] - 1, 0))
    if patch[1] != 3 or patch[2] != patch[3] or positions != (1, 1 + grid * grid, hidden):
        raise ValueError(
            "expected square patches of three colours and positions [1, 1 + n x n, "
            f"{hidden}], got patches {list(patch)} and positions {list(positions)}"
        )
    if hidden % _HEAD_CHANNELS:
        raise ValueError(f"expected a multiple of {_HEAD_CHANNELS} channels, got {hidden}")
    blocks = {int(m[1]) for m in map(re.compile(r"blocks\.(\d+)\.").match, tensors) if m}
    registers = tensors.get("register_tokens")
    return ViTConfig(
        hidden_size=hidden,
        intermediate_size=_shape(tensors, "blocks.0.mlp.fc1.weight", 2)[0],
        num_hidden_layers=max(blocks, default=-1) + 1,
        num_attention_heads=hidden // _HEAD_CHANNELS,
        image_size=grid * patch[2],
        patch_size=patch[2],
        num_register_tokens=0 if registers is None else registers.shape[1],
        layer_scale="blocks.0.ls1.gamma" in tensors,
    )


def _shape(tensors: StateDict, name: str, dims: int) -> tuple[int, ...]:
    tensor: Tensor | None = tensors.get(name)
    if tensor is None or tensor.dim() != dims:
        got = "none" if tensor is None else f"{list(tensor.shape)}"
        raise ValueError(
            f"expected a plain vision transformer, whose {name} has {dims} dimensions, got {got}"
        )
    return tuple(tensor.shape)


def _file(path: str | os.PathLike[str]) -> Path:
    """The file of weights in transformers' folder; any other path as it is."""
    from vpd.weights import find_weights

    found = find_weights(path)
    if found.is_dir():
        return next((found / stem for stem in _STEMS if (found / stem).is_file()), found)
    return found
