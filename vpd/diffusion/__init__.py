"""Noise schedules, samplers and guidance: from noise to latents, and back."""

from vpd.diffusion.attention_edit import AttentionEdit, PromptToPrompt
from vpd.diffusion.control import AttentionControl
from vpd.diffusion.guidance import Controller, GuidedRows, GuidedUNet, MapWatcher
from vpd.diffusion.heat_maps import HeatMaps
from vpd.diffusion.local_blend import LocalBlend
from vpd.diffusion.noise import START, NoiseSource, SampleNoise, generator_noise
from vpd.diffusion.pairs import draw_pairs, prompt_to_prompt
from vpd.diffusion.sampler import Sampler
from vpd.diffusion.sampling import Denoiser, StepWatcher, sample
from vpd.diffusion.schedule import NoiseSchedule
from vpd.diffusion.token_maps import TokenMap, token_map, word_columns

__all__ = [
    "START",
    "AttentionControl",
    "AttentionEdit",
    "Controller",
    "Denoiser",
    "GuidedRows",
    "GuidedUNet",
    "HeatMaps",
    "LocalBlend",
    "MapWatcher",
    "NoiseSchedule",
    "NoiseSource",
    "PromptToPrompt",
    "SampleNoise",
    "Sampler",
    "StepWatcher",
    "TokenMap",
    "draw_pairs",
    "generator_noise",
    "prompt_to_prompt",
    "sample",
    "token_map",
    "word_columns",
]
