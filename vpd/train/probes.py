"""What a pre-trained denoiser has learnt of the text: tests that need no training and that no loss
curve shows."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpd.data import tabletop
from vpd.diffusion import NoiseSchedule
from vpd.models.clip_text import CLIPTextEncoder
from vpd.models.unet import Taps, UNet
from vpd.tokens import token_words, tokenize

NOISE_ONLY = Taps(noise=True, features=False, attention=())


@dataclass(frozen=True)
class Phrases:
    """Unique objects named by colour and shape, for the pointing game."""

    scenes: Tensor  # int64 [P], index of the scene
    ids: Tensor  # int64 [P, length]
    targets: Tensor  # bool [P, H, W]
    words: dict[str, list[tuple[int, ...]]]  # "color", "shape" -> token positions of each phrase


@dataclass(frozen=True)
class Probe:
    """Held-out scenes for the tests below."""

    latents: Tensor  # [N, C, h, w], scaled as the U-Net sees them
    captions: Tensor  # int64 [N, length]
    phrases: Phrases


def make_phrases(split: tabletop.TabletopSplit, scenes: int, length: int) -> Phrases:
    """Up to two "a red cube" phrases per scene, each true of exactly one visible object."""
    rng = random.Random(9)
    rows: list[tuple[int, str, Tensor]] = []
    for index in range(min(scenes, len(split))):
        scene = split.scene(index)
        visible = [o for o in scene.objects if o.visible_px > 0]
        unique = [
            (number, o)
            for number, o in enumerate(scene.objects, start=1)
            if o.visible_px >= tabletop.TARGET_PX
            and sum(v.color == o.color and v.shape == o.shape for v in visible) == 1
        ]
        rng.shuffle(unique)
        instances = torch.from_numpy(np.array(split.instances[index]))
        for number, o in unique[:2]:
            rows.append((index, f"a {o.color} {o.shape}", instances == number))
    words: dict[str, list[tuple[int, ...]]] = {"color": [], "shape": []}
    for _, text, _ in rows:
        spans = token_words(text, length)
        words["color"].append(tuple(spans[1].tokens))
        words["shape"].append(tuple(spans[2].tokens))
    return Phrases(
        torch.tensor([row[0] for row in rows]),
        tokenize([row[1] for row in rows], length=length).ids,
        torch.stack([row[2] for row in rows]),
        words,
    )


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
    hits: dict[str, list[float]] = {name: [] for name in phrases.words}
    for rows in torch.split(torch.arange(len(phrases.scenes)), batch):
        latents = probe.latents[phrases.scenes[rows]].to(device)
        states = text(phrases.ids[rows].to(device)).hidden
        maps = unet(latents, 1, states, taps=Taps(attention=(stride,))).attention[stride].float()
        size = phrases.targets.shape[-2:]
        for name, positions in phrases.words.items():
            for row, index in enumerate(rows.tolist()):
                word = maps[row, list(positions[index])].mean(0)[None, None]
                peak = F.interpolate(word, size, mode="bilinear").flatten().argmax().cpu()
                hits[name].append(float(phrases.targets[index].flatten()[peak]))
    return {f"pointing/{name}": 100 * sum(h) / max(1, len(h)) for name, h in hits.items()}
