"""Noise schedules and samplers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vpd._load import core

if TYPE_CHECKING:
    from vpd.models.unet import UNet

__all__ = ["NoiseSchedule", "ddim_sample"]


class NoiseSchedule:
    """What a training timestep means: ``x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise``
    (Ho et al. 2020).

    Betas are linear in their square root, the defaults Stable Diffusion's.

    Args:
        num_train_timesteps: T; timesteps are 0 ... T - 1.
        beta_start: Variance added by timestep 0.
        beta_end: Variance added by timestep T - 1.

    Raises:
        ValueError: Unless ``0 < beta_start <= beta_end < 1`` and T >= 2.
    """

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
    ) -> None:
        self.num_train_timesteps = num_train_timesteps
        self._core = core.NoiseSchedule(
            num_train_timesteps=num_train_timesteps, beta_start=beta_start, beta_end=beta_end
        )

    @property
    def betas(self) -> Tensor:
        """float64 [T]."""
        return torch.tensor(self._core.betas(), dtype=torch.float64)

    @property
    def alphas_cumprod(self) -> Tensor:
        """alpha_bar of every timestep, float64 [T], falling."""
        return torch.tensor(self._core.alphas_cumprod(), dtype=torch.float64)

    def alpha_bar(self, t: Tensor) -> Tensor:
        """alpha_bar of timesteps int64 [B]: float64 [B] on their device."""
        return self._core.alpha_bar(t)

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio ``alpha_bar / (1 - alpha_bar)`` of timesteps int64 [B]: float64
        [B]."""
        return self._core.snr(t)

    def add_noise(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """x_t of clean samples.

        Args:
            x0: [B, ...].
            noise: Same shape, standard normal.
            t: An int for the whole batch, or int64 [B].

        Raises:
            ValueError: Shapes that do not fit, or (on the CPU) a timestep outside [0, T).
        """
        return self._core.add_noise(x0, noise, _timesteps(t, x0))

    def velocity(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """``sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0`` (Salimans and Ho 2022); arguments as
        :meth:`add_noise`."""
        return self._core.velocity(x0, noise, _timesteps(t, x0))

    def ddim_timesteps(self, steps: int) -> list[int]:
        """Timesteps of a sampler, noisiest first, evenly spaced and shifted by one: 10 of 1000 are
        901, 801, ..., 1."""
        return self._core.ddim_timesteps(steps)

    def ddim_step(
        self,
        x: Tensor,
        epsilon: Tensor,
        t: int,
        previous: int,
        eta: float = 0.0,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One step back from ``t`` to ``previous`` (Song et al. 2021, equation 12).

        Args:
            x: Sample at t, any shape.
            epsilon: Predicted noise, same shape.
            t: Timestep in [0, T).
            previous: Less noisy timestep; below 0, alpha_bar of timestep 0 is used.
            eta: 0 = deterministic, 1 = as random as the original process; above 0 needs ``noise``.
            noise: Standard normal, same shape.

        Returns:
            The sample at ``previous`` and the predicted clean sample.
        """
        return self._core.ddim_step(x, epsilon, t, previous, eta, noise)


def _timesteps(t: int | Tensor, x0: Tensor) -> Tensor:
    return t if isinstance(t, Tensor) else torch.full((x0.shape[0],), t, device=x0.device)


@torch.no_grad()
def ddim_sample(
    unet: UNet,
    context: Tensor,
    uncond: Tensor | None,
    shape: tuple[int, int, int, int],
    steps: int = 50,
    guidance: float = 7.5,
    generator: torch.Generator | None = None,
    *,
    eta: float = 0.0,
    schedule: NoiseSchedule | None = None,
) -> Tensor:
    """Draws latents from a text-to-image U-Net by DDIM with classifier-free guidance (Ho and
    Salimans 2022).

    Each step predicts ``eps_u + guidance * (eps_c - eps_u)``.

    Args:
        unet: Denoiser that predicts noise.
        context: Text states [B, N, context_dim].
        uncond: Text states of the empty sentence, [B or 1, N, context_dim]; None: no guidance, one
            row per sample.
        shape: Of the latents, (B, C, h, w).
        steps: Steps of the sampler.
        guidance: 1 = none; larger follows the text more closely.
        generator: Source of the noise, on the device it is drawn on (CPU if None).
        eta: 0 = deterministic after the first noise.
        schedule: Stable Diffusion's if None.

    Returns:
        Latents float32 (B, C, h, w) on the context's device, in the scale the U-Net was trained
        with.

    Raises:
        ValueError: Contexts, shape or steps that do not fit.
    """
    from vpd.models.unet import Taps

    if len(shape) != 4 or context.dim() != 3 or context.shape[0] != shape[0]:
        raise ValueError(
            "ddim_sample: expected shape (B, C, h, w) and context [B, N, C], "
            f"got {tuple(shape)} and {list(context.shape)}"
        )
    schedule = schedule or NoiseSchedule()
    rows, device = shape[0], context.device
    guided = uncond is not None and guidance != 1.0
    states, index = context, None
    if uncond is not None and guided:
        states = torch.cat([uncond.to(context).expand_as(context), context])
        index = torch.arange(rows, device=device).repeat(2)
    noise_device = generator.device if generator is not None else torch.device("cpu")

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator, device=noise_device).to(device)

    taps = Taps(noise=True, features=False, attention=())
    timesteps = schedule.ddim_timesteps(steps)
    stride = schedule.num_train_timesteps // steps
    x = draw()
    for t in timesteps:
        epsilon = unet(x, t, states, image_index=index, taps=taps).noise
        assert epsilon is not None
        epsilon = epsilon.float()
        if guided:
            without, with_text = epsilon.chunk(2)
            epsilon = without + guidance * (with_text - without)
        x, _ = schedule.ddim_step(x, epsilon, t, t - stride, eta, draw() if eta > 0 else None)
    return x
