"""Models from weights of others: Stable Diffusion v1, CLIP, and the official checkpoints of VPD and
ODISE on top of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from vpd.models.adapters import TextAdapter
from vpd.models.clip_text import CLIPTextEncoder
from vpd.models.refer_decoder import ReferDecoder
from vpd.nn import channels_last, uninitialised
from vpd.tasks.editor import Editor, EditorConfig
from vpd.tasks.foundation import Foundation, FoundationConfig
from vpd.tasks.open_config import OpenPanopticConfig
from vpd.tasks.open_panoptic import OpenPanopticSegmenter
from vpd.tasks.refer import ReferConfig, ReferSegmenter
from vpd.tokens import tokenize
from vpd.vocabulary import label_set
from vpd.weights import FileInfo, StateDict, load_weights, read_state_dict

__all__ = [
    "build_editor", "build_foundation", "build_open_panoptic", "build_refer", "fill_open_panoptic",
    "holds_refer_head", "task_of_weights",
]  # fmt: skip

Model = TypeVar("Model", bound=nn.Module)
Sources = list[tuple[StateDict, FileInfo]]
_HEAD = ("adapter.", "decoder.")
_FIRST = ("input_blocks.0.0.weight", "conv_in.weight")  # of a U-Net
_CLIP = ("clip", "clip-text", "clip-vision", "openai-clip")
_SCALE = "clip.logit_scale"
_FROZEN = ("vae.", "unet.", "clip.", "empty_states")  # of ODISE


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
    model = uninitialised(lambda: ReferSegmenter(config))
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
    model = uninitialised(lambda: Foundation(config))
    return channels_last(_load(model, sources, optional=())).eval()


def build_editor(
    weights: Sequence[str | Path],
    *,
    token_length: int | None = None,
    average: bool | None = None,
    config: EditorConfig | None = None,
) -> Editor:
    """A full-size editor.

    Args:
        weights: Files or folders, later ones on top of earlier ones: InstructPix2Pix, or to train
            one Stable Diffusion v1, whose U-Net gets channels for the picture with weights of 0.
            Another autoencoder may follow.
        token_length: Tokens of an instruction, 77 if None.
        average: Use the moving average of the U-Net's weights; None: InstructPix2Pix' if it is in
            the file (:func:`vpd.load_weights`).
        config: Of another model than InstructPix2Pix.

    Raises:
        OSError: A file that cannot be read.
        ValueError: No file at all, a damaged one, a part that none of them brings, or no average
            where one is asked for.
    """
    config = config or EditorConfig()
    if token_length is not None:
        config = replace(config, token_length=token_length)
    sources = _read(weights)
    if average and all(info.layout != "sd" for _, info in sources):
        found = ", ".join(f"{info.path} ({info.layout})" for _, info in sources)
        raise ValueError(f"expected a single file with moving averages (model_ema.*), got {found}")
    if _sees_no_picture(sources):
        own = FoundationConfig(
            replace(config.unet, in_channels=config.unet.out_channels), config.vae, config.text,
            config.image_size, config.token_length, config.scale_factor,
        )  # fmt: skip
        base = uninitialised(lambda: Foundation(own))
        return Editor.from_foundation(_load(base, sources, (), average))
    model = uninitialised(lambda: Editor(config))
    return channels_last(_load(model, sources, (), average)).eval()


def _sees_no_picture(sources: Sources) -> bool:
    """Whether the U-Net among some files, the last if there are several, has 4 input channels."""
    found = [
        tensor.shape[1]
        for tensors, _ in sources
        for name, tensor in tensors.items()
        if name.endswith(_FIRST) and "coder." not in name and tensor.dim() == 4
    ]
    return bool(found) and found[-1] == 4


def build_open_panoptic(
    weights: Sequence[str | Path], *, config: OpenPanopticConfig | None = None
) -> OpenPanopticSegmenter:
    """ODISE's open-vocabulary panoptic segmenter.

    Args:
        weights: Files or folders, in any order. Stable Diffusion v1 (ODISE's is v1.3) brings
            autoencoder, U-Net and what its text encoder says of the empty sentence; CLIP ViT-L/14
            at 336 pixels its two encoders; an official ODISE checkpoint all that was trained.
        config: Of another model than the official ones, which are told apart by what they were
            trained with, COCO's labels or captions.

    Raises:
        OSError: A file that cannot be read.
        ValueError: A damaged file, or a part that none of them brings.
    """
    sources = _read(weights)
    trained = [tensors for tensors, info in sources if info.layout == "odise"]
    config = config or (_odise_config(trained[-1]) if trained else OpenPanopticConfig())
    model = uninitialised(lambda: OpenPanopticSegmenter(config))
    _fill_open(model, sources, whole=True)
    return channels_last(model).eval()


def fill_open_panoptic(model: OpenPanopticSegmenter, weights: Sequence[str | Path]) -> bool:
    """Gives an open-vocabulary segmenter its frozen networks, in place, and what was trained if an
    ODISE checkpoint is among the files.

    Args:
        model: Of their size.
        weights: As for :func:`build_open_panoptic`.

    Returns:
        Whether there is such a checkpoint.

    Raises:
        OSError, ValueError: As :func:`build_open_panoptic`.
    """
    return _fill_open(model, _read(weights), whole=False)


def _fill_open(model: OpenPanopticSegmenter, sources: Sources, whole: bool) -> bool:
    trained = [source for source in sources if source[1].layout == "odise"]
    clip = [source for source in sources if source[1].layout in _CLIP]
    frozen = [source for source in sources if source[1].layout not in ("odise", *_CLIP)]
    if not (clip and frozen and (trained or not whole)):
        found = ", ".join(f"{info.path} ({info.layout})" for _, info in sources)
        odise = " and an official ODISE checkpoint" if whole else ""
        comma = "," if whole else " and"
        raise ValueError(f"expected Stable Diffusion v1{comma} CLIP{odise}, got {found}")
    # Of the same shape as CLIP's, but for the projection.
    text = uninitialised(lambda: CLIPTextEncoder(replace(model.config.text, projection_dim=None)))
    _load(nn.ModuleDict({"vae": model.vae, "unet": model.unet, "text": text}), frozen, optional=())
    empty = tokenize([""], length=model.config.token_length).ids
    with torch.no_grad():
        model.empty_states.copy_(text(empty).hidden[0])
        model.clip.get_buffer("logit_scale").fill_(math.log(100))  # where a file lacks it
    _load(nn.ModuleDict({"clip": model.clip}), clip, optional=(_SCALE,))
    if trained:
        _load(model, trained, optional=_FROZEN)
    return bool(trained)


def holds_refer_head(weights: Sequence[str | Path]) -> bool:
    """Whether an official VPD referring checkpoint is among the files."""
    return any(info.layout == "vpd-refer" for _, info in _read(weights))


def task_of_weights(weights: Sequence[str | Path]) -> str:
    """``open-panoptic`` where an official ODISE checkpoint is among the files, else ``refer``."""
    odise = any(info.layout == "odise" for _, info in _read(weights))
    return "open-panoptic" if odise else "refer"


def _read(weights: Sequence[str | Path]) -> Sources:
    if not weights:
        raise ValueError("expected at least one file of weights, got none")
    return [read_state_dict(path) for path in weights]


def _load(
    model: Model, sources: Sources, optional: tuple[str, ...], average: bool | None = None
) -> Model:
    """Loads each source on top of the ones before; all of the model but ``optional`` must come
    from one of them. ``average`` is about sources with a U-Net of Stable Diffusion's."""
    missing = set(model.state_dict())
    for tensors, info in sources:
        try:
            wanted = average if info.layout == "sd" else None
            report = load_weights(model, tensors, strict=False, average=wanted, share=True)
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
            "and text; CLIP clip; an official VPD checkpoint vae, unet, adapter and decoder; one "
            "of ODISE adapter, backbone, head and words"
        )
    return model


def _odise_config(checkpoint: StateDict) -> OpenPanopticConfig:
    """Of the official model that was trained with labels, or of that trained with captions."""
    coco = label_set("coco_panoptic")
    config = OpenPanopticConfig(categories=coco.categories, things=coco.things)
    if not any("word_head." in name for name in checkpoint):
        return config
    return replace(config, supervision="captions", alpha=0.35, beta=0.65, templates="single")


def _token_length(checkpoint: StateDict, config: ReferConfig) -> int | None:
    """N, from the decoder's second step: it reads the coarser level, F2 and N maps."""
    for name, tensor in checkpoint.items():
        if name.endswith("classifier.conv1_3.weight") and tensor.dim() == 4:
            mult = config.unet.channel_mult[min(1, len(config.unet.channel_mult) - 1)]
            length = tensor.shape[1] - tensor.shape[0] - config.unet.model_channels * mult
            return int(length) if length > 1 else None
    return None
