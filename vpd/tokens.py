"""Text to CLIP token ids: the cleaning and the byte-pair encoding CLIP was trained with.

Cleaning is OpenAI CLIP's: ``ftfy.fix_text``, HTML unescaped twice, white space collapsed, lower
case. The vocabulary comes inside ``instant_clip_tokenizer``. As in open_clip, the literal strings
``<start_of_text>`` and ``<end_of_text>`` in a text become the marker tokens themselves.

Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
Supervision", section 2.4; Stable Diffusion v1 pads with the end token, CLIP itself with zeros.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from instant_clip_tokenizer import Tokenizer

BOS = 49406
EOS = 49407
VOCABULARY_SIZE = 49408
_PADS = {"eos": EOS, "zero": 0}


@dataclass(frozen=True)
class Tokens:
    """Token ids of a batch of texts.

    Attributes:
        ids: int64 [B, length]: BOS, the text, EOS, padding.
        mask: bool [B, length]: True from BOS to the first EOS, both included.
        truncated: bool [B]: True where the text did not fit and lost its end.
    """

    ids: Tensor
    mask: Tensor
    truncated: Tensor

    def to(self, device: torch.device | str) -> Tokens:
        """The same tokens on another device."""
        return Tokens(self.ids.to(device), self.mask.to(device), self.truncated.to(device))


@dataclass(frozen=True)
class WordSpan:
    """A word of a text and the columns of ``Tokens.ids`` (so of attention maps) it occupies.

    Attributes:
        word: The cleaned word as CLIP sees it (lower case). Punctuation around a word is a span of
            its own; ``don't`` and ``t-shirt`` are one word.
        tokens: Column indices, ascending; BOS is column 0, so a first word starts at 1. A word cut
            by truncation keeps the columns that are left, a word cut off entirely has no span.
    """

    word: str
    tokens: tuple[int, ...]


def clean_text(text: str) -> str:
    """Applies CLIP's text cleaning; unpaired surrogates become U+FFFD."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip().lower()


def tokenize(texts: str | Sequence[str], length: int = 77, pad: str = "eos") -> Tokens:
    """Turns texts into CLIP token ids, exactly as CLIP's own tokenizer.

    A text longer than ``length - 2`` tokens keeps its beginning and still ends in EOS.

    Args:
        texts: One text (gives B = 1) or a list of B texts. A text may be empty: BOS, EOS.
        length: Columns of the result, at least 2. CLIP takes at most 77, VPD uses 40 for RefCOCO.
        pad: What stands behind EOS: "eos" (49407, Stable Diffusion) or "zero" (0, CLIP).

    Returns:
        Tokens of B rows.

    Raises:
        TypeError: If ``texts`` is not a str or a list of str, or ``length`` is not an int.
        ValueError: If ``length`` < 2 or ``pad`` is unknown.

    Example:
        >>> vpd.tokenize("a red cup", length=8).ids.tolist()
        [[49406, 320, 736, 1937, 49407, 49407, 49407, 49407]]
    """
    _check_length(length)
    if pad not in _PADS:
        raise ValueError(f"tokenize: pad must be 'eos' or 'zero', got {pad!r}")
    tokenizer = _tokenizer()
    bodies = [tokenizer.encode(clean_text(text)) for text in _as_list(texts)]
    room = length - 2
    lines = [[BOS, *body[:room], EOS] for body in bodies]
    ids = [line + [_PADS[pad]] * (length - len(line)) for line in lines]
    mask = [[column <= line.index(EOS) for column in range(length)] for line in lines]
    shape = (len(lines), length)
    return Tokens(
        torch.tensor(ids, dtype=torch.int64).view(shape),
        torch.tensor(mask, dtype=torch.bool).view(shape),
        torch.tensor([len(body) > room for body in bodies], dtype=torch.bool),
    )


def token_words(text: str, length: int = 77) -> list[WordSpan]:
    """Finds the words of a text and the token columns each of them occupies.

    Args:
        text: The text that was given to ``tokenize``.
        length: The same length as given to ``tokenize``.

    Returns:
        The words in order. Markers (BOS, EOS, padding) belong to no word.

    Raises:
        TypeError: If ``text`` is not a str.
        ValueError: If ``length`` < 2.

    Example:
        >>> vpd.tokens.token_words("two giraffes.")
        [WordSpan(word='two', tokens=(1,)), WordSpan(word='giraffes', tokens=(2, 3)), ...]
    """
    _check_length(length)
    if not isinstance(text, str):
        raise TypeError(f"token_words: text must be a str, got {type(text).__name__}")
    spans: list[WordSpan] = []
    column = 1
    # CLIP's pattern never joins characters across white space, so pieces can be encoded alone.
    for piece in clean_text(text).split():
        room = length - 1 - column
        if room < 1:
            break
        for word, count in _words_of_piece(piece, room):
            spans.append(WordSpan(word, tuple(range(column, column + count))))
            column += count
    return spans


def token_strings(ids: Tensor | Iterable[int]) -> list[str]:
    """The text of each token of one row, for axis labels.

    Args:
        ids: One row of ``Tokens.ids``, int [N], or a list of ints.

    Returns:
        N strings. Markers are ``<start_of_text>`` and ``<end_of_text>``, everything behind the
        first end marker is ``""``. A token that is only part of a character shows U+FFFD.

    Raises:
        ValueError: If an id lies outside [0, 49408) or ``ids`` has more than one dimension.
    """
    if isinstance(ids, Tensor):
        if ids.dim() != 1:
            raise ValueError(f"token_strings: ids must be [N], got {list(ids.shape)}")
        ids = ids.tolist()
    strings: list[str] = []
    ended = False
    for token in ids:
        if not 0 <= token < VOCABULARY_SIZE:
            raise ValueError(f"token_strings: id must be in [0, {VOCABULARY_SIZE}), got {token}")
        strings.append("" if ended else _tokenizer().decode([token]).removesuffix(" "))
        ended = ended or token == EOS
    return strings


@functools.cache
def _tokenizer() -> Tokenizer:
    from instant_clip_tokenizer import Tokenizer

    return Tokenizer()


def _check_length(length: Any) -> None:
    if isinstance(length, bool) or not isinstance(length, int):
        raise TypeError(f"length must be an int, got {type(length).__name__}")
    if length < 2:
        raise ValueError(f"length must be at least 2 (BOS and EOS), got {length}")


def _as_list(texts: Any) -> list[str]:
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, (list, tuple)):
        raise TypeError(f"tokenize: texts must be a str or a list of str, got {_kind(texts)}")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"tokenize: texts[{index}] must be a str, got {_kind(text)}")
    return list(texts)


def _kind(value: Any) -> str:
    return type(value).__name__


def _words_of_piece(piece: str, room: int) -> list[tuple[str, int]]:
    """Splits a piece without white space into (word, token count): marks, core word, marks.

    Only the first ``room`` tokens are looked at; a word that does not fit is cut.
    """
    tokenizer = _tokenizer()
    parts: list[tuple[str, int]] = []  # CLIP's own sub-words: "don", "'t", ","
    pending: list[int] = []
    for token in tokenizer.encode(piece)[:room]:
        pending.append(token)
        text = tokenizer.decode(pending)
        # A decoded token ends in a space exactly if it closes a sub-word.
        if text.endswith(" ") or token in (BOS, EOS):
            parts.append((text.removesuffix(" "), len(pending)))
            pending = []
    if pending:
        parts.append((tokenizer.decode(pending), len(pending)))
    wordy = [i for i, (text, _) in enumerate(parts) if any(c.isalnum() for c in text)]
    if not wordy:
        return parts
    first, last = wordy[0], wordy[-1] + 1
    core = parts[first:last]
    word = ("".join(text for text, _ in core), sum(count for _, count in core))
    return [*parts[:first], word, *parts[last:]]
