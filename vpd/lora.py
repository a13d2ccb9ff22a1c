"""LoRA (Hu et al. 2022): attention weights W + (alpha / rank) B A, of which only A and B train."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vpd._load import core
from vpd.models.unet import UNet
from vpd.weights import PathLike, read_state_dict, save_weights

__all__ = ["LoraConfig", "add_lora", "load_lora", "lora_parameters", "merge_lora", "save_lora"]

Attention = Literal["cross", "self"]
Target = Literal["to_q", "to_k", "to_v", "to_out"]
_LAYERS = {"cross": "attn2", "self": "attn1"}
_PREFIX = "unet."  # of a file's names


@dataclass(frozen=True)
class LoraConfig:
    """Which weights are adapted, and how."""

    rank: int = 4
    alpha: float | None = None
    """Scale of the change, divided by the rank; None: the rank."""
    targets: tuple[Target, ...] = ("to_q", "to_k", "to_v")
    attention: tuple[Attention, ...] = ("cross",)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"LoraConfig.rank must be at least 1, got {self.rank}")
        for name, known in (("targets", get_args(Target)), ("attention", get_args(Attention))):
            chosen = getattr(self, name)
            if not chosen or not set(chosen) <= set(known):
                raise ValueError(f"LoraConfig.{name} must be some of {known}, got {chosen}")

    @property
    def scale(self) -> float:
        return (self.rank if self.alpha is None else self.alpha) / self.rank


class LowRank(nn.Module):
    """The parametrisation of one weight [out, in]. A starts as a linear layer's weight does
    (Kaiming-uniform), B at zero, so that nothing changes at first. Both are float32 beside a weight
    of half precision, to which their sum with it is rounded."""

    def __init__(
        self, weight: Tensor, rank: int, scale: float, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        out, size = weight.shape
        self.scale = scale
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self.A = nn.Parameter(weight.new_empty(rank, size, dtype=dtype))
        self.B = nn.Parameter(weight.new_zeros(out, rank, dtype=dtype))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5), generator=generator)

    def forward(self, weight: Tensor) -> Tensor:
        changed = torch.addmm(weight.to(self.A.dtype), self.B, self.A, alpha=self.scale)
        return changed if weight.dtype == self.A.dtype else changed.to(weight.dtype)


def add_lora(
    unet: UNet, config: LoraConfig | None = None, *, generator: torch.Generator | None = None
) -> list[str]:
    """Freezes a U-Net and puts trainable low-rank changes on its attention weights.

    Args:
        unet: Changed in place. Its outputs stay as they are until A and B train.
        config: By default rank 4 on the queries, keys and values of all cross-attention layers
            (74,496 parameters per rank for Stable Diffusion v1).
        generator: Source of A.

    Returns:
        The original names of the weights, in order.

    Raises:
        ValueError: LoRA is on it already.
    """
    config = config or LoraConfig()
    if _low_ranks(unet):
        raise ValueError("add_lora: the U-Net has LoRA already; merge it first (merge_lora)")
    unet.requires_grad_(False)
    layers = "|".join(_LAYERS[kind] for kind in config.attention)
    targets = "|".join(t + (r"\.0" if t == "to_out" else "") for t in config.targets)
    chosen = re.compile(rf".*\.(?:{layers})\.(?:{targets})\.weight")
    names = [name for name, _ in unet.named_parameters() if chosen.fullmatch(name)]
    for name in names:
        _put(unet, name, config.rank, config.scale, generator)
    return names


def lora_parameters(unet: UNet) -> dict[str, nn.Parameter]:
    """A and B of every adapted weight: ``"<weight's original name>:A"`` -> parameter."""
    return {
        f"{name}:{side}": getattr(low, side)
        for name, low in _low_ranks(unet).items()
        for side in ("A", "B")
    }


def merge_lora(unet: UNet) -> None:
    """Turns the changed weights into plain ones, in place; outputs stay as they are."""
    for name in _low_ranks(unet):
        owner, leaf = _owner(unet, name)
        parametrize.remove_parametrizations(owner, leaf, leave_parametrized=True)


def save_lora(unet: UNet, path: PathLike) -> None:
    """Writes A and B alone, as safetensors under the names of diffusers and peft
    (``unet.down_blocks.0....attn2.to_q.lora_A.weight``). Alpha over rank is part of B there.

    Raises:
        ValueError: There is no LoRA on it.
        OSError: The file cannot be written; nothing is left behind.
    """
    low_ranks = _low_ranks(unet)
    if not low_ranks:
        raise ValueError("save_lora: the U-Net has no LoRA (add_lora)")
    names = _diffusers_names(unet)
    tensors: dict[str, Tensor] = {}
    for name, low in low_ranks.items():
        place = _PREFIX + names[name].removesuffix(".weight")
        tensors[f"{place}.lora_A.weight"] = low.A.detach()
        # Readers differ in where they look for alpha; where it is the rank, all agree.
        tensors[f"{place}.lora_B.weight"] = low.scale * low.B.detach()
    save_weights(tensors, path, {"format": "pt"})


def load_lora(unet: UNet, path: PathLike) -> list[str]:
    """Puts the low-rank changes of a file on a U-Net, as :func:`save_lora` and diffusers write
    them (with ``....alpha`` per layer, if any). Freezes the rest.

    Returns:
        The original names of the weights, in order.

    Raises:
        OSError: No such file. ValueError: It is no LoRA, or one of another network; nothing is
            changed then.
    """
    if _low_ranks(unet):
        raise ValueError("load_lora: the U-Net has LoRA already; merge it first (merge_lora)")
    tensors, _ = read_state_dict(path)
    original = {new.removesuffix(".weight"): old for old, new in _diffusers_names(unet).items()}
    shapes = {name: tensor.shape for name, tensor in unet.named_parameters()}
    found = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    a_end, _, _ = _ENDS
    places = [name.removesuffix(a_end) for name in found if name.endswith(a_end)]
    known = {f"{place}{end}" for place in places for end in _ENDS}
    strange = [name for name in found if name not in known]
    if strange or not places:
        raise ValueError(
            f"{path}: expected lora_A.weight and lora_B.weight of a U-Net's layers, got "
            f"{strange[0] if strange else 'neither'}"
        )
    for place in places:
        if place not in original:
            raise ValueError(f"{path}: this U-Net has no layer {place!r}")
        a, b = found[f"{place}.lora_A.weight"], found.get(f"{place}.lora_B.weight")
        out, size = shapes[original[place]][:2]
        if b is None or a.shape != (a.shape[0], size) or b.shape != (out, a.shape[0]):
            raise ValueError(
                f"{path}: {place} does not fit this U-Net: expected A [rank, {size}] and B "
                f"[{out}, rank], got {list(a.shape)} and {b if b is None else list(b.shape)}"
            )
    unet.requires_grad_(False)
    by_name = {original[place]: place for place in places}
    names = [name for name in shapes if name in by_name]
    for name in names:
        _fill(unet, name, by_name[name], found)
    return names


_ENDS = (".lora_A.weight", ".lora_B.weight", ".alpha")


def _fill(unet: UNet, name: str, place: str, found: Mapping[str, Tensor]) -> None:
    a, b = found[f"{place}.lora_A.weight"], found[f"{place}.lora_B.weight"]
    alpha = found.get(f"{place}.alpha")
    rank = a.shape[0]
    low = _put(unet, name, rank, 1.0 if alpha is None else float(alpha) / rank)
    with torch.no_grad():
        low.A.copy_(a)
        low.B.copy_(b)


def _put(
    unet: UNet, name: str, rank: int, scale: float, generator: torch.Generator | None = None
) -> LowRank:
    owner, leaf = _owner(unet, name)
    low = LowRank(getattr(owner, leaf), rank, scale, generator)
    parametrize.register_parametrization(owner, leaf, low)
    return low


def _owner(unet: UNet, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return unet.get_submodule(path), leaf


def _low_ranks(unet: UNet) -> dict[str, LowRank]:
    """Adapted weights by original name, in order."""
    found = {}
    for path, module in unet.named_modules():
        if isinstance(module, LowRank):
            found[path.replace(".parametrizations.", ".").rpartition(".")[0]] = module
    return found


def _diffusers_names(unet: UNet) -> dict[str, str]:
    """Original name -> diffusers' name, of every parameter."""
    entries = [(name, list(shape)) for name, shape, _ in unet._core.table()]
    return {source: target for source, target, _ in core.plan_conversion(entries, "diffusers", "")}
