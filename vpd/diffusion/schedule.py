"""What a training timestep means."""

from __future__ import annotations

import torch
from torch import Tensor

from vpd._load import core

__all__ = ["NoiseSchedule"]


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

    def ddim(self, x: Tensor, epsilon: Tensor, t: int | Tensor, to: int | Tensor) -> Tensor:
        """Samples moved from one timestep to another along DDIM's deterministic way (Song et al.
        2021, equation 12): any two, up or down, for each row its own.

        Args:
            x: Samples [B, ...] at timestep ``t``.
            epsilon: The noise in them as the network says, same shape.
            t, to: Ints for the whole batch, or int64 [B].

        Raises:
            ValueError: Shapes that do not fit, or (on the CPU) a timestep outside [0, T).
        """
        return self._core.ddim(x, epsilon, _timesteps(t, x), _timesteps(to, x))

    def sigma(self, t: float) -> float:
        """``sqrt((1 - alpha_bar) / alpha_bar)`` of a timestep in [0, T - 1], whole or not: between
        two it is interpolated in its logarithm, as k-diffusion does (Karras et al. 2022).

        Raises:
            ValueError: A timestep outside [0, T - 1].
        """
        return self._core.sigma(t)

    def timestep(self, sigma: float) -> float:
        """The timestep of a sigma, the inverse of :meth:`sigma`; 0 or T - 1 where it lies outside.

        Raises:
            ValueError: A sigma that is not positive.
        """
        return self._core.timestep(sigma)


def _timesteps(t: int | Tensor, x0: Tensor) -> Tensor:
    return t if isinstance(t, Tensor) else torch.full((x0.shape[0],), t, device=x0.device)
