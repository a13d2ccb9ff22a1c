"""Tags by the Recognize Anything Model, which the user brings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vpd.tags.tag_set import TagSet
from vpd.tags.tagger import Tag, Tagger, squashed

__all__ = ["RamTagger"]

# Mean and standard deviation of ImageNet's pictures, per colour, values in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class RamTagger(Tagger):
    """Runs a Recognize Anything Model (Zhang et al. 2023), or another multi-label classifier.

    vpd has neither its network nor its weights: build the model with its authors' code. Pictures
    come to it squashed to ``size`` and normalised as ImageNet's.

    Args:
        model: RAM itself, whose ``generate_tag`` applies its own thresholds and gives words alone
            (each counts with a score of 1); or a function from pixels [1, 3, size, size] to logits
            [1, K], in the order of ``tags``, which their thresholds judge.
        tags: What the model knows; needed for logits, and otherwise keeps to words of the set.
        size: Side of the square that it sees.
        device: Where it runs.

    Raises:
        ValueError: A model of logits without ``tags``.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor] | Any,
        tags: TagSet | None = None,
        *,
        size: int = 384,
        device: torch.device | str = "cpu",
    ) -> None:
        if tags is None and not hasattr(model, "generate_tag"):
            raise ValueError("RamTagger: a model of logits needs tags, in the logits' order")
        self.model, self.tag_set, self.size, self.device = model, tags, size, device

    @torch.no_grad()
    def tags(self, picture: Any) -> list[Tag]:
        """See :meth:`Tagger.tags`.

        Raises:
            ValueError: The model answers with something else than it should.
        """
        pixels = self.pixels(picture)
        if hasattr(self.model, "generate_tag"):
            said = self.model.generate_tag(pixels)[0]
            words = said if isinstance(said, str) else said[0]
            found = [word.strip() for word in words.split("|") if word.strip()]
            return [(word, 1.0) for word in found if self.tag_set is None or word in self.tag_set]
        logits = self.model(pixels)
        assert self.tag_set is not None
        if not isinstance(logits, Tensor) or logits.shape != (1, len(self.tag_set)):
            got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"RamTagger: expected logits [1, {len(self.tag_set)}], got {got}")
        return self.tag_set.select(logits[0].float().sigmoid())

    def pixels(self, picture: Any) -> Tensor:
        """What the model sees: float32 [1, 3, size, size]."""
        unit = torch.from_numpy(squashed(picture, self.size))[None]
        mean, std = torch.tensor(_MEAN).view(3, 1, 1), torch.tensor(_STD).view(3, 1, 1)
        return ((unit - mean) / std).to(self.device)
