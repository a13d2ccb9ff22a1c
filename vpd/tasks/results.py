"""What task models return: small dataclasses that know how to show and save themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vpd.tokens import token_words

__all__ = ["ReferResult", "WordMaps"]


@dataclass(frozen=True)
class WordMaps(Mapping[str, np.ndarray]):
    """Cross-attention of each word of a sentence over the image, head- and layer-averaged.

    ``maps["cube"]`` is the finest map of the first "cube": float32 [h, w], the mean over the
    word's tokens of the
    probability each pixel gives them.
    """

    words: tuple[str, ...]
    """In the order of the sentence; a repeated word appears repeatedly."""
    strides: dict[int, np.ndarray]
    """Stride on the latent grid -> float32 [words, h, w]."""
    tokens: dict[int, np.ndarray]
    """Stride on the latent grid -> float32 [N, h, w]: every token, start, end and padding
    included."""

    @classmethod
    def from_tokens(cls, text: str, length: int, tokens: dict[int, np.ndarray]) -> WordMaps:
        """Averages token maps [N, h, w] over the tokens of each word of ``text`` (tokenised to
        ``length``)."""
        spans = token_words(text, length)
        strides = {
            stride: np.stack([maps[list(span.tokens)].mean(0) for span in spans])
            if spans
            else np.zeros((0, *maps.shape[1:]), np.float32)
            for stride, maps in tokens.items()
        }
        return cls(tuple(span.word for span in spans), strides, tokens)

    def __repr__(self) -> str:
        shapes = {stride: maps.shape for stride, maps in self.strides.items()}
        return f"WordMaps({list(self.words)}, {shapes})"

    @property
    def finest(self) -> np.ndarray:
        """float32 [words, h, w] at the finest stride asked for; raises if the model was run
        without maps."""
        if not self.strides:
            raise ValueError("this model was run without attention maps")
        return self.strides[min(self.strides)]

    def __getitem__(self, word: str) -> np.ndarray:
        if word not in self.words:
            raise KeyError(f"no word {word!r} in the sentence; its words are {list(self.words)}")
        return self.finest[self.words.index(word)]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self.words))

    def __len__(self) -> int:
        return len(set(self.words))


@dataclass(frozen=True)
class ReferResult:
    """The object a sentence refers to."""

    image: np.ndarray
    """The image as it came, uint8 [H, W, 3]."""
    text: str
    probability: np.ndarray
    """float32 [H, W] in [0, 1]: how likely each pixel belongs to the object."""
    attention: WordMaps
    truncated: bool = False
    """Whether the sentence was longer than the model reads."""

    @cached_property
    def mask(self) -> np.ndarray:
        """bool [H, W]: probability above one half."""
        return self.probability > 0.5

    def __repr__(self) -> str:
        height, width = self.probability.shape
        share = f"{self.mask.mean():.1%}"
        return f"ReferResult({self.text!r}, {width} x {height} px, mask {share} of them)"

    def _repr_png_(self) -> bytes:
        return self.show()._repr_png_()

    def show(self) -> Any:
        """A figure of image, attention of the words, probability and mask; notebooks draw it."""
        from vpd.viz import refer_figure

        return refer_figure(self)

    def save(self, path: str | Path) -> Path:
        """Writes the mask (``.png``, 0 and 255), everything as arrays (``.npz``) or the figure
        (``.figure.png``).

        The file appears only when complete.
        """
        from vpd.viz import save_refer

        return save_refer(self, Path(path))
