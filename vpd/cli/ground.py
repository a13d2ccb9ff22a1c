"""``vpd ground``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vpd.cli.answer import Answer, plain
from vpd.cli.models import DType

if TYPE_CHECKING:
    from vpd.protocol import NoiseSpec


def ground(
    *,
    model: str = "vpd-mini",
    weights: list[Path] | None = None,
    token_length: int | None = None,
    split: str = "val",
    limit: int | None = None,
    steps: list[int] = [50, 100, 200, 300, 400, 500, 600, 700, 800, 900],  # noqa: B006 - never changed
    protocol: str = "latent_match",
    strides: list[int] = [2, 4],  # noqa: B006 - never changed
    per_scene: int = 2,
    batch: int = 64,
    scenes: int = 3,
    out: Path = Path("vpd-out"),
    device: str = "cpu",
    dtype: DType = "float32",
) -> Answer:
    """Scores the attention maps of single words on Tabletop: what a pre-trained model has learnt of
    where things are, without a mask or a head.

    Phrases such as "a small striped red cube" name one object each. Of the map of every word it
    says how often its maximum lies on that object (pointing game) and how well the map, cut at a
    threshold, covers it (oIoU): without noise at timestep 1, and at every step of a protocol.
    Writes OUT/grounding.json, grounding.png (curves) and grounding.maps.png.

    Args:
        model: a shipped foundation or task model, or a folder that vpd pretrain or vpd train wrote
        weights: instead of a model: Stable Diffusion v1 (one file or a diffusers folder), with or
            without an official VPD
            referring checkpoint
        token_length: tokens of a sentence, with weights
        split: of Tabletop: train, train-10k, val or test
        limit: only the first so many scenes
        steps: timesteps of the noise, 0 to 999
        protocol: where that noise goes and what the U-Net is told
        strides: on the latent grid; 2 means maps of half its side
        per_scene: phrases of a scene, at most
        batch: phrases per pass
        scenes: scenes whose maps are drawn
        out: folder for the results, made if missing
        device: cpu, cuda or cuda:N
        dtype: precision of the networks
    """
    from vpd.cli.models import foundation_or_refer
    from vpd.data import tabletop
    from vpd.data.files import atomic_write
    from vpd.tasks.grounding import examples, prior_grounding, protocols
    from vpd.viz.grounding import grounding_figure, grounding_maps

    if split not in tabletop.SPLITS:
        raise ValueError(f"split must be one of {', '.join(tabletop.SPLITS)}, got {split!r}")
    network = foundation_or_refer(model, weights, device, dtype, token_length)
    noises = protocols(network, steps, protocol)
    source = tabletop.load_split(split, limit=limit)
    found = prior_grounding(
        network, source, noises=noises, strides=strides, per_scene=per_scene, batch=batch
    )
    result = found.to_dict()
    name = [str(path) for path in weights] if weights else model
    result["protocol"] = {"model": name, **result["protocol"]}
    files = [out / "grounding.json", grounding_figure(found).save(out / "grounding.png")]
    if scenes > 0:
        shown = examples(network, source, scenes, noises=_spread(noises), stride=min(strides))
        files.append(grounding_maps(shown).save(out / "grounding.maps.png"))
    result = plain({**result, "files": files})
    with atomic_write(files[0]) as file:
        file.write((json.dumps(result, indent=1) + "\n").encode())
    lines = [f"{name if weights else model} on {found.table()}", *(f"wrote {f}" for f in files)]
    return Answer(result, "\n".join(lines))


def _spread(noises: list[NoiseSpec], count: int = 6) -> list[NoiseSpec]:
    """Evenly spaced ones, the first and the last among them."""
    count = min(count, len(noises))
    return [noises[round(i * (len(noises) - 1) / max(1, count - 1))] for i in range(count)]
