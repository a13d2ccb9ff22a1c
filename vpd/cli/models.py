"""The model that a command's options name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from vpd.data.dense import DenseTask

if TYPE_CHECKING:
    import torch

    from vpd.models.clip import CLIP
    from vpd.tasks.dense import DenseModel
    from vpd.tasks.editor import Editor
    from vpd.tasks.foundation import Foundation
    from vpd.tasks.refer import ReferSegmenter

__all__ = [
    "DEFAULT", "DEFAULTS", "DType", "clip_of", "dense_model", "device_of", "editor_model",
    "foundation_or_refer", "refer_model",
]  # fmt: skip

DEFAULTS = {
    "refer": "vpd-mini-refer",
    "semantic": "vpd-mini-semantic",
    "panoptic": "vpd-mini-panoptic",
    "open-panoptic": "vpd-mini-odise",
    "depth": "vpd-mini-depth",
    "edit": "vpd-mini-edit",
}
DEFAULT = DEFAULTS["refer"]
DType = Literal["float32", "bfloat16"]


def refer_model(
    model: str,
    weights: Sequence[Path] | None,
    device: str,
    dtype: DType,
    token_length: int | None = None,
) -> ReferSegmenter:
    """A referring segmenter: by name, from a folder, or built from weights of others."""
    from vpd.tasks.refer import ReferSegmenter

    found = _find(model, weights, device, dtype, token_length, bare=False)
    if not isinstance(found, ReferSegmenter):
        raise ValueError(f"expected a referring segmenter, got {model}: a {type(found).__name__}")
    return found


def dense_model(task: DenseTask, model: str, device: str, dtype: DType) -> DenseModel[Any]:
    """A segmenter or a depth estimator, by name or from a folder."""
    import vpd

    found = _find(model, None, device, dtype, None, bare=False)
    wanted = {
        "semantic": vpd.SemanticSegmenter,
        "panoptic": vpd.PanopticSegmenter,
        "depth": vpd.DepthEstimator,
    }[task]
    if not isinstance(found, wanted):
        raise ValueError(f"expected a {wanted.__name__}, got {model}: a {type(found).__name__}")
    return cast("DenseModel[Any]", found)


def editor_model(
    model: str,
    device: str,
    dtype: DType,
    weights: Sequence[Path] | None = None,
    average: bool | None = None,
) -> Editor:
    """An editor: by name, from a folder, or built from weights of others."""
    from vpd.tasks.editor import Editor

    if weights:
        import torch

        from vpd.tasks.sources import build_editor

        kind = getattr(torch, dtype)
        return build_editor(weights, average=average).to(device=device_of(device), dtype=kind)
    if average is not None:
        raise ValueError("average is about weights of others, got none")
    found: Any = _find(model, None, device, dtype, None, bare=False)
    if not isinstance(found, Editor):
        raise ValueError(f"expected an editor, got {model}: a {type(found).__name__}")
    return found


def foundation_or_refer(
    model: str,
    weights: Sequence[Path] | None,
    device: str,
    dtype: DType,
    token_length: int | None = None,
) -> ReferSegmenter | Foundation:
    """As :func:`refer_model`, but a pre-trained diffusion model without a head will do."""
    return _find(model, weights, device, dtype, token_length, bare=True)


def clip_of(found: object, name: str, file: Path | None, device: str) -> CLIP:
    """The CLIP in a file, or that of a model which was found under a name."""
    from vpd.tags import read_clip

    if file is not None:
        return read_clip(file).to(device)
    if getattr(found, "clip", None) is None:
        raise ValueError(
            f"{name} has no image encoder that shares a space with texts: give --clip, a file "
            "with both towers of CLIP"
        )
    return found.clip  # type: ignore[attr-defined]


def _find(
    model: str,
    weights: Sequence[Path] | None,
    device: str,
    dtype: DType,
    token_length: int | None,
    *,
    bare: bool,
) -> ReferSegmenter | Foundation:
    import cv2
    import torch

    from vpd.tasks import sources, store

    # Of a picture that it cannot decode, OpenCV warns on its own; the error that follows says it.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    where, kind = device_of(device), getattr(torch, dtype)
    if not weights:
        if token_length is not None:
            raise ValueError("token_length belongs to a model: it can be chosen with weights only")
        return store.load(model, device=where, dtype=kind)
    with _told():
        if bare and not sources.holds_refer_head(weights):
            found: torch.nn.Module = sources.build_foundation(weights)
        else:
            found = sources.build_refer(weights, token_length=token_length)
    return found.to(device=where, dtype=kind)  # type: ignore[return-value]


def device_of(name: str) -> torch.device:
    """The device of an option; refuses one that is not there."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {name!r}") from None
    there = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= there:
        raise ValueError(f"device {name!r} is not there: PyTorch sees {there} CUDA devices")
    return device


@contextmanager
def _told() -> Iterator[None]:
    """Warnings as plain lines on standard error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        print(f"vpd: warning: {warning.message}", file=sys.stderr)
