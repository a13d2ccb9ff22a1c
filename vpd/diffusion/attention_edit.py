"""What attention the second of two pictures takes from the first (Prompt-to-Prompt, Hertz et al.
2022), step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from vpd.diffusion.control import AttentionControl
from vpd.diffusion.guidance import GuidedRows
from vpd.diffusion.sampler import Sampler
from vpd.diffusion.token_maps import Kind, token_map, word_columns

__all__ = ["AttentionEdit", "PromptToPrompt"]

Mode = Literal["cross", "self"]


@dataclass(frozen=True)
class AttentionEdit:
    """What the second picture takes from the first, and for how long.

    ``self``: the logits of self-attention, in every layer, with and without the text, in steps i
    of S while ``share > i / (S - 1)``: how InstructPix2Pix's released data were made.

    ``cross``: cross-attention, where the U-Net is told the text, in the steps before
    ``floor(share (S + 1))``: that of a token that both captions have, or that stands for another
    (:func:`vpd.diffusion.token_map`), is the first picture's; times ``factors``. The original
    method.
    """

    mode: Mode = "cross"
    share: float = 0.8
    """Share of the steps, 0 to 1."""
    self_share: float = 0.0
    """Of ``cross``: share of the steps, the first ones, in which the rows that are told the text
    take self-attention too."""
    self_positions: int | None = 256
    """Of ``self_share``: only in layers of at most so many pixels (16 x 16); None: in all."""
    kind: Kind | None = None
    """Of ``cross``: ``replace`` words one by one, or ``refine``; None: replace if both captions
    have as many words."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Of ``cross``: words of the second caption whose attention is multiplied (re-weighted)."""
    windows: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Of ``cross``: words of the second caption with their own share of steps, from and to,
    instead of 0 to ``share``."""

    def __post_init__(self) -> None:
        if self.mode not in ("cross", "self"):
            raise ValueError(f"AttentionEdit: mode must be 'cross' or 'self', got {self.mode!r}")
        ends = [bound for window in self.windows.values() for bound in window]
        for value in (self.share, self.self_share, *ends):
            if not 0 <= value <= 1:
                raise ValueError(f"AttentionEdit: shares of steps lie in 0..1, got {value}")
        if self.mode == "self" and (self.factors or self.windows or self.kind or self.self_share):
            raise ValueError(
                "AttentionEdit: factors, windows, kind and self_share belong to mode 'cross'"
            )


class PromptToPrompt:
    """The control of attention at each step, for :class:`vpd.diffusion.GuidedUNet`.

    Samples 2k and 2k + 1 of the batch are a pair: before, after.

    Args:
        pairs: Their captions.
        sampler: Whose steps they are.
        edit: What is taken.
        shares: ``edit.share`` of each pair, if they differ.
        length: Tokens that the U-Net reads.

    Raises:
        ValueError: A word that is not in its caption, captions that cannot be aligned.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        sampler: Sampler,
        edit: AttentionEdit | None = None,
        *,
        shares: Sequence[float] | None = None,
        length: int = 77,
    ) -> None:
        self.edit = edit = edit or AttentionEdit()
        self.shares = [edit.share] * len(pairs) if shares is None else list(shares)
        if len(self.shares) != len(pairs):
            raise ValueError(
                f"PromptToPrompt: expected a share for each of {len(pairs)} pairs, "
                f"got {len(self.shares)}"
            )
        self._steps = {t: step for step, t in enumerate(sampler.timesteps)}
        self._count, self._length = len(sampler), length
        self._edits = (
            [] if edit.mode == "self" else [_CrossEdit(*pair, edit, length) for pair in pairs]
        )

    def __call__(self, timestep: float, rows: GuidedRows) -> AttentionControl | None:
        """The control of a step, or None where nothing is taken any more.

        Raises:
            ValueError: A timestep that is not the sampler's, another number of samples.
        """
        if timestep not in self._steps:
            raise ValueError(f"PromptToPrompt: the sampler has no step at timestep {timestep}")
        if rows.samples != 2 * len(self.shares):
            raise ValueError(
                f"PromptToPrompt: expected {2 * len(self.shares)} samples, two of each pair, "
                f"got {rows.samples}"
            )
        step, edit = self._steps[timestep], self.edit
        if edit.mode == "self":
            last = max(self._count - 1, 1)
            sharing = [k for k, share in enumerate(self.shares) if share > step / last]
            if not sharing:
                return None
            return AttentionControl(self_source=_sources(rows, sharing, rows.blocks))
        if not rows.text:
            return None
        source = None
        if step < int(edit.self_share * self._count):
            source = _sources(rows, range(len(self.shares)), 1)
        found = [
            one.at(step, share, self._count)
            for one, share in zip(self._edits, self.shares, strict=True)
        ]
        taking = [(k, *own) for k, own in enumerate(found) if own is not None]
        if source is None and not taking:
            return None
        positions = None if source is None else edit.self_positions
        if not taking:
            return AttentionControl(source, positions)
        kept = torch.ones(rows.samples * rows.blocks, self._length)
        for k, own, _ in taking:
            kept[2 * k + 1] = own.float()
        first = torch.tensor([2 * k for k, *_ in taking])
        transfer = torch.stack([given for *_, given in taking]).float()
        return AttentionControl(source, positions, kept, first + 1, first, transfer)


def _sources(rows: GuidedRows, pairs: Sequence[int], blocks: int) -> Tensor:
    """Whose attention each row has: in the first so many blocks, the second of a pair the
    first's."""
    source = torch.arange(rows.samples * rows.blocks)
    for block in range(blocks):
        for k in pairs:
            source[block * rows.samples + 2 * k + 1] -= 1
    return source


class _CrossEdit:
    """The cross-attention of one pair."""

    def __init__(self, before: str, after: str, edit: AttentionEdit, length: int) -> None:
        mapped = token_map(before, after, length, edit.kind)
        factors = torch.ones(length, dtype=torch.float64)
        for word, columns in word_columns(after, edit.factors, length).items():
            factors[columns] = edit.factors[word]
        self._given = mapped.transfer * (mapped.taken * factors)
        self._own = (1 - mapped.taken) * factors
        self._windows = [
            (columns, edit.windows[word])
            for word, columns in word_columns(after, edit.windows, length).items()
        ]

    def at(self, step: int, share: float, count: int) -> tuple[Tensor, Tensor] | None:
        """(kept, transfer) of the second picture's row at a step of so many; outside a token's
        window it keeps its own attention."""
        inside = torch.full_like(self._own, float(step < int(share * (count + 1))))
        for columns, (start, end) in self._windows:
            inside[columns] = float(int(start * (count + 1)) <= step < int(end * (count + 1)))
        if not inside.any():
            return None
        return inside * self._own + (1 - inside), self._given * inside
