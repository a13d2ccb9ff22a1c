"""What scoring a referring segmenter finds: numbers, and how they were made."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar, cast

from torch import nn

from vpd.protocol import PRESETS, NoiseSpec
from vpd.tasks.denoising import Denoising
from vpd.tasks.refer import ReferSegmenter
from vpd.tasks.refer_scores import Scores
from vpd.tasks.samples import ReferSamples

__all__ = ["COLUMNS", "Evaluation", "Scored", "preset_name", "scored", "under"]

M = TypeVar("M", bound=nn.Module)

COLUMNS = ("P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9", "oIoU", "mIoU", "pick")

# Zhao et al. 2023 (VPD), the authors' released weights, validation splits: P@0.5 ... P@0.9, oIoU,
# mIoU.
_PUBLISHED = {
    "refcoco": (85.52, 83.02, 78.45, 68.53, 36.31, 73.46, 75.67),
    "refcoco+": (76.69, 73.93, 69.68, 60.98, 32.52, 63.93, 67.98),
    "refcocog": (75.16, 71.16, 65.60, 55.04, 29.41, 63.12, 66.42),
}


@dataclass(frozen=True)
class Scored:
    """What is found by scoring a model on a split, and how."""

    metrics: dict[str, float]
    """By name."""
    protocol: dict[str, Any]
    """How they were made: ``noise`` and its ``preset``, ``data``, ``split``, ``images``, ..."""
    seconds_per_image: float
    """All that is computed for a picture, without reading it."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "metrics": self.metrics,
            "protocol": self.protocol,
            "seconds_per_image": self.seconds_per_image,
        }


@dataclass(frozen=True)
class Evaluation(Scored):
    """Scores of a referring segmenter, in percent.

    ``metrics``: ``oIoU``; ``<kind>/oIoU`` of one kind of sentence; ``text_blind/oIoU`` of the same
    model given the empty sentence; ``floor/<name>``, the P@0.5 of perfect masks on guessed objects.
    """

    def table(self) -> str:
        """The scores as text, with everything that they should be read against."""
        p = self.protocol
        lines = [
            f"{p['data']} {p['split']}: {p['sentences']} sentences about {p['images']} images, "
            f"{p['image_size']} px, protocol {p['preset']}",
            *_unusual(p),
            f"{'':<26}" + "".join(f"{name:>8}" for name in (*COLUMNS, "n")),
        ]
        for prefix, name in self._rows():
            scores = (self.metrics.get(prefix + column) for column in COLUMNS)
            count = f"{int(self.metrics[prefix + 'n']):>8}"
            lines.append(f"{name:<26}" + "".join(map(_cell, scores)) + count)
        for name, value in self.metrics.items():
            if name.startswith("floor/"):
                lines.append(f"{_FLOORS.get(name[6:], name):<26}{_cell(value)}")
        published = _PUBLISHED.get(p["data"]) if p["split"] == "val" else None
        if published:
            row = "".join(map(_cell, published))
            lines.append(f"{'published (VPD, 512 px)':<26}{row}")
        lines.append(f"{self.seconds_per_image:.3f} seconds per image")
        return "\n".join(lines)

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "", "all sentences"
        for name in self.metrics:
            kind, slash, metric = name.partition("/")
            if slash and metric == "oIoU":
                yield f"{kind}/", "empty sentence" if kind == "text_blind" else f"  {kind}"


_USUAL: dict[str, Any] = {
    "text_adapter": True, "image_norm": "half", "attn_fusion": "mean", "attn_t_ensemble": [],
    "denoise": None,
}  # fmt: skip


def _unusual(protocol: dict[str, Any]) -> list[str]:
    """What differs from VPD's choices, as a line."""
    found = [f"{k}: {protocol[k]}" for k, usual in _USUAL.items() if protocol[k] != usual]
    return [", ".join(found)] if found else []


_FLOORS = {
    "random": "floor: any object",
    "head": "floor: head phrase only",
    "head/attribute": "  attribute",
    "head/place": "  place",
    "head/relation": "  relation",
    "head/mean_of_kinds": "  mean of kinds",
}


def under(
    model: M,
    noise: NoiseSpec | None = None,
    *,
    image_norm: Literal["half", "none"] | None = None,
    text_adapter: bool | None = None,
    attn_t_ensemble: Sequence[int] | None = None,
    denoise: Denoising | None = None,
) -> M:
    """The same task model, sharing its weights, under another noise protocol or with parts of what
    surrounds the networks switched; None leaves a choice as it is. ``attn_t_ensemble`` and
    ``denoise`` are referring segmentation's alone."""
    chosen: dict[str, Any] = {
        "noise": noise,
        "image_norm": image_norm,
        "text_adapter": text_adapter,
        "attn_t_ensemble": None if attn_t_ensemble is None else tuple(attn_t_ensemble),
        "denoise": denoise,
    }
    twin: Any = copy.copy(model)
    twin.config = replace(twin.config, **{k: v for k, v in chosen.items() if v is not None})
    return cast(M, twin)


def scored(
    model: ReferSegmenter,
    source: ReferSamples,
    scores: Scores,
    blind: Scores | None,
    limit: int | None,
    seconds: float,
) -> Evaluation:
    """What was counted for a model under its own protocol, with all that it is read against.

    Args:
        blind: Scores of the empty sentence, if it was asked.
        seconds: Of all pictures together.
    """
    metrics = scores.compute()
    if blind is not None:
        metrics |= {f"text_blind/{name}": value for name, value in blind.overall().items()}
    metrics |= {f"floor/{name}": value for name, value in source.floors(limit).items()}
    images = min(len(source), limit or len(source))
    protocol = _protocol(model) | {
        "data": source.name,
        "split": source.split,
        "images": images,
        "sentences": int(metrics["n"]),
    }
    return Evaluation(metrics, protocol, seconds / max(images, 1))


def _protocol(model: ReferSegmenter) -> dict[str, Any]:
    config = model.config
    noise = config.noise
    return {
        "noise": noise.to_dict(),
        "preset": preset_name(noise),
        "image_size": config.image_size,
        "token_length": config.token_length,
        "text_adapter": config.text_adapter,
        "image_norm": config.image_norm,
        "attention": list(config.map_strides),
        "attn_fusion": config.attn_fusion,
        "attn_t_ensemble": list(config.attn_t_ensemble),
        "denoise": None if config.denoise is None else asdict(config.denoise),
        "scale_factor": config.scale_factor,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
    }


def preset_name(noise: NoiseSpec) -> str:
    """The named protocol that ``noise`` is, whatever its timestep, latent scale and seed."""
    free: dict[str, Any] = {"noise_t": 0, "latent_scale": 1.0, "seed": 0}
    for name, preset in PRESETS.items():
        if replace(noise, **free) == replace(preset, **free):
            extra = f", t = {noise.noise_t}" if noise.noise_t else ""
            scaled = math.isclose(noise.latent_scale, preset.latent_scale)
            return name + extra + ("" if scaled else f", latents x {noise.latent_scale:g}")
    return "custom"


def _cell(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:>8.2f}"
