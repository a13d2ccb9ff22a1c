"""Texts of vocabularies in the space that CLIP's pictures and texts share, each encoded once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vpd.models.clip_text import CLIPTextEncoder
from vpd.tasks.class_texts import embed_sentences, templates
from vpd.tokens import tokenize

__all__ = ["VocabularyTexts"]


class VocabularyTexts:
    """A text encoder that remembers what it has read: another vocabulary costs what is new in it.

    Args:
        text: With a projection. If its weights change, call :meth:`clear`.
        batch: Sentences that it reads at a time.
        limit: Sentences to remember; the oldest are forgotten.

    Example:
        >>> texts = VocabularyTexts(clip.text)                              # doctest: +SKIP
        >>> words = Vocabulary.parse("cube, box; ring")                     # doctest: +SKIP
        >>> texts(words.words, "single").shape                              # doctest: +SKIP
        torch.Size([3, 768])
    """

    def __init__(self, text: CLIPTextEncoder, *, batch: int = 80, limit: int = 50_000) -> None:
        if batch < 1 or limit < 0:
            raise ValueError(
                f"VocabularyTexts: expected batch >= 1 and limit >= 0, got {batch} and {limit}"
            )
        self.text, self.batch, self.limit = text, batch, limit
        self._known: dict[str, Tensor] = {}

    def __call__(self, words: Sequence[str], templates_: str | Sequence[str] = "bare") -> Tensor:
        """The projected states of words, not normalised.

        Args:
            words: S of them, such as :attr:`vpd.vocabulary.Vocabulary.words`.
            templates_: Sentences around a word, as :func:`vpd.tasks.class_texts.templates` takes
                them; of several the mean is taken.

        Returns:
            float32 [S, D], on the CPU.

        Raises:
            ValueError: No word, one that is too long for the encoder, or an encoder without a
                projection.
        """
        said = templates(templates_)
        sentences = [one.replace("{}", word) for word in words for one in said]
        if not sentences:
            raise ValueError("expected at least one name, got none")
        new = [one for one in dict.fromkeys(sentences) if one not in self._known]
        found = self._known | dict(zip(new, self._encode(new), strict=True))
        rows = torch.stack([found[one] for one in sentences])
        kept = list(found.items())[max(len(found) - self.limit, 0) :]
        self._known = dict(kept)
        return rows.view(len(words), len(said), -1).mean(1)

    def clear(self) -> None:
        """Forgets all texts."""
        self._known = {}

    def _encode(self, sentences: list[str]) -> list[Tensor]:
        rows: list[Tensor] = []
        length = self.text.config.max_position_embeddings
        for start in range(0, len(sentences), self.batch):
            part = sentences[start : start + self.batch]
            cut = tokenize(part, length=length).truncated
            if cut.any():
                worst = part[int(cut.nonzero()[0])]
                raise ValueError(
                    f"expected names that fit {length} tokens, got one of {len(worst)} characters: "
                    f"{worst[:60]!r}..."
                )
            rows += embed_sentences(self.text, part, joint=True, unit=False).unbind()
        return rows
