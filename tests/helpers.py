"""What tests share: golden cases, key lists, comparison."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


@dataclass
class Golden:
    """One case made by an original implementation: its weights, inputs, outputs and gradients."""

    info: dict
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    grads: dict[str, Tensor]
    frozen_clip: dict[str, Tensor]
    """CLIP's weights, where the original's checkpoint leaves them out."""


def _upcast(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def load_golden(case: str) -> Golden:
    info = json.loads((GOLDEN / f"{case}.json").read_text())
    names = ("weights", "inputs", "outputs", "grads", "frozen_clip")
    groups: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for source in info.get("weights_from", []):
        prefix = source["from_prefix"]
        for key, tensor in load_file(GOLDEN / source["file"]).items():
            name = key[len(prefix) :]
            if key.startswith(prefix) and not name.startswith(tuple(source["skip"])):
                groups["weights"][source["to_prefix"] + name] = _upcast(tensor)
    for key, tensor in load_file(GOLDEN / f"{case}.safetensors").items():
        group, name = key.split(".", 1)
        groups[group][name] = _upcast(tensor)
    return Golden(info, **groups)


def key_list(name: str) -> dict:
    with gzip.open(GOLDEN / "keys" / f"{name}.json.gz", "rt") as file:
        return json.load(file)


def strip(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries below ``prefix``, without it."""
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def error(got: Tensor, want: Tensor) -> float:
    """Largest absolute difference in units of the reference's standard deviation."""
    assert got.shape == want.shape, f"shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    want = want.double()
    scale = want.std() if want.numel() > 1 else want.abs()
    return float((got.detach().double() - want).abs().max() / scale.clamp(min=1e-12))


def assert_close(got: Tensor, want: Tensor, tolerance: float = 1e-4) -> None:
    assert torch.isfinite(got).all()
    found = error(got, want)
    assert found <= tolerance, f"error {found:.3g} standard deviations, tolerance {tolerance:.3g}"
