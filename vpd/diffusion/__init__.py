"""Noise schedules, samplers and guidance: from noise to latents, and back."""

from vpd.diffusion.guidance import GuidedUNet
from vpd.diffusion.noise import START, NoiseSource, SampleNoise, generator_noise
from vpd.diffusion.sampler import Sampler
from vpd.diffusion.sampling import Denoiser, StepWatcher, sample
from vpd.diffusion.schedule import NoiseSchedule

__all__ = [
    "START",
    "Denoiser",
    "GuidedUNet",
    "NoiseSchedule",
    "NoiseSource",
    "SampleNoise",
    "Sampler",
    "StepWatcher",
    "generator_noise",
    "sample",
]
