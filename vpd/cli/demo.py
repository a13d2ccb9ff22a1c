"""``vpd demo``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpd.cli.answer import Answer, plain
from vpd.cli.models import DEFAULT, DType

if TYPE_CHECKING:
    from vpd.data.tabletop import TabletopSplit
    from vpd.tasks.refer import ReferSegmenter

_STEPS = (0, 100, 300, 500)


def demo(
    *,
    out: Path = Path("demo-out"),
    model: str = DEFAULT,
    scenes: int = 80,
    sweep_scenes: int = 24,
    device: str = "cpu",
    dtype: DType = "float32",
) -> Answer:
    """A tour of the shipped model on Tabletop scenes it has never seen.

    Segments every sentence of the scenes and prints the table of scores beside what guessing
    reaches, repeats a part of it with noise of several timesteps on the latents, and draws image |
    attention | mask | truth of each scene (scene-NNN.png) and what the words of one sentence attend
    to at those timesteps (maps.png).

    Args:
        out: folder for the pictures, made if missing
        model: a shipped model, or a folder that vpd train wrote
        scenes: how many scenes of the val split
        sweep_scenes: how many of them at each timestep
        device: cpu, cuda or cuda:N
        dtype: precision of the networks
    """
    from vpd.cli.models import refer_model
    from vpd.cli.pictures import draw_comparisons
    from vpd.data import tabletop
    from vpd.tasks.evaluate import evaluate_refer

    start = time.perf_counter()
    network = refer_model(model, None, device, dtype)
    if scenes < 1 or sweep_scenes < 1:
        raise ValueError(f"scenes must be at least 1, got {scenes} and {sweep_scenes}")
    split = tabletop.load_split("val", limit=min(scenes, tabletop.SPLITS["val"].count))
    found = evaluate_refer(network, split, text_blind=True)
    sweep = _sweep(network, split, sweep_scenes)
    pictures = draw_comparisons(network, split, out)
    pictures.append(_maps(network, split, out / "maps.png"))
    seconds = time.perf_counter() - start

    table = f"{model} on {found.table()}"
    lines = [
        table,
        "",
        f"Noise on the latents, told to the U-Net (latent_match), first {sweep_scenes} scenes:",
        "".join(f"{name:>10}" for name in ("t", "oIoU", "mIoU", "P@0.5", "pick")),
        *("".join(_cell(row[name]) for name in row) for row in sweep),
        "",
        f"wrote {len(pictures)} pictures to {out}/ in {seconds:.0f} seconds altogether",
    ]
    data = found.to_dict() | {
        "sweep": sweep,
        "pictures": [str(path) for path in pictures],
        "seconds": seconds,
    }
    return Answer(plain(data), "\n".join(lines))


def _sweep(network: ReferSegmenter, split: TabletopSplit, scenes: int) -> list[dict[str, Any]]:
    from vpd.tasks.maps import at_timestep
    from vpd.tasks.timesteps import evaluate_timesteps

    noises = [at_timestep("latent_match", t, network.config.noise) for t in _STEPS]
    found = evaluate_timesteps(network, split, noises, limit=scenes)
    names = ("oIoU", "mIoU", "P@0.5", "pick")
    return [
        {"t": t, **{name: one.metrics[name] for name in names}}
        for t, one in zip(_STEPS, found, strict=True)
    ]


def _maps(network: ReferSegmenter, split: TabletopSplit, path: Path) -> Path:
    """The first sentence about a relation, or just the first."""
    from vpd.tasks.maps import at_timestep, attention_maps
    from vpd.tasks.samples import refer_samples
    from vpd.viz import maps_figure

    asked = [(p.image, q.text, q.kind) for p in refer_samples(split) for q in p.questions]
    image, text, _ = next((row for row in asked if row[2] == "relation"), asked[0])
    specs = [at_timestep("latent_match", t, network.config.noise) for t in _STEPS]
    maps = [attention_maps(network, image, text, strides=(2,), noise=spec) for spec in specs]
    return maps_figure(maps).save(path)


def _cell(value: float) -> str:
    return f"{value:>10}" if isinstance(value, int) else f"{value:>10.2f}"
