"""What a pre-trained denoiser has learnt of the text: tests that need no training and that no loss
curve shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vpd.data import tabletop
from vpd.diffusion import NoiseSchedule
from vpd.models.clip_text import CLIPTextEncoder
from vpd.models.unet import Taps, UNet
from vpd.tasks.pointing import NamedObjects, Score, heat_maps, named_objects

NOISE_ONLY = Taps(noise=True, features=False, attention=())


@dataclass(frozen=True)
class Probe:
    """Held-out scenes for the tests below."""

    latents: Tensor  # [N, C, h, w], scaled as the U-Net sees them
    captions: Tensor  # int64 [N, length]
    phrases: NamedObjects


def make_phrases(split: tabletop.TabletopSplit, scenes: int, length: int) -> NamedObjects:
    """Up to two "a red cube" phrases per scene, each true of exactly one visible object."""
    return named_objects(split, length, attributes=("color", "shape"), limit=scenes)


@torch.no_grad()
def denoising_probe(
    text: CLIPTextEncoder,
    unet: UNet,
    probe: Probe,
    device: torch.device,
    timesteps: tuple[int, ...] = (100, 300, 500, 700, 900),
    batch: int = 64,
) -> dict[str, float]:
    """Noise-prediction error by timestep, its rise when captions are shuffled between scenes, and
    the pointing game.

    Returns:
        ``loss/t500``: mean squared error; ``rise/t500``: its relative rise in percent with another
        scene's caption;
        ``pointing/color`` and ``pointing/shape``: share of phrases whose word map peaks on the
        object (stride 2, t = 1, no
        noise), in percent.
    """
    schedule, results = NoiseSchedule(), {}
    generator = torch.Generator().manual_seed(3)
    count = len(probe.latents)
    clean = probe.latents.to(device)
    states = torch.cat([text(ids.to(device)).hidden for ids in torch.split(probe.captions, batch)])
    for t in timesteps:
        noise = torch.randn(clean.shape, generator=generator).to(device)
        noisy = schedule.add_noise(clean, noise, torch.full((count,), t, device=device))
        losses = []
        for context in (states, states.roll(1, 0)):
            error = 0.0
            for rows in torch.split(torch.arange(count), batch):
                out = unet(noisy[rows], t, context[rows], taps=NOISE_ONLY)
                error += float(((out.noise.float() - noise[rows]) ** 2).sum())
            losses.append(error / noise.numel())
        results[f"loss/t{t}"] = losses[0]
        results[f"rise/t{t}"] = 100 * (losses[1] / losses[0] - 1)
    results.update(pointing_game(text, unet, probe, device, batch=batch))
    return results


@torch.no_grad()
def pointing_game(
    text: CLIPTextEncoder,
    unet: UNet,
    probe: Probe,
    device: torch.device,
    *,
    stride: int = 2,
    batch: int = 64,
) -> dict[str, float]:
    """Share (0-100) of phrases whose colour or shape word's map has its maximum inside the only
    object it names."""
    phrases = probe.phrases
    scores = {kind: Score() for kind in phrases.kinds}
    for rows in torch.split(torch.arange(len(phrases)), batch):
        latents = probe.latents[phrases.scenes[rows]].to(device)
        states = text(phrases.ids[rows].to(device)).hidden
        attention = unet(latents, 1, states, taps=Taps(features=False, attention=(stride,)))
        targets = phrases.targets[rows]
        size = (targets.shape[-2], targets.shape[-1])
        heat = heat_maps(attention.attention, phrases.columns[rows], size)[str(stride)]
        for index, kind in enumerate(phrases.kinds):
            scores[kind].update(heat[:, index], targets)
    return {f"pointing/{kind}": score.compute()["pointing"] for kind, score in scores.items()}
