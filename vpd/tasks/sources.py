"""Models from weights of others: Stable Diffusion v1, and the official VPD checkpoints on top of
it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from vpd.models.adapters import TextAdapter
from vpd.models.refer_decoder import ReferDecoder
from vpd.nn import channels_last
from vpd.tasks.foundation import Foundation, FoundationConfig
from vpd.tasks.refer import ReferConfig, ReferSegmenter
from vpd.weights import FileInfo, StateDict, load_weights, read_state_dict

__all__ = ["build_foundation", "build_refer", "holds_refer_head"]

Model = TypeVar("Model", bound=nn.Module)
_HEAD = ("adapter.", "decoder.")


def build_refer(
    weights: Sequence[str | Path],
    *,
    token_length: int | None = None,
    config: ReferConfig | None = None,
) -> ReferSegmenter:
    """A full-size referring segmenter.

    Args:
        weights: Files or folders, later ones on top of earlier ones. Stable Diffusion v1 (one
            file, or a diffusers folder)
            brings autoencoder, U-Net and text encoder; an official VPD referring checkpoint brings
            everything but the text
            encoder. Without the latter the decoder stays untrained, and a warning says so.
        token_length: Tokens of a sentence; what the VPD checkpoint was trained with if None, else
            40.
        config: Of another model than Stable Diffusion v1 at 512 px.

    Raises:
        OSError: A file that cannot be read.
        ValueError: No file at all, a damaged one, or a part that none of them brings.
    """
    config = config or ReferConfig()
    sources = _read(weights)
    head = [tensors for tensors, info in sources if info.layout == "vpd-refer"]
    if token_length is None and head:
        token_length = _token_length(head[-1], config)
    if token_length is not None:
        config = replace(config, token_length=token_length)
    with torch.device("meta"):
        model = ReferSegmenter(config)
    model.to_empty(device="cpu")
    # These may stay as they are initialised; every other part must come from a file.
    model.adapter = TextAdapter(config.unet.context_dim)
    model.decoder = ReferDecoder(model.decoder.config)
    _load(model, sources, optional=() if head else _HEAD)
    if not head:
        warnings.warn(
            "the mask decoder and the text adapter of this model are UNTRAINED: its masks and "
            "probabilities mean nothing, only its attention maps do. Add an official VPD "
            "referring checkpoint to the weights, or train a head.",
            stacklevel=2,
        )
    return channels_last(model).eval()


def build_foundation(
    weights: Sequence[str | Path], *, config: FoundationConfig | None = None
) -> Foundation:
    """Stable Diffusion v1 as it was pre-trained, from one file or a diffusers folder.

    Raises:
        OSError: A file that cannot be read.
        ValueError: No file at all, a damaged one, or a part that none of them brings.
    """
    sources = _read(weights)
    with torch.device("meta"):
        model = Foundation(config)
    model.to_empty(device="cpu")
    return channels_last(_load(model, sources, optional=())).eval()


def holds_refer_head(weights: Sequence[str | Path]) -> bool:
    """Whether an official VPD referring checkpoint is among the files."""
    return any(info.layout == "vpd-refer" for _, info in _read(weights))


def _read(weights: Sequence[str | Path]) -> list[tuple[StateDict, FileInfo]]:
    if not weights:
        raise ValueError("expected at least one file of weights, got none")
    return [read_state_dict(path) for path in weights]


def _load(
    model: Model, sources: list[tuple[StateDict, FileInfo]], optional: tuple[str, ...]
) -> Model:
    """Loads each source on top of the ones before; all of the model but ``optional`` must come
    from one of them."""
    missing = set(model.state_dict())
    for tensors, info in sources:
        try:
            report = load_weights(model, tensors, strict=False)
        except ValueError as error:
            raise ValueError(f"{info.path}: {error}") from error
        if report.mismatched:
            name, expected, got = report.mismatched[0]
            raise ValueError(
                f"{info.path}: {len(report.mismatched)} tensors do not fit {type(model).__name__}: "
                f"{name} must be {list(expected)}, got {list(got)}"
            )
        missing &= set(report.missing)
    lost = sorted(name for name in missing if not name.startswith(optional))
    if lost:
        parts = sorted({name.split(".")[0] for name in lost})
        raise ValueError(
            f"no weights for {', '.join(parts)} ({len(lost)} tensors, such as {lost[0]}) in "
            f"{', '.join(info.path for _, info in sources)}; Stable Diffusion v1 brings vae, unet "
            "and text, an official VPD checkpoint vae, unet, adapter and decoder"
        )
    return model


def _token_length(checkpoint: StateDict, config: ReferConfig) -> int | None:
    """N, from the decoder's second step: it reads the coarser level, F2 and N maps."""
    for name, tensor in checkpoint.items():
        if name.endswith("classifier.conv1_3.weight") and tensor.dim() == 4:
            mult = config.unet.channel_mult[min(1, len(config.unet.channel_mult) - 1)]
            length = tensor.shape[1] - tensor.shape[0] - config.unet.model_channels * mult
            return int(length) if length > 1 else None
    return None
