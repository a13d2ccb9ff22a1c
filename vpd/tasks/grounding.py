"""The prior's own grounding: how well the attention of a diffusion model's words finds objects,
before any mask has been seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpd.data.tabletop import TARGET_PX, TabletopSplit
from vpd.images import to_network
from vpd.models.unet import Taps
from vpd.protocol import NoiseSpec
from vpd.tasks.evaluate import preset_name
from vpd.tasks.foundation import Foundation
from vpd.tasks.maps import (
    AttentionMaps,
    at_timestep,
    attention_maps,
    context,
    noisy_latents,
    own_noise,
)
from vpd.tasks.pointing import (
    ATTRIBUTES,
    MEAN,
    PHRASE,
    NamedObjects,
    Score,
    heat_maps,
    named_objects,
)
from vpd.tasks.refer import ReferSegmenter
from vpd.tasks.samples import check_counts

__all__ = [
    "STEPS",
    "Example",
    "Grounding",
    "GroundingRow",
    "examples",
    "prior_grounding",
    "protocols",
]

STEPS = (50, 100, 200, 300, 400, 500, 600, 700, 800, 900)


@dataclass(frozen=True)
class GroundingRow:
    """Scores of one kind of word, from the maps of one stride under one noise protocol; percentages
    are 0-100."""

    noise: NoiseSpec
    kind: str
    """``size``, ``material``, ``color``, ``shape``, or ``phrase`` (the mean of all its words)."""
    stride: str
    """``2``, ``4``, ... on the latent grid, or ``mean`` of these."""
    pointing: float
    """The map's maximum lies inside the object that the phrase names."""
    on_object: float
    """It lies inside any object."""
    oIoU: float
    """Of the map scaled to [0, 1] and thresholded: sum of intersections / sum of unions."""
    threshold: float
    """Best for the other half of the scenes; the mean of both halves' thresholds."""
    n: int


@dataclass(frozen=True)
class Grounding:
    """Scores of one model on one split under several noise protocols."""

    rows: tuple[GroundingRow, ...]
    references: dict[str, float]
    """Pointing, in percent, without reading: ``anywhere`` (a random pixel; also the oIoU of the
    whole picture), ``center`` of the picture, ``object`` (a random visible object).
    ``word/<kind>``: a random object that the word alone is true of, so what reading nothing but
    this word can give."""
    protocol: dict[str, Any]

    def row(self, noise: NoiseSpec, kind: str, stride: str) -> GroundingRow:
        """One cell of the study."""
        key = (noise, kind, stride)
        return next(row for row in self.rows if (row.noise, row.kind, row.stride) == key)

    @property
    def noises(self) -> tuple[NoiseSpec, ...]:
        return tuple(dict.fromkeys(row.noise for row in self.rows))

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.kind for row in self.rows))

    @property
    def strides(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.stride for row in self.rows))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the rows of a protocol stand together with it."""
        results = []
        for noise in self.noises:
            own = [asdict(row) for row in self.rows if row.noise == noise]
            for row in own:
                del row["noise"]
            results.append({"preset": preset_name(noise), "noise": noise.to_dict(), "rows": own})
        return {"protocol": self.protocol, "references": self.references, "results": results}

    def table(self) -> str:
        """The scores as text: a block per stride, pointing on the left, oIoU on the right."""
        p, kinds = self.protocol, self.kinds
        lines = [
            f"{p['data']} {p['split']}: {p['phrases']} phrases about {p['scenes']} scenes, "
            f"{p['image_size']} px"
        ]
        for stride in self.strides:
            name = "all strides" if stride == MEAN else f"stride {stride}"
            lines.append(f"{name:<16}{'pointing':<{8 * len(kinds) + 2}}oIoU")
            lines.append(f"{'':<16}" + "  ".join(["".join(f"{k:<8}" for k in kinds)] * 2).rstrip())
            for noise in self.noises:
                found = [self.row(noise, kind, stride) for kind in kinds]
                pointing = "".join(f"{row.pointing:<8.1f}" for row in found)
                overlap = "".join(f"{row.oIoU:<8.1f}" for row in found)
                lines.append(f"{label(noise):<16}{pointing}  {overlap}".rstrip())
        names = {
            "anywhere": "pointing anywhere, oIoU of everything",
            "center": "pointing at the centre",
            "object": "pointing at any object",
        }
        names |= {f"word/{k}": f"at any that fits the {k} word" for k in kinds if k != PHRASE}
        lines += [f"{names[key]:<40}{value:.1f}" for key, value in self.references.items()]
        return "\n".join(lines)

    def show(self) -> Any:
        """Curves by timestep; notebooks draw them."""
        from vpd.viz.grounding import grounding_figure

        return grounding_figure(self)

    def __repr__(self) -> str:
        return f"Grounding({len(self.noises)} protocols, kinds={self.kinds}, {self.protocol})"

    def _repr_png_(self) -> bytes:
        return self.show()._repr_png_()


@dataclass(frozen=True)
class Example:
    """A phrase, its object, and what its words attend to."""

    mask: np.ndarray
    """bool [H, W]."""
    maps: tuple[AttentionMaps, ...]
    """One per protocol."""


def label(noise: NoiseSpec) -> str:
    """A protocol's short name in tables and figures."""
    if not noise.adds_noise:
        return "no noise" + (f", t = {noise.timestep}" if noise.timestep != 1 else "")
    told = "" if noise.timestep == noise.noise_t else f", told {noise.timestep}"
    return f"t = {noise.noise_t}{told}"


def protocols(
    model: Foundation | ReferSegmenter,
    steps: Sequence[int] = STEPS,
    protocol: str = "latent_match",
) -> list[NoiseSpec]:
    """The model's own protocol without noise (timestep 1), then a named one at each timestep."""
    own = own_noise(model)
    return [own, *(at_timestep(protocol, t, own) for t in steps)]


@torch.inference_mode()
def prior_grounding(
    model: Foundation | ReferSegmenter,
    split: TabletopSplit,
    *,
    noises: Sequence[NoiseSpec] | None = None,
    strides: Sequence[int] = (2, 4),
    attributes: Sequence[str] = ATTRIBUTES,
    per_scene: int = 2,
    limit: int | None = None,
    batch: int = 64,
    progress: bool = True,
) -> Grounding:
    """Scores the cross-attention maps of single words against the object that their phrase names.

    Phrases are "a small striped red cube": each true of exactly one visible object. A word reads
    only what stands before it (the text encoder is causal), so "small" alone can rarely tell which
    object is meant, and "cube" knows the whole phrase. A map is resized to the picture and scaled
    to [0, 1]; the phrase's map is the mean of its words' (:func:`vpd.tasks.pointing.heat_maps`).
    The threshold of a half of the scenes is the best one for the other half.

    Args:
        model: A pre-trained foundation; or a task model, to see what training made of its maps.
        split: Of ``vpd.data.tabletop.load_split``.
        noises: Protocols; :func:`protocols` if None. Noise is drawn per (seed, picture), the same
            for every timestep.
        strides: On the latent grid; with several, their mean is scored too.
        attributes: What phrases name: some of size, material, color, shape, in this order.
        per_scene: Phrases of a scene, at most.
        limit: Only the first so many scenes.
        batch: Phrases per pass of the U-Net.
        progress: Show a bar.

    Raises:
        ValueError: Strides that the U-Net lacks, ``batch``, ``per_scene`` or ``limit`` below 1, no
            protocol, or scenes without such a phrase.
    """
    from tqdm import tqdm

    check_counts(batch=batch, per_scene=per_scene, limit=limit)
    noises = list(dict.fromkeys(protocols(model) if noises is None else noises))
    if not noises or not strides:
        raise ValueError("grounding needs at least one noise protocol and one stride")
    named = named_objects(
        split,
        model.config.token_length,
        attributes=attributes,
        per_scene=per_scene,
        limit=limit,
    )
    scores: dict[tuple[NoiseSpec, str, str], Score] = {}
    halves = torch.from_numpy(np.unique(named.scenes.numpy(), return_inverse=True)[1] % 2)
    bar = tqdm(total=len(named) * len(noises), desc="grounding", unit="map", disable=not progress)
    with bar:
        for rows in torch.split(torch.arange(len(named)), batch):
            instances = split.instances[named.scenes[rows].numpy()]
            objects = torch.from_numpy(instances) > 0
            for noise, heat in _heat(model, split, named, rows, noises, strides):
                for stride, maps in heat.items():
                    for index, kind in enumerate((*named.kinds, PHRASE)):
                        score = scores.setdefault((noise, kind, stride), Score())
                        score.update(maps[:, index], named.targets[rows], objects, halves[rows])
                bar.update(len(rows))
    found = [GroundingRow(*key, **score.compute()) for key, score in scores.items()]  # type: ignore[arg-type]
    return Grounding(tuple(found), _references(named), _protocol(model, split, named, per_scene))


def _heat(
    model: Foundation | ReferSegmenter,
    split: TabletopSplit,
    named: NamedObjects,
    rows: Tensor,
    noises: Sequence[NoiseSpec],
    strides: Sequence[int],
) -> Iterator[tuple[NoiseSpec, dict[str, Tensor]]]:
    """Heat maps of some phrases under each protocol; a scene's latent serves all its phrases."""
    weight = next(model.unet.parameters())
    scenes, places = np.unique(named.scenes[rows].numpy(), return_inverse=True)
    side = model.config.image_size
    pixels = torch.cat([to_network(split.images[i], side) for i in scenes.tolist()])
    pixels, index = pixels.to(weight.device), torch.from_numpy(places).to(weight.device)
    states = context(model, named.ids[rows])
    taps = Taps(features=False, attention=tuple(strides))
    size = (named.targets.shape[-2], named.targets.shape[-1])
    for noise, latents in zip(noises, noisy_latents(model, pixels, noises), strict=True):
        out = model.unet(latents, noise.timestep, states, image_index=index, taps=taps)
        yield noise, heat_maps(out.attention, named.columns[rows], size)


def _references(named: NamedObjects) -> dict[str, float]:
    targets = named.targets
    middle = targets[:, targets.shape[1] // 2, targets.shape[2] // 2]
    words = (1 / named.alike).mean(0).tolist()
    shares = {
        "anywhere": float(targets.float().mean()),
        "center": float(middle.float().mean()),
        "object": float((1 / named.visible).mean()),
        **{f"word/{kind}": value for kind, value in zip(named.kinds, words, strict=True)},
    }
    return {name: 100 * value for name, value in shares.items()}


def _protocol(
    model: Foundation | ReferSegmenter, split: TabletopSplit, named: NamedObjects, per_scene: int
) -> dict[str, Any]:
    config, weight = model.config, next(model.unet.parameters())
    return {
        "task": "foundation" if isinstance(model, Foundation) else "refer",
        "data": "tabletop",
        "split": split.name,
        "scenes": len(set(named.scenes.tolist())),
        "phrases": len(named),
        "per_scene": per_scene,
        "attributes": list(named.kinds),
        "min_pixels": TARGET_PX,
        "threshold": "of each half of the scenes: the best one for the other half",
        "image_size": config.image_size,
        "token_length": config.token_length,
        "scale_factor": config.scale_factor,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "device": weight.device.type,
    }


def examples(
    model: Foundation | ReferSegmenter,
    split: TabletopSplit,
    count: int,
    *,
    noises: Sequence[NoiseSpec],
    stride: int = 2,
    attributes: Sequence[str] = ATTRIBUTES,
) -> list[Example]:
    """Phrases for a picture: one of each of ``count`` scenes, evenly spaced over the split, nothing
    picked by hand."""
    named = named_objects(split, model.config.token_length, attributes=attributes, per_scene=1)
    chosen = torch.linspace(0, len(named) - 1, min(count, len(named))).round().long().tolist()
    found = []
    for row in chosen:
        image = split.images[int(named.scenes[row])]
        maps = [
            attention_maps(model, image, named.texts[row], strides=(stride,), noise=noise)
            for noise in noises
        ]
        found.append(Example(named.targets[row].numpy(), tuple(maps)))
    return found
