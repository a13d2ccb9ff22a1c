"""Which token of an edited caption stands for which of the caption before.

Hertz et al. 2022 (Prompt-to-Prompt), section 3.2: attention to a token of the edited caption is
taken from the token it corresponds to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vpd.tokens import EOS, WordSpan, token_words, tokenize

__all__ = ["TokenMap", "token_map", "word_columns"]

Kind = Literal["replace", "refine"]


@dataclass(frozen=True, eq=False)
class TokenMap:
    """From a caption's tokens to those of an edited one.

    Attributes:
        kind: How it was made.
        transfer: float64 [N, N]: ``A @ transfer`` is attention to the caption told as attention to
            the edited one.
        taken: float64 [N]: 1 where the edited token has a counterpart, 0 where it is new.
    """

    kind: Kind
    transfer: Tensor
    taken: Tensor


def token_map(before: str, after: str, length: int = 77, kind: Kind | None = None) -> TokenMap:
    """Aligns two captions.

    ``replace``: they have as many words, and each stands for the one in its place; between words of
    m and n tokens attention goes one to one if m = n, else evenly to all n. ``refine``: tokens are
    aligned as a whole (Needleman and Wunsch 1970; match 1, mismatch -1, gap 0), so tokens of the
    edited caption that are not in the other are new. Padding stands for padding in its place. (The
    published code lets columns behind the last changed word stand for themselves even where that
    word's number of tokens changed, which pairs unlike words.)

    Args:
        before, after: The captions.
        length: Tokens N that the U-Net reads.
        kind: None: ``replace`` where the number of words is the same, else ``refine``.

    Raises:
        ValueError: ``replace`` of captions with different numbers of words.
    """
    words = [token_words(text, length) for text in (before, after)]
    same = len(words[0]) == len(words[1])
    chosen: Kind = kind or ("replace" if same else "refine")
    if chosen not in ("replace", "refine"):
        raise ValueError(f"token_map: kind must be 'replace' or 'refine', got {kind!r}")
    if chosen == "replace" and not same:
        raise ValueError(
            f"token_map: replace needs captions of equally many words, got {len(words[0])} in "
            f"{before!r} and {len(words[1])} in {after!r}; refine takes any"
        )
    ids = tokenize([before, after], length).ids.tolist()
    ends = [row.index(EOS) for row in ids]
    transfer = torch.zeros(length, length, dtype=torch.float64)
    transfer[0, 0] = transfer[ends[0], ends[1]] = 1
    for column in range(max(ends) + 1, length):
        transfer[column, column] = 1
    if chosen == "replace":
        _replace(transfer, *words)
    else:
        inner = [row[1:end] for row, end in zip(ids, ends, strict=True)]
        for i, j in _aligned(*inner):
            transfer[i + 1, j + 1] = 1
    return TokenMap(chosen, transfer, (transfer.sum(0) > 0).double())


def _replace(transfer: Tensor, before: Sequence[WordSpan], after: Sequence[WordSpan]) -> None:
    for old, new in zip(before, after, strict=True):
        if len(old.tokens) == len(new.tokens):
            transfer[list(old.tokens), list(new.tokens)] = 1
        else:
            for column in old.tokens:
                transfer[column, list(new.tokens)] = 1 / len(new.tokens)


def _aligned(x: Sequence[int], y: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of places with equal tokens, rising. Of equally good alignments the one that, from the
    end, leaves out tokens of y first, then of x.

    With gaps for free and mismatches at a loss, two unlike tokens are never paired: the score is
    the length of the longest common subsequence."""
    score = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            score[i + 1][j + 1] = max(
                score[i + 1][j], score[i][j + 1], score[i][j] + (1 if a == b else -1)
            )
    pairs = []
    i, j = len(x), len(y)
    while i and j:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def word_columns(text: str, words: Iterable[str], length: int = 77) -> dict[str, list[int]]:
    """The token columns of words of a text, those of all occurrences; case does not matter.

    Raises:
        ValueError: A word that the text does not have.
    """
    known: dict[str, list[int]] = {}
    for span in token_words(text, length):
        known.setdefault(span.word, []).extend(span.tokens)
    chosen = {}
    for word in words:
        if word.lower() not in known:
            raise ValueError(f"expected a word of {text!r} ({', '.join(known)}), got {word!r}")
        chosen[word] = known[word.lower()]
    return chosen
