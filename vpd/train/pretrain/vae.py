"""Stage 1 of pre-training: the autoencoder."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vpd.data import tabletop
from vpd.losses import reconstruction_loss
from vpd.models.autoencoder import AutoencoderKL
from vpd.train.loop.batches import Resident, step_generator
from vpd.train.loop.config import LoopConfig
from vpd.train.loop.optimizer import optimizer_of
from vpd.train.loop.parts import PartsTraining
from vpd.train.loop.progress import show
from vpd.train.pretrain.world import images_tensor
from vpd.viz.page import Band, Panel, Picture, page


@dataclass(frozen=True)
class VAEStage:
    """L1 of pixels and of their differences plus a small KL, on random crops."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=4000, batch=16, lr=2e-3, weight_decay=1e-4)
    )
    crop: int = 64
    cycle: int | None = None
    """Steps over which the learning rate falls along a cosine before it starts again: a restart
    finds colour axes that the
    first fall missed. None: it falls once, over the whole run."""
    kl_weight: float = 2e-4


class VAETraining(PartsTraining):
    """Trains an autoencoder on the pictures of ``train``; validates on those of ``val``."""

    def __init__(
        self,
        vae: AutoencoderKL,
        stage: VAEStage,
        train: tabletop.TabletopSplit,
        val: tabletop.TabletopSplit,
        seed: int,
    ) -> None:
        super().__init__(stage.loop.batch, stage.loop.micro_batch)
        self.vae = vae
        self.stage = stage
        self.seed = seed
        self._data = Resident(images=torch.from_numpy(train.images[:]))  # uint8 [N, 128, 128, 3]
        self._val = val

    def setup(self, stage: str) -> None:
        self._data.to(self.device)

    def batch(self, step: int) -> Tensor:
        """Random crops of the step's scenes, float32 [B, 3, crop, crop] in [-1, 1]."""
        generator = step_generator(self.seed, step)
        images, crop = self._data["images"], self.stage.crop
        scenes = torch.randint(len(images), (self.stage.loop.batch,), generator=generator)
        top, left = torch.randint(images.shape[1] - crop + 1, (2,), generator=generator).tolist()
        pixels = images[scenes.to(images.device), top : top + crop, left : left + crop]
        return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)

    def losses(self, step: int, rows: slice) -> dict[str, Tensor]:
        image = self.batch(step)[rows]
        posterior = self.vae.encode(image)
        noise = torch.randn(
            (self.shares.batch, *posterior.mean.shape[1:]),
            generator=step_generator(self.seed + 1, step, self.device),
            device=self.device,
        )[rows]
        latents = posterior.mean.float() + noise * (0.5 * posterior.logvar.float()).exp()
        loss = reconstruction_loss(
            self.vae.decode(latents), image, posterior.mean, posterior.logvar, self.stage.kl_weight
        )
        terms = {"loss": loss.total, "pixels": loss.pixels, "edges": loss.edges, "kl": loss.kl}
        return {name: term * (len(image) / self.shares.batch) for name, term in terms.items()}

    def validation_step(self, _: int) -> None:
        self.log(
            "psnr", psnr(self.vae, self._val, min(64, len(self._val))), prog_bar=True, batch_size=1
        )
        show(self, reconstructions(self.vae, self._val))

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        cycle = self.stage.cycle or self.stage.loop.steps
        return optimizer_of(
            [{"params": list(self.vae.parameters())}],
            self.stage.loop,
            lambda step: 0.5 + 0.5 * math.cos(math.pi * (step % cycle) / cycle) + 0.01,
        )


@torch.no_grad()
def reconstructions(vae: AutoencoderKL, split: tabletop.TabletopSplit, count: int = 8) -> Picture:
    """The first pictures of a split above what the autoencoder makes of them."""
    images = images_tensor(split, slice(0, count))
    device = next(vae.parameters()).device
    again = vae.decode(vae.encode(images.to(device)).mode()).float().clamp(-1, 1).cpu()
    rows = (((x + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy() for x in (images, again))
    names = ("pictures", "reconstructions")
    return page(
        [Band([Panel(p) for p in row], name) for row, name in zip(rows, names, strict=True)]
    )


@torch.no_grad()
def psnr(vae: AutoencoderKL, split: tabletop.TabletopSplit, count: int) -> float:
    """Reconstruction PSNR in dB over ``count`` scenes (peak-to-peak 2, error averaged over all of
    them)."""
    device = next(vae.parameters()).device
    total, n = 0.0, 0
    for first in range(0, count, 32):
        image = images_tensor(split, slice(first, min(first + 32, count))).to(device)
        again = vae.decode(vae.encode(image).mode()).float().clamp(-1, 1)
        total += float(((again - image) ** 2).sum())
        n += image.numel()
    return 10 * math.log10(4 * n / total)


@torch.no_grad()
def encode_split(vae: AutoencoderKL, split: tabletop.TabletopSplit, batch: int = 64) -> Tensor:
    """Unscaled latents (posterior mode) of every scene: float16 [N, C, h, w] on the CPU."""
    device = next(vae.parameters()).device
    parts = []
    for first in range(0, len(split), batch):
        image = images_tensor(split, slice(first, min(first + batch, len(split)))).to(device)
        parts.append(vae.encode(image).mode().half().cpu())
    return torch.cat(parts)
