"""Models on disk: a folder with ``config.json`` and ``model.safetensors``, and the models shipped
with the package."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from vpd.config import from_dict
from vpd.data.files import atomic_write, parse_json
from vpd.nn import channels_last
from vpd.tasks.depth import DepthConfig, DepthEstimator
from vpd.tasks.editor import Editor, EditorConfig
from vpd.tasks.foundation import Foundation, FoundationConfig
from vpd.tasks.low_rank import expand, shrink
from vpd.tasks.open_config import OpenPanopticConfig
from vpd.tasks.open_panoptic import OpenPanopticSegmenter
from vpd.tasks.panoptic import PanopticConfig, PanopticSegmenter
from vpd.tasks.refer import ReferConfig, ReferSegmenter
from vpd.tasks.semantic import SemanticConfig, SemanticSegmenter
from vpd.weights import read_state_dict, save_weights

__all__ = ["compact", "load", "load_foundation", "read_config", "save", "shipped", "task_of"]

State = dict[str, torch.Tensor]
_ZOO = Path(__file__).parent.parent / "zoo"
# Task -> (config dataclass, model class)
_TASKS: dict[str, tuple[type, Callable[[Any], nn.Module]]] = {
    "foundation": (FoundationConfig, Foundation),
    "refer": (ReferConfig, ReferSegmenter),
    "semantic": (SemanticConfig, SemanticSegmenter),
    "panoptic": (PanopticConfig, PanopticSegmenter),
    "open-panoptic": (OpenPanopticConfig, OpenPanopticSegmenter),
    "depth": (DepthConfig, DepthEstimator),
    "edit": (EditorConfig, Editor),
}


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in _ZOO.glob("*/config.json"))


def find(name_or_path: str | Path) -> Path:
    """The folder of a model: a path, or a shipped model's name.

    Raises:
        FileNotFoundError: Neither; names the shipped models.
    """
    path = Path(name_or_path)
    for folder in (path, _ZOO / str(name_or_path)):
        if (folder / "config.json").is_file():
            return folder
    near = difflib.get_close_matches(str(name_or_path), shipped(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise FileNotFoundError(
        f"no model {str(name_or_path)!r}: expected a folder with config.json and "
        f"model.safetensors, or one of the shipped models {shipped()}.{hint}"
    )


def load(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Any:
    """Loads a task model, ready to call on images.

    Args:
        name_or_path: A shipped model (``"vpd-mini-refer"``) or a folder that ``vpd train`` wrote.
        device: Where it runs.
        dtype: float32 or bfloat16; shipped weights are stored in float16 and widened.

    Returns:
        The task's model in evaluation mode, e.g. a :class:`vpd.ReferSegmenter`.

    Raises:
        FileNotFoundError: No such model. ValueError: a folder whose files do not fit together.
    """
    folder = find(name_or_path)
    info = _read_info(folder)
    config_type, build = _TASKS[info["task"]]
    model = build(_config(folder, config_type, info["config"]))
    own, base = _states(folder, info.get("foundation"))
    wanted = set(model.state_dict())
    _assign(model, {**{k: v for k, v in base.items() if k in wanted}, **own}, folder)
    return channels_last(model).to(device=device, dtype=dtype).eval()


def read_config(name_or_path: str | Path) -> Any:
    """The config dataclass of a model, without its weights."""
    folder = find(name_or_path)
    info = _read_info(folder)
    return _config(folder, _TASKS[info["task"]][0], info["config"])


def task_of(name_or_path: str | Path) -> str:
    """What a model is for: ``refer``, ``semantic``, ``panoptic``, ``open-panoptic``, ``depth``,
    ``edit`` or ``foundation``."""
    return str(_read_info(find(name_or_path))["task"])


def load_foundation(name_or_path: str | Path) -> Foundation:
    """Loads a pre-trained diffusion model (autoencoder, text encoder, U-Net)."""
    model = load(name_or_path)
    if not isinstance(model, Foundation):
        raise ValueError(f"{name_or_path} is not a foundation but a {type(model).__name__}")
    return model


def founded_on(name_or_path: str | Path) -> str | None:
    """The shipped foundation that brings what a model's own file leaves out; the model itself if it
    is a shipped foundation, None if its file holds everything."""
    info = _read_info(find(name_or_path))
    if info["task"] == "foundation" and name_or_path in shipped():
        return str(name_or_path)
    return info.get("foundation")


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    foundation: str | None = None,
    card: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Writes a model folder; tensors equal to the foundation's (those of frozen parts) are left to
    it.

    Args:
        model: A task model or a foundation.
        folder: Created if missing; existing files are replaced, each only when its successor is
            complete.
        foundation: Name of the shipped foundation that brings what did not change; None stores
            everything.
        card: What made the model: command, data, seed, metrics.
        dtype: Storage type of floating-point weights.
    """
    task = next(name for name, (_, build) in _TASKS.items() if type(model) is build)
    state = {
        k: (v.to(dtype) if v.is_floating_point() else v).contiguous().cpu()
        for k, v in model.state_dict().items()
    }
    if foundation is not None:
        base, _ = read_state_dict(find(foundation) / "model.safetensors")
        state = {k: v for k, v in state.items() if k not in base or not torch.equal(v, base[k])}
    info = {
        "task": task,
        "foundation": foundation,
        "config": asdict(cast(Any, model).config),
        "card": card or {},
    }
    return _write(Path(folder), info, state)


def compact(name_or_path: str | Path, folder: str | Path, megabytes: float) -> float:
    """Writes a model again within ``megabytes`` (10^6 bytes), by cutting down what its training
    changed of its foundation to low rank. It loads, runs and scores as any other; how much worse,
    ``vpd evaluate`` tells.

    Args:
        name_or_path: A model that names its foundation, as trainings write them.
        folder: As of :func:`save`; another one.

    Returns:
        The part of the changes that was cut off, in squares: 0 nothing, 1 all.

    Raises:
        FileNotFoundError: No such model.
        ValueError: It names no foundation; its folder is ``folder``; or what is no change of the
            foundation, such as a head, takes more than ``megabytes``.
    """
    source, folder = find(name_or_path), Path(folder)
    info = _read_info(source)
    if info.get("foundation") is None:
        raise ValueError(f"{source}: expected a model that names its foundation, got one without")
    if folder.resolve() == source.resolve():
        raise ValueError(f"{folder}: expected another folder than the model's own")
    own, base = _states(source, info["foundation"])
    try:
        smaller, lost = shrink(own, base, int(megabytes * 1e6))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    card = dict(info.get("card", {}))
    before = card.pop("metrics", None)
    card["compacted"] = {"megabytes": megabytes, "cut": lost, "metrics_before": before}
    _write(folder, {**info, "card": card}, smaller)
    return lost


def _states(folder: Path, foundation: str | None) -> tuple[State, State]:
    """What a model's file holds, compacted weights put together, and its foundation's weights."""
    path = folder / "model.safetensors"
    own, _ = read_state_dict(path)
    if foundation is None:
        return own, {}
    base, _ = read_state_dict(find(foundation) / "model.safetensors")
    try:
        return expand(own, base), base
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _write(folder: Path, info: dict[str, Any], state: State) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(state, folder / "model.safetensors")
    with atomic_write(folder / "config.json") as file:
        file.write((json.dumps(info, indent=1) + "\n").encode())
    return folder


def _config(folder: Path, config_type: type, fields: Any) -> Any:
    try:
        return from_dict(config_type, fields)
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    info = parse_json(path.read_bytes(), path)
    known = isinstance(info, dict) and isinstance(info.get("task"), str) and info["task"] in _TASKS
    if not known or "config" not in info:
        raise ValueError(f"{path}: expected keys 'task' (one of {list(_TASKS)}) and 'config'")
    if not isinstance(info.get("foundation"), (str, type(None))):
        raise ValueError(
            f"{path}: foundation must be a name or null, got {info['foundation']!r:.80}"
        )
    return info


def _assign(model: nn.Module, state: State, folder: Path) -> None:
    own = model.state_dict()
    missing = [k for k in own if k not in state]
    unexpected = [k for k in state if k not in own]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or unexpected or shapes:
        raise ValueError(
            f"{folder}: weights do not fit its config: {len(missing)} missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}, {len(shapes)} of "
            f"another shape {shapes[:3]}"
        )
    model.load_state_dict(state)
