"""Weights in and out: safetensors, PyTorch checkpoints and diffusers folders, by original names.

Files are memory-mapped, so tensors cost no memory until they are used, and pickled objects other
than tensors and plain data are left out and named: nothing of a file is ever run. What the layouts
are called and how names are matched stands in ``docs/weights.md``; the work is done in ``csrc/io``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from vpd._load import core

StateDict = dict[str, Tensor]
PathLike = str | os.PathLike[str]

_FAMILIES = {
    "ldm": ("sd", "ldm-unet", "ldm-vae"),
    "diffusers": ("diffusers", "diffusers-unet", "diffusers-vae"),
    "vpd": ("vpd", "vpd-refer", "vpd-seg", "vpd-depth"),
    "clip": ("clip", "clip-text", "clip-vision", "openai-clip"),
    "heads": ("mmseg", "transformers-upernet", "mask2former", "transformers-mask2former", "odise"),
}
_LAYOUTS = ("auto", "unknown", *_FAMILIES, *(name for f in _FAMILIES.values() for name in f))
_FOLDERS = ("unet", "vae", "text_encoder")  # of a diffusers model
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_ENDINGS = (
    ".safetensors.index.json",
    ".safetensors",
    ".fp16.safetensors.index.json",
    ".fp16.safetensors",
    ".bin",
    ".fp16.bin",
)
_PARAMETRISED = re.compile(r"^(?P<owner>.*\.)?parametrizations\.(?P<name>[^.]+)\.(?P<rest>.+)$")
_SHOWN = 5  # names of each kind in an error


@dataclass(frozen=True)
class FileInfo:
    """What was found about a file of weights.

    Attributes:
        path: The file or folder that was read.
        format: "safetensors", "torch" or "folder" (of diffusers).
        layout: Whose names the tensors have, e.g. "sd", "vpd-refer", "diffusers-unet", "unknown".
        dtypes: How many tensors there are of each dtype, e.g. {"float16": 1130, "int64": 1}.
        metadata: The text entries of a safetensors header.
        entry: The entry of a PyTorch checkpoint that held the weights: "state_dict", "model", "".
        skipped: Classes of pickled objects that were left out.
    """

    path: str
    format: str
    layout: str
    dtypes: dict[str, int]
    metadata: dict[str, str] = field(default_factory=dict)
    entry: str = ""
    skipped: tuple[str, ...] = ()


class Mismatch(NamedTuple):
    """A parameter whose tensor in the file has another shape."""

    name: str
    expected: tuple[int, ...]
    got: tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """What ``load_weights`` did not load; all empty after a complete load.

    Attributes:
        missing: Parameters of the module that the file does not have.
        unexpected: Tensors of the file that the module has no parameter for, within the parts the
            module has.
        mismatched: Parameters of another shape; they keep their values.
    """

    missing: list[str]
    unexpected: list[str]
    mismatched: list[Mismatch]


@dataclass(frozen=True)
class Networks:
    """The networks of a pipeline."""

    unet: nn.Module
    vae: nn.Module
    text: nn.Module


def find_weights(path: PathLike) -> Path:
    """The path itself if it exists, else the same below the folder named by ``VPD_WEIGHTS``.

    Raises:
        FileNotFoundError: If it is in neither place.
    """
    given = Path(path)
    folder = os.environ.get("VPD_WEIGHTS", "")
    candidates = [given, *([Path(folder) / given] if folder and not given.is_absolute() else [])]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    looked = " nor ".join(str(candidate) for candidate in candidates)
    hint = "" if folder else "; VPD_WEIGHTS may name a folder to look in"
    raise FileNotFoundError(f"weights not found: neither {looked} exists{hint}")


def read_state_dict(path: PathLike) -> tuple[StateDict, FileInfo]:
    """Reads all tensors of a file or diffusers folder, by the names they have there.

    Args:
        path: A ``.safetensors`` file, a PyTorch checkpoint (``.ckpt``, ``.pth``, ``.pt``, ``.bin``;
            told by content), a diffusers model folder, or one component folder of it. Relative
            paths are also looked for in the folder named by ``VPD_WEIGHTS``.

    Returns:
        The tensors, on the CPU, as views of the file, and what was found about it. Writing to them
        does not change the file. Names of a diffusers model start with ``unet.``, ``vae.`` and
        ``text_encoder.``. A PyTorch file of a single tensor gives {"tensor": ...}.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is damaged, truncated or of another kind: what was expected and what came.
    """
    found = find_weights(path)
    if found.is_dir():
        tensors = _read_folder(found)
        return tensors, _info(found, "folder", tensors)
    kind, pairs, metadata, entry, skipped = core.read_weights(str(found))
    tensors = dict(pairs)
    info = _info(found, kind, tensors, metadata=dict(metadata), entry=entry, skipped=tuple(skipped))
    return tensors, info


def load_weights(
    module: nn.Module,
    source: PathLike | Mapping[str, Tensor],
    layout: str = "auto",
    strict: bool = True,
    *,
    average: bool | None = None,
    share: bool = False,
) -> LoadReport:
    """Loads weights into a module whose parameters have original names; all of them or none.

    Networks (U-Net, autoencoder, CLIP towers) are found by their names under any prefix, in the
    original or diffusers' naming; CLIP in transformers' or OpenAI's, whose tensors are reported by
    transformers' names; Mask2Former's head in the original's or transformers', whose tensors are
    reported by the original's. Values are converted to each parameter's dtype. A parametrised
    weight (LoRA) gets its original replaced, the adapter stays.

    Args:
        module: A network of vpd, a task model, or any module with such parameters.
        source: What ``read_state_dict`` takes, or a state dict.
        layout: "auto", or the layout or family ("ldm", "diffusers", "vpd", "clip", "heads") the
            source must have.
        strict: Whether missing, unexpected or mismatched tensors are an error. What official
            checkpoints never hold may be missing even so: from VPD's the text encoder, from ODISE's
            the frozen models.
        average: Whether a Stable Diffusion file's moving average of the U-Net's weights
            (``model_ema.*``) is loaded in their place. None: where InstructPix2Pix has one, as its
            published code samples with it.
        share: Whether parameters become the source's tensors where these have their dtype, in place
            of copies: from a safetensors file, views of the mapped file, whose memory is taken as
            they are used. Writing to them does not change the file; the file must not be rewritten
            in place as long as the module lives.

    Returns:
        What was not loaded.

    Raises:
        OSError: If the file cannot be opened.
        TypeError: If ``source`` is a dict of something else than tensors.
        ValueError: If the file is unreadable or a model vpd has no network for, if its layout is
            not ``layout``, if nothing matches, if ``strict`` and something does not, or if it lacks
            an average that is wanted. The module is then unchanged.

    Example:
        >>> unet = vpd.UNet(vpd.UNetConfig.sd15())
        >>> vpd.load_weights(unet, "v1-5-pruned-emaonly.safetensors")
        LoadReport(missing=[], unexpected=[], mismatched=[])
    """
    tensors, name = _source(source)
    targets = _targets(module)
    found = core.detect_layout(_entries(tensors))
    tensors = dict(core.with_moving_average(list(tensors.items()), average, name))
    tensors = dict(core.openai_clip_to_transformers(list(tensors.items()), name))
    tensors = dict(core.mask2former_from_transformers(list(tensors.items()), name))
    match = core.match_weights(_entries(tensors), _entries(targets), name)
    _check_layout(layout, found, name)
    mismatched = [Mismatch(m, tuple(a), tuple(b)) for m, a, b in match.mismatched]
    report = LoadReport(match.missing + match.absent, match.unexpected, mismatched)
    if not match.pairs:
        raise ValueError(
            f"{name}: none of the {len(targets)} parameters of {type(module).__name__} "
            f"(such as {_names(list(targets))}) is in it; its layout is '{found}', "
            f"its tensors are {_names(list(tensors))}"
        )
    if strict and (match.missing or match.unexpected or mismatched):
        raise ValueError(_complaint(module, f"{name} (layout '{found}')", match, mismatched))
    pairs = [(targets[target], tensors[source]) for target, source in match.pairs]
    for (target, tensor), (target_name, _) in zip(pairs, match.pairs, strict=True):
        if target.is_meta:
            raise ValueError(f"{target_name} is on the meta device: call module.to_empty() first")
        if not torch.can_cast(tensor.dtype, target.dtype):
            raise ValueError(
                f"{name}: {target_name} must be convertible to {target.dtype}, got {tensor.dtype}"
            )
    with torch.no_grad():
        for target, tensor in pairs:
            value = tensor.reshape(target.shape)
            if share and (value.dtype, value.device) == (target.dtype, target.device):
                target.data = value
            else:
                target.copy_(value)
    return report


def save_weights(
    source: nn.Module | Mapping[str, Tensor],
    path: PathLike,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a module's parameters and buffers, or a state dict, as safetensors.

    A parametrised weight (LoRA) is written as its effective value under its original name, so that
    the file fits the plain module and gives the same outputs.

    Args:
        source: A module or a dict of tensors.
        path: The file to write; it is replaced as a whole or not at all.
        metadata: Text entries for the header.

    Raises:
        OSError: If the file cannot be written; nothing is left behind.
        TypeError: If something is not a tensor, or metadata not text.
        ValueError: If a tensor has a dtype that safetensors files do not have here.
    """
    tensors = _effective(source) if isinstance(source, nn.Module) else dict(source)
    _check_tensors(tensors, "save_weights")
    texts = dict(metadata or {})
    for key, value in texts.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"save_weights: metadata must be text, got {key!r}: {value!r}")
    core.write_safetensors(os.fspath(path), list(tensors.items()), list(texts.items()))


def convert(src: PathLike, dst: PathLike, to: Literal["ldm", "diffusers"]) -> list[Path]:
    """Rewrites weights in the other naming, keeping their dtype.

    Args:
        src: What ``read_state_dict`` takes: a Stable Diffusion file, a diffusers folder, or one
            network of either.
        dst: The ``.safetensors`` file to write; a folder where ``to`` is "diffusers" and ``src``
            holds several networks, which then go to ``unet/``, ``vae/`` and ``text_encoder/``. Only
            weights are written, no configs.
        to: "ldm" (original names) or "diffusers".

    Returns:
        The files written.

    Raises:
        OSError: If a file cannot be read or written.
        ValueError: If ``src`` holds something that has no name in the other layout.
    """
    if to not in ("ldm", "diffusers"):
        raise ValueError(f"convert: to must be 'ldm' or 'diffusers', got {to!r}")
    tensors, info = read_state_dict(src)
    plan = core.plan_conversion(_entries(tensors), to, info.path)
    renamed = {target: tensors[source].reshape(shape) for source, target, shape in plan}
    target = Path(dst)
    # The mark that diffusers and transformers ask for in a safetensors file.
    metadata = {"format": "pt"}
    folders = {name.split(".")[0] for name in renamed} & set(_FOLDERS)
    if to != "diffusers" or not folders:
        if target.is_dir():
            raise ValueError(f"{target}: expected a file to write, got a folder")
        save_weights(renamed, target, metadata)
        return [target]
    if target.suffix == ".safetensors" or target.is_file():
        raise ValueError(f"{target}: expected a folder for {sorted(folders)}, got a file name")
    written = []
    for folder in sorted(folders):
        prefix = folder + "."
        part = {n.removeprefix(prefix): t for n, t in renamed.items() if n.startswith(prefix)}
        stem = "model" if folder == "text_encoder" else "diffusion_pytorch_model"
        (target / folder).mkdir(parents=True, exist_ok=True)
        written.append(target / folder / f"{stem}.safetensors")
        save_weights(part, written[-1], metadata)
    return written


def from_diffusers(source: Any) -> nn.Module | Networks:
    """Builds vpd's networks from loaded diffusers or transformers objects, weights included.

    Args:
        source: A ``UNet2DConditionModel``, ``AutoencoderKL`` or ``CLIPTextModel``, or a pipeline
            with ``unet``, ``vae`` and ``text_encoder``.

    Returns:
        ``vpd.UNet``, ``vpd.AutoencoderKL`` or ``vpd.CLIPTextEncoder`` with a copy of the weights,
        of the same device and dtype; for a pipeline, ``Networks`` of all three.

    Raises:
        TypeError: If ``source`` is something else.
        ValueError: If its config is not one of Stable Diffusion v1's kind.
    """
    from vpd import _diffusers

    if all(hasattr(source, name) for name in _FOLDERS):
        return Networks(*(_diffusers.convert(getattr(source, name)) for name in _FOLDERS))
    return _diffusers.convert(source)


def _info(path: Path, kind: str, tensors: StateDict, **found: Any) -> FileInfo:
    dtypes: dict[str, int] = {}
    for tensor in tensors.values():
        name = str(tensor.dtype).removeprefix("torch.")
        dtypes[name] = dtypes.get(name, 0) + 1
    return FileInfo(str(path), kind, core.detect_layout(_entries(tensors)), dtypes, **found)


def _entries(tensors: Mapping[str, Tensor]) -> list[tuple[str, list[int]]]:
    return [(name, list(tensor.shape)) for name, tensor in tensors.items()]


def _read_folder(folder: Path) -> StateDict:
    """Tensors of one component folder, or of a model folder with its components as prefixes."""
    if (alone := _component_file(folder)) is not None:
        return _read_component(alone)
    tensors: StateDict = {}
    for name in _FOLDERS:
        if (file := _component_file(folder / name)) is not None:
            component = _read_component(file)
            tensors.update({f"{name}.{key}": tensor for key, tensor in component.items()})
    if not tensors:
        raise ValueError(
            f"{folder}: expected a diffusers folder (unet/, vae/ or text_encoder/ with "
            f"{_STEMS[0]}.safetensors or the like), found no weights in it"
        )
    return tensors


def _component_file(folder: Path) -> Path | None:
    names = (stem + ending for ending in _ENDINGS for stem in _STEMS)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_component(file: Path) -> StateDict:
    if file.suffix != ".json":
        return dict(core.read_weights(str(file))[1])
    try:
        weight_map = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        # A shard is a file beside the index: an index may not reach anywhere else.
        if not all(Path(shard).name == shard for shard in weight_map.values()):
            raise ValueError("a shard outside the folder")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file}: expected a safetensors index, got {error!r}") from None
    tensors: StateDict = {}
    for shard in sorted(set(weight_map.values())):
        tensors.update(core.read_weights(str(file.parent / shard))[1])
    if lost := [name for name in weight_map if name not in tensors]:
        raise ValueError(f"{file}: {len(lost)} tensors are in no shard: {_names(lost)}")
    return tensors


def _source(source: PathLike | Mapping[str, Tensor]) -> tuple[StateDict, str]:
    if isinstance(source, Mapping):
        tensors = dict(source)
        _check_tensors(tensors, "load_weights")
        return tensors, "state dict"
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            f"load_weights: expected a path or a dict of tensors, got {type(source).__name__}"
        )
    tensors, info = read_state_dict(source)
    return tensors, info.path


def _check_tensors(tensors: Mapping[Any, Any], who: str) -> None:
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TypeError(
                f"{who}: expected a dict of names to tensors, got {name!r}: {type(tensor).__name__}"
            )


def _targets(module: nn.Module) -> StateDict:
    """The tensors to write into, by original names."""
    targets: StateDict = {}
    for key, tensor in module.state_dict(keep_vars=True).items():
        parametrised = _PARAMETRISED.match(key)
        if parametrised is None:
            targets[key] = tensor
        elif parametrised["rest"] == "original":
            targets[(parametrised["owner"] or "") + parametrised["name"]] = tensor
        elif parametrised["rest"].startswith("original"):
            raise ValueError(
                f"load_weights: {key} belongs to a parametrisation that keeps several tensors for "
                "one weight; remove it (torch.nn.utils.parametrize) before loading"
            )
    return {name: tensor for name, tensor in targets.items() if isinstance(tensor, Tensor)}


def _effective(module: nn.Module) -> StateDict:
    """Parameters and buffers by original names, parametrised ones as they are used."""
    tensors: StateDict = {}
    for key, tensor in module.state_dict().items():
        parametrised = _PARAMETRISED.match(key)
        if parametrised is None:
            tensors[key] = tensor
            continue
        owner = parametrised["owner"] or ""
        name = owner + parametrised["name"]
        if name not in tensors:
            with torch.no_grad():
                value = getattr(module.get_submodule(owner[:-1]), parametrised["name"])
            tensors[name] = value.detach()
    return {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}


def _check_layout(wanted: str, found: str, name: str) -> None:
    if wanted not in _LAYOUTS:
        raise ValueError(f"load_weights: layout must be one of {', '.join(_LAYOUTS)}; got {wanted}")
    if wanted not in ("auto", found) and found not in _FAMILIES.get(wanted, ()):
        raise ValueError(f"{name}: expected layout '{wanted}', got '{found}'")


def _names(names: list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _complaint(module: nn.Module, name: str, match: Any, mismatched: list[Mismatch]) -> str:
    parts = [f"{name} does not fit {type(module).__name__}"]
    if match.missing:
        parts.append(f"{len(match.missing)} missing from the file: {_names(match.missing)}")
    if match.unexpected:
        parts.append(f"{len(match.unexpected)} not in the module: {_names(match.unexpected)}")
    if mismatched:
        shown = [f"{m.name} expected {list(m.expected)} got {list(m.got)}" for m in mismatched]
        parts.append(f"{len(mismatched)} of another shape: {_names(shown)}")
    parts.append("nothing was loaded; strict=False loads what fits")
    return "; ".join(parts)
