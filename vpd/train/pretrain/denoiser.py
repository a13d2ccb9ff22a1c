"""Stage 3 of pre-training: text encoder and U-Net, jointly, with the diffusion objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vpd.diffusion import NoiseSchedule
from vpd.losses import epsilon_loss
from vpd.models.clip_text import CLIPTextEncoder
from vpd.models.unet import UNet
from vpd.train.loop.batches import Resident, step_generator
from vpd.train.loop.config import LoopConfig
from vpd.train.loop.optimizer import optimizer_of
from vpd.train.loop.parts import PartsTraining
from vpd.train.loop.progress import show
from vpd.train.pretrain.probes import NOISE_ONLY, Probe, denoising_probe
from vpd.viz.page import Picture


@dataclass(frozen=True)
class DenoiserStage:
    """Noise prediction under Stable Diffusion's schedule, weighted so that the noisy timesteps,
    where text matters, count."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=18000, batch=16, lr=6e-4, warmup=200, ema=0.999, val_every=2000
        )
    )
    weight_cap: float = 100.0
    """The loss of timestep t is weighted by min(1 / alpha_bar_t, weight_cap)."""
    noisy_share: float = 0.3
    """Share of timesteps drawn from 500..999 on top of the uniform draw."""
    empty_share: float = 0.1
    """Share of empty captions, for classifier-free guidance."""
    decay_share: float = 0.25
    """Last part of the run over which the learning rate falls linearly to 0."""
    val_scenes: int = 256


class DenoiserTraining(PartsTraining):
    """Trains text encoder and U-Net.

    Args:
        latents: [N, C, h, w], scaled as the U-Net sees them.
        captions: int [N, captions, length], tokenised captions of each scene.
        empty: int [length], the empty caption.
        draw: Shows what the model draws by now; called at every validation.
    """

    def __init__(
        self,
        text: CLIPTextEncoder,
        unet: UNet,
        stage: DenoiserStage,
        latents: Tensor,
        captions: Tensor,
        empty: Tensor,
        probe: Probe,
        seed: int,
        draw: Callable[[], Picture] | None = None,
    ) -> None:
        super().__init__(stage.loop.batch, stage.loop.micro_batch)
        self.text = text
        self.unet = unet
        self._draw = draw
        self.stage = stage
        self.seed = seed
        self._schedule = NoiseSchedule()
        self._data = Resident(
            latents=latents, captions=captions, empty=empty,
            alphas_cumprod=self._schedule.alphas_cumprod,
        )  # fmt: skip
        self._probe = probe

    def setup(self, stage: str) -> None:
        self._data.to(self.device)

    def losses(self, step: int, rows: slice) -> dict[str, Tensor]:
        latents, captions = self._data["latents"], self._data["captions"]
        size, device = self.stage.loop.batch, self.device
        generator = step_generator(self.seed, step, device)

        def uniform() -> Tensor:
            return torch.rand(size, generator=generator, device=device)

        scenes = torch.randint(len(latents), (size,), generator=generator, device=device)
        clean = latents[scenes].float()
        noise = torch.randn(clean.shape, generator=generator, device=device)
        low = torch.where(uniform() < self.stage.noisy_share, 500.0, 0.0)
        t = (low + uniform() * (1000.0 - low)).long().clamp(max=999)
        which = torch.randint(captions.shape[1], (size,), generator=generator, device=device)
        empty = (uniform() < self.stage.empty_share)[:, None]
        ids = torch.where(empty, self._data["empty"], captions[scenes, which]).long()
        clean, noise, t, ids = clean[rows], noise[rows], t[rows], ids[rows]
        noisy = self._schedule.add_noise(clean, noise, t)
        states = self.text(ids).hidden
        predicted = self.unet(noisy, t, states, taps=NOISE_ONLY).noise
        alpha_bar = self._data["alphas_cumprod"][t]
        loss = epsilon_loss(predicted, noise, alpha_bar, cap=self.stage.weight_cap, reduction="sum")
        return {"loss": loss / size}

    def validation_step(self, _: int) -> None:
        self.log_dict(denoising_probe(self.text, self.unet, self._probe, self.device), batch_size=1)
        if self._draw is not None:
            show(self, self._draw())

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        total, share = self.stage.loop.steps, self.stage.decay_share
        return optimizer_of(
            [{"params": list(self.parameters())}],
            self.stage.loop,
            lambda step: min(1.0, (1 - step / total) / share + 0.01) if share > 0 else 1.0,
        )
