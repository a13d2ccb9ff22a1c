"""Ways from noise to a sample."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from vpd._load import core
from vpd.diffusion.schedule import NoiseSchedule

__all__ = ["Interpolation", "Method", "Prediction", "Sampler", "Spacing"]

Method = Literal["ddpm", "ddim", "ddim_inverse", "euler", "euler_ancestral", "dpm++"]
Spacing = Literal["leading", "linspace", "trailing"]
Prediction = Literal["epsilon", "v"]
Interpolation = Literal["log", "linear"]


class Sampler:
    """A way through a few of the training timesteps, as a table of numbers: no tensor, no state.

    With ``x_0`` and ``epsilon`` as the network's output tells them, every step of every method is
    ``clean x_0 + direction epsilon + correction (x_0 - x_0 of the step before) + noise N(0, 1)``;
    :attr:`table` has the coefficients.

    Args:
        method: ``ddpm`` (Ho et al. 2020), ``ddim`` (Song et al. 2021), ``ddim_inverse`` (from a
            clean sample to the noise that DDIM makes it from), ``euler`` (Karras et al. 2022),
            ``euler_ancestral`` (Euler down, noise up: k-diffusion) or ``dpm++`` (DPM-Solver++(2M),
            Lu et al. 2022).
        steps: Calls of the network.
        spacing: Timesteps ``leading`` (0, r, 2r, ... shifted by ``offset``), ``linspace`` (0 to
            T - 1) or ``trailing`` (T - 1, T - 1 - r, ...); None: leading for DDPM and DDIM,
            linspace for the others. Those of Euler's linspace are not whole numbers.
        offset: 1 as in Stable Diffusion's samplers.
        prediction: What the network predicts: ``epsilon`` or ``v``
            (:meth:`NoiseSchedule.velocity`).
        eta: Of DDIM: 0 = deterministic, 1 = as random as DDPM.
        interpolation: Of sigmas at timesteps that are not whole: ``log`` as in k-diffusion,
            ``linear`` as in diffusers.
        schedule: Stable Diffusion's if None.

    Raises:
        ValueError: An unknown name, or numbers outside their ranges.
    """

    def __init__(
        self,
        method: Method = "ddim",
        steps: int = 50,
        *,
        spacing: Spacing | None = None,
        offset: int = 1,
        prediction: Prediction = "epsilon",
        eta: float = 0.0,
        interpolation: Interpolation = "log",
        schedule: NoiseSchedule | None = None,
    ) -> None:
        self._core = core.Sampler(
            (schedule or NoiseSchedule())._core,
            method=method,
            steps=steps,
            spacing=spacing,
            offset=offset,
            prediction=prediction,
            eta=eta,
            interpolation=interpolation,
        )
        self.method = method
        self.table = tuple(self._core.steps())
        """For every step its ``timestep``, the sample before it (``signal x_0 + spread epsilon``),
        ``input_scale`` (times the sample is what the network sees) and the coefficients ``clean``,
        ``direction``, ``correction`` and ``noise``."""

    def __len__(self) -> int:
        return len(self.table)

    @property
    def timesteps(self) -> list[float]:
        """What the network is told at each step."""
        return [step.timestep for step in self.table]

    @property
    def initial_scale(self) -> float:
        """Standard deviation of the noise to start from."""
        return self._core.initial_scale()

    def diffuse(self, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """A clean sample with the noise it has before step ``index``: where an edit of it starts
        (SDEdit, Meng et al. 2022).

        Args:
            clean: [B, ...].
            noise: Same shape, standard normal.
            index: 0 ... steps - 1.
        """
        return self._core.diffuse(clean, noise, index)

    def step(
        self,
        index: int,
        x: Tensor,
        output: Tensor,
        noise: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            index: 0 ... steps - 1.
            x: Samples [B, ...], float32 or float64.
            output: The network's output for ``input_scale x``, same shape.
            noise: Standard normal, same shape; needed where the step adds some.
            previous: Clean samples that the step before predicted. DPM-Solver++ does a step of
                first order without.

        Returns:
            The samples after the step and the predicted clean ones.

        Raises:
            ValueError: Shapes or dtypes that do not fit, missing noise, no such step.
        """
        return self._core.step(index, x, output, noise, previous)
