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

    from vpd.tasks.dense import DenseModel
    from vpd.tasks.foundation import Foundation
    from vpd.tasks.refer import ReferSegmenter

__all__ = ["DEFAULT", "DEFAULTS", "DType", "dense_model", "foundation_or_refer", "refer_model"]

DEFAULTS = {
    "refer": "vpd-mini-refer",
    "semantic": "vpd-mini-semantic",
    "panoptic": "vpd-mini-panoptic",
    "depth": "vpd-mini-depth",
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


def foundation_or_refer(
    model: str,
    weights: Sequence[Path] | None,
    device: str,
    dtype: DType,
    token_length: int | None = None,
) -> ReferSegmenter | Foundation:
    """As :func:`refer_model`, but a pre-trained diffusion model without a head will do."""
    return _find(model, weights, device, dtype, token_length, bare=True)


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
    where, kind = _device(device), getattr(torch, dtype)
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


def _device(name: str) -> torch.device:
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
