"""Pairs of pictures for triplets by Prompt-to-Prompt: a sampler for `make_edits`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vpd.data.edit_files import NewPair
from vpd.data.edit_generation import PairSettings
from vpd.data.triplets import Triplet
from vpd.images import read_image

if TYPE_CHECKING:
    from vpd.diffusion import AttentionEdit, Sampler
    from vpd.tasks.foundation import Foundation

__all__ = ["PromptToPromptSampler"]


class PromptToPromptSampler:
    """Draws a triplet's captions from the same noise, the second with attention of the first.

    A pair depends on its triplet and settings alone, not on those drawn with it.

    Args:
        model: a text-to-image diffusion model.
        edit: what is taken; its share of the steps is each pair's own. Default: self-attention, as
            InstructPix2Pix's released data were made.
        sampler: default: 100 steps of Euler-ancestral, as there.
    """

    def __init__(
        self,
        model: Foundation,
        edit: AttentionEdit | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        from vpd.diffusion import AttentionEdit, Sampler

        self.model = model
        self.edit = edit or AttentionEdit("self")
        self.sampler = sampler or Sampler("euler_ancestral", 100)

    def __call__(self, triplet: Triplet, settings: Sequence[PairSettings]) -> list[NewPair]:
        """A pair for each of the settings."""
        from vpd.diffusion import draw_pairs

        images = draw_pairs(
            self.model,
            [(triplet.input, triplet.output)] * len(settings),
            self.edit,
            seeds=[one.seed for one in settings],
            shares=[one.p2p_threshold for one in settings],
            guidance=[one.cfg_scale for one in settings],
            sampler=self.sampler,
        )
        pictures = [read_image(image / 2 + 0.5) for image in images.float()]
        return [
            NewPair(one.seed, before, after)
            for one, before, after in zip(settings, pictures[0::2], pictures[1::2], strict=True)
        ]
