"""Two pictures of two captions that differ only in what the captions do (Prompt-to-Prompt).

Hertz et al. 2022: both are drawn from the same noise, and the second takes attention from the
first. InstructPix2Pix (Brooks et al. 2023, section 3.1.2) made its training data so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vpd.diffusion.attention_edit import AttentionEdit, PromptToPrompt
from vpd.diffusion.noise import NoiseSource, SampleNoise
from vpd.diffusion.sampler import Sampler

if TYPE_CHECKING:
    from vpd.diffusion.local_blend import LocalBlend
    from vpd.diffusion.sampling import StepWatcher
    from vpd.tasks.foundation import Foundation

__all__ = ["draw_pairs", "prompt_to_prompt"]


def prompt_to_prompt(
    model: Foundation,
    prompts: tuple[str, str] | Sequence[str],
    edit: AttentionEdit | None = None,
    *,
    blend: LocalBlend | None = None,
    seed: int = 0,
    guidance: float = 7.5,
    sampler: Sampler | None = None,
    noise: NoiseSource | None = None,
    on_step: StepWatcher | None = None,
) -> Tensor:
    """Draws two captions from the same noise, at the start and in every step, so that the pictures
    differ in what the captions do.

    Args:
        model: A text-to-image diffusion model.
        prompts: Captions before and after.
        edit: What the second picture takes from the first.
        blend: Where the second picture may differ; a new one for each call.
        seed: Of the noise.
        guidance: 1 = none; larger follows the captions more closely.
        sampler: DDIM in 50 steps if None.
        noise: Instead of the seed's: [2, ...] at every step, the same for both.
        on_step: Told after every step.

    Returns:
        [2, 3, image_size, image_size] in [-1, 1].

    Raises:
        ValueError: Not two captions, a word that is not in its caption, captions that cannot be
            aligned.

    Example:
        >>> both = prompt_to_prompt(model, ["a red ball", "a blue ball"], AttentionEdit("self"))
    """
    if isinstance(prompts, str) or len(prompts) != 2:
        raise ValueError(f"prompt_to_prompt: expected two captions, got {prompts!r}")
    return draw_pairs(
        model,
        [(prompts[0], prompts[1])],
        edit,
        seeds=[seed],
        guidance=guidance,
        sampler=sampler,
        noise=noise,
        blend=blend,
        on_step=on_step,
    )


@torch.no_grad()
def draw_pairs(
    model: Foundation,
    pairs: Sequence[tuple[str, str]],
    edit: AttentionEdit | None = None,
    *,
    seeds: Sequence[int],
    shares: Sequence[float] | None = None,
    guidance: float | Sequence[float] = 7.5,
    sampler: Sampler | None = None,
    noise: NoiseSource | None = None,
    blend: LocalBlend | None = None,
    on_step: StepWatcher | None = None,
) -> Tensor:
    """:func:`prompt_to_prompt` of several pairs at once; a pair does not depend on the others.

    Args:
        model: A text-to-image diffusion model.
        pairs: Captions before and after.
        edit: What is taken.
        seeds: Of the noise of each pair.
        shares: ``edit.share`` of each pair, if they differ.
        guidance: One for all, or one for each pair.
        sampler, blend, on_step: As there.
        noise: Instead of the seeds': [2 pairs, ...] at every step, the same for both of a pair.

    Returns:
        [2 pairs, 3, image_size, image_size] in [-1, 1]: before, after, before, ...
    """
    each = [guidance] * len(pairs) if isinstance(guidance, (int, float)) else list(guidance)
    if not len(pairs) == len(seeds) == len(each):
        raise ValueError(
            f"draw_pairs: expected a seed and a guidance for each of {len(pairs)} pairs, "
            f"got {len(seeds)} and {len(each)}"
        )
    sampler = sampler or Sampler("ddim", 50)
    length = model.config.token_length
    return model.draw(
        model.encode_text([text for pair in pairs for text in pair]),
        model.encode_text([""]),
        guidance=[value for value in each for _ in range(2)],
        sampler=sampler,
        noise=noise or SampleNoise(0, [seed for seed in seeds for _ in range(2)]),
        on_step=on_step if blend is None else blend.then(on_step),
        control=PromptToPrompt(pairs, sampler, edit, shares=shares, length=length),
        maps=blend,
    )
