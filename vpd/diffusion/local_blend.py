"""An edit that stays where the edited words are (Prompt-to-Prompt's local blend)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vpd.diffusion.token_maps import word_columns

if TYPE_CHECKING:
    from vpd.diffusion.sampling import StepWatcher
    from vpd.models.unet import Taps

__all__ = ["LocalBlend"]


class LocalBlend:
    """Composites the latents of each pair after every step: the second picture keeps its own only
    where either picture attends to its edited words (Hertz et al. 2022, section 3.2 and the
    published code).

    The maps of the words, summed over words and over the steps so far, pass a 3 x 3 maximum, are
    divided by their own maximum, cut at ``threshold`` and united. One for each sampling: it
    remembers.

    Args:
        pairs: Captions before and after; samples 2k and 2k + 1 are a pair.
        words: Of each pair, the edited words of the first and of the second caption.
        length: Tokens that the U-Net reads.
        stride: Whose maps, averaged over the way down and up; 4 is Stable Diffusion's 16 x 16 at
            512 px.
        threshold: 0 to 1.

    Raises:
        ValueError: A word that its caption does not have, or none.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        words: Sequence[tuple[Sequence[str], Sequence[str]]],
        *,
        length: int = 77,
        stride: int = 4,
        threshold: float = 0.3,
    ) -> None:
        from vpd.models.unet import Taps

        if len(pairs) != len(words):
            raise ValueError(
                f"LocalBlend: expected words of each of {len(pairs)} pairs, got {len(words)}"
            )
        self.taps: Taps = Taps(attention=(stride,))
        self.threshold, self._stride = threshold, stride
        self._counted = torch.zeros(2 * len(pairs), length)
        captions = [text for pair in pairs for text in pair]
        chosen = [own for both in words for own in both]
        for row, (text, own) in enumerate(zip(captions, chosen, strict=True)):
            if isinstance(own, str) or not own:
                raise ValueError(f"LocalBlend: expected a list of words of {text!r}, got {own!r}")
            for columns in word_columns(text, own, length).values():
                self._counted[row, columns] = 1
        self._sum: Tensor | None = None

    def __call__(self, timestep: float, maps: dict[int, Tensor]) -> None:
        """Adds the maps of a step, stride -> [2 pairs, N, h, w]."""
        found = maps[self._stride].float()
        own = torch.einsum("bnhw,bn->bhw", found, self._counted.to(found.device))
        self._sum = own if self._sum is None else self._sum + own

    def mask(self, size: tuple[int, int]) -> Tensor:
        """Where the second picture of each pair keeps its own: bool [pairs, 1, *size].

        Raises:
            ValueError: No step was seen.
        """
        if self._sum is None:
            raise ValueError("LocalBlend: no step was seen; give it to a sampling as maps=")
        wide = F.max_pool2d(self._sum[:, None], 3, stride=1, padding=1)
        large = F.interpolate(wide, size)
        mask = large / large.amax((2, 3), keepdim=True) > self.threshold
        return mask[0::2] | mask[1::2]

    def composite(self, samples: Tensor) -> Tensor:
        """Samples [2 pairs, C, h, w] with those of the first picture wherever the mask is not."""
        before, after = samples[0::2], samples[1::2]
        mixed = torch.where(self.mask((samples.shape[2], samples.shape[3])), after, before)
        return torch.stack([before, mixed], dim=1).flatten(0, 1)

    def then(self, watch: StepWatcher | None = None) -> StepWatcher:
        """What a sampling is given as ``on_step``: composites, then shows ``watch`` the result."""

        def after(index: int, samples: Tensor, clean: Tensor, /) -> Tensor:
            mixed = self.composite(samples)
            other = None if watch is None else watch(index, mixed, clean)
            return mixed if other is None else other

        return after
