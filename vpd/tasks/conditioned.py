"""What segmenters of named classes share: a U-Net that is told something in one of several ways
(:mod:`vpd.tasks.conditions`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from vpd.images import read_image, to_network
from vpd.models.clip_text import CLIPTextEncoder
from vpd.models.unet import UNetOutput, feature_dims
from vpd.tasks.condition_config import ConditionedConfig
from vpd.tasks.conditions import CONDITIONS, States, Tagging, Untold
from vpd.tasks.dense import Context, DenseModel
from vpd.tasks.dense_results import TaggedResult

__all__ = ["ConditionedModel"]

C = TypeVar("C", bound=ConditionedConfig)


class ConditionedModel(DenseModel[C]):
    """Backbone and what it is told; a task puts its head on it.

    ``class_embeddings`` [K, C] holds one pooled text embedding for each class, so that no text
    encoder is needed where the classes are all that is said.

    Args:
        config: Of the task.
    """

    class_embeddings: Tensor
    text: CLIPTextEncoder
    """Reads captions or tags, where the model is told such."""

    def __init__(self, config: C) -> None:
        super().__init__(config)
        kind = CONDITIONS[config.condition] if config.vit is None else Untold
        self.condition = kind(config)
        self.condition.attach(self)

    @property
    def map_channels(self) -> tuple[int, ...]:
        """Of the four maps of :meth:`pyramid`, fine to coarse."""
        tokens = self.condition.tokens or 0
        return feature_dims(self.feature_channels, tokens, self.config.attention)

    @property
    def adapts(self) -> bool:
        """Whether an adapter makes what the U-Net is told."""
        return self.condition.adapts

    @property
    def sees(self) -> bool:
        """Whether an image encoder has part in that."""
        return self.condition.sees

    def look(self, pixels: Tensor) -> Tensor | None:
        """What the image encoder sees in pictures [B, 3, H, W] in [-1, 1]: [B, D] of ``implicit``,
        [B, N, D] of ``tagging``; None of the others."""
        return self.condition.look(self, pixels)

    def context(self, words: Sequence[Any], seen: Tensor | None = None) -> Context:
        """What the U-Net is told about pictures.

        Args:
            words: About each of them, where ``config.condition`` takes that: a caption ("" if
                None), its tags (none), or, for ``oracle``, names or ids of the classes in its
                label.
            seen: Of :meth:`look`.
        """
        return self._told(self.condition.states(self, words), seen)

    def _told(self, states: States, seen: Tensor | None) -> Context:
        tokens, mask = states
        return self.condition.context(self, (tokens.to(self.dtype), mask), seen)

    def features(
        self,
        latents: Tensor,
        states: Tensor | None = None,
        states_mask: Tensor | None = None,
        *,
        seen: Tensor | None = None,
    ) -> UNetOutput:
        """The U-Net's features and maps.

        Args:
            latents: [B, C, h, w] of :meth:`encode_image`.
            states: Tokens [n, C] or [B, n, C] instead of what the model says by itself: embeddings
                of classes or tags, states of a caption.
            states_mask: bool [B, n], True = a token.
            seen: Of :meth:`look`, where there is an image encoder.
        """
        if states is None:
            return self.attend(latents, self.context([None], seen))
        tokens = states if states.dim() == 3 else states[None]
        return self.attend(latents, self._told((tokens, states_mask), seen))

    def tags(self, image: Any, *, words: Any = None, states: Tensor | None = None) -> TaggedResult:
        """Which classes the tagging adapter finds in a picture, squashed to the size that it was
        trained on, and where its queries look for each.

        Args:
            image, words, states: As the model's call takes them.

        Raises:
            ValueError: A model with another condition; and as the model's call raises.
        """
        from vpd.tags.attention import tag_attention

        condition = self.condition
        if not isinstance(condition, Tagging):
            raise ValueError(f"tags need condition=tagging, this model has {self.config.condition}")
        picture = read_image(image)
        pixels = to_network(picture, self.config.image_size).to(self.device, self.dtype)
        with torch.inference_mode():
            tokens, mask = self._states(words, states)
            seen = self.look(pixels)
            found = condition.context(self, (tokens.to(self.dtype), mask), seen, attention=True)
            assert found.tags is not None
            scores = found.tags[0].float().sigmoid()
            maps = None
            if found.attention is not None:
                # What each query adds to a class's score says for how much its look counts.
                shares = (found.states[0] @ self.class_embeddings.to(self.dtype).T).clamp(min=0)
                side = math.isqrt(found.attention.shape[2] - 1)
                attention = tag_attention(shares.float(), found.attention[0].float(), (side, side))
                maps = attention.float().cpu().numpy()
        return TaggedResult(picture, self.config.classes, scores.cpu().numpy(), maps)

    def _states(self, words: Any, states: Tensor | None) -> States:
        """Tokens of what is said about one picture."""
        if states is None:
            return self.condition.states(self, [words])
        if words is not None:
            raise ValueError("words and states were both given: choose one")
        return states[None].to(self.device), None
