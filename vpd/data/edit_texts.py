"""Who writes triplets: a file, a language model of yours; `vpd.data.edit_rules` has rules."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from vpd.data.tabletop import dice
from vpd.data.tabletop.dice import RandomSource
from vpd.data.triplets import BETWEEN, PROMPT_END, STOP, Triplet, accepted, read_triplets

__all__ = [
    "CallableTriplets",
    "CaptionTriplets",
    "Completion",
    "FileTriplets",
    "Source",
    "partition",
]


@dataclass(frozen=True)
class Source:
    """A caption to write a triplet about, and where its picture is from ("" if unknown)."""

    caption: str
    url: str = ""


def partition(count: int, part: int = 0, parts: int = 1, seed: int = 0) -> list[int]:
    """Which of `count` things one of several processes works on: every `parts`-th of a random
    order that depends on the seed alone. Together the parts are all, each once.

    Raises:
        ValueError: A part that is not in 0 .. parts - 1, or a negative count.
    """
    if count < 0 or not 0 <= part < parts:
        raise ValueError(
            f"partition: expected a count of at least 0 and 0 <= part < parts, "
            f"got {count}, {part} and {parts}"
        )
    if parts == 1:
        return list(range(count))
    return dice.sample(random.Random(seed), range(count), count)[part::parts]


class FileTriplets:
    """The triplets of a JSON Lines file, one object a line, in either of the official forms.

    Raises:
        FileNotFoundError: There is no such file. ValueError: It holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._triplets = read_triplets(path)

    def triplets(self, done: Collection[str] = ()) -> Iterator[Triplet]:
        """See :class:`vpd.data.triplets.TripletGenerator`; the file's order. A caption may have
        several edits."""
        for triplet in dict.fromkeys(self._triplets):
            known = triplet.input in done or (triplet.url and triplet.url in done)
            if not known and accepted(triplet):
                yield triplet


class CaptionTriplets:
    """Base of what writes triplets about captions.

    Each caption has randomness of its own, which depends on the seed and its position: neither
    what was done before nor the partition changes what is written about it.

    Args:
        sources: Captions, with or without URLs. Repeated ones are skipped.
        seed: Of all that is random.
        part, parts: Which share of the sources this process does, see :func:`partition`.
    """

    def __init__(
        self, sources: Iterable[Source | str], *, seed: int = 0, part: int = 0, parts: int = 1
    ) -> None:
        self.sources = _unique(Source(s) if isinstance(s, str) else s for s in sources)
        self.seed = seed
        self.order = partition(len(self.sources), part, parts, seed)

    def triplets(self, done: Collection[str] = ()) -> Iterator[Triplet]:
        """See :class:`vpd.data.triplets.TripletGenerator`."""
        seen = frozenset(done)
        for index in self.order:
            source = self.sources[index]
            if source.caption in seen or (source.url and source.url in seen):
                continue
            triplet = self.propose(source, random.Random(self.seed * 2**40 + index))
            if triplet is not None and accepted(triplet):
                yield triplet

    def propose(self, source: Source, rng: RandomSource) -> Triplet | None:
        """A triplet about a caption, or None where nothing comes to mind."""
        raise NotImplementedError


@dataclass(frozen=True)
class Completion:
    """How a language model is asked to write; the defaults are InstructPix2Pix's."""

    temperature: float = 0.7
    max_tokens: int = 256
    top_p: float = 1.0
    frequency_penalty: float = 0.1
    stop: str = STOP


class CallableTriplets(CaptionTriplets):
    """Triplets by a language model of yours, fine-tuned on the file of
    :func:`vpd.data.triplets.write_finetuning`.

    What it writes is accepted if it is an instruction and a caption with a line ``%%`` between
    them, moderation lets it pass, and the caption is another one; otherwise it is asked again.

    Args:
        complete: From a prompt (the caption and a line ``##``) and how to write to the text that
            follows. What comes behind the stop text is cut off.
        sources, seed, part, parts: As for :class:`CaptionTriplets`.
        moderate: From instruction and edited caption to whether they may be used.
        retries: How often a caption is tried again before it is given up.

    Raises:
        ValueError: ``retries`` is negative.
    """

    def __init__(
        self,
        complete: Callable[[str, Completion], str],
        sources: Iterable[Source | str],
        *,
        completion: Completion | None = None,
        moderate: Callable[[str, str], bool] | None = None,
        retries: int = 3,
        seed: int = 0,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        super().__init__(sources, seed=seed, part=part, parts=parts)
        if retries < 0:
            raise ValueError(f"CallableTriplets: retries must be at least 0, got {retries}")
        self.complete, self.moderate, self.retries = complete, moderate, retries
        self.completion = completion or Completion()

    def propose(self, source: Source, rng: RandomSource) -> Triplet | None:
        """See :class:`CaptionTriplets`; what is random is up to the language model."""
        for _ in range(1 + self.retries):
            text = self.complete(source.caption + PROMPT_END, self.completion)
            halves = text.split(self.completion.stop)[0].split(BETWEEN)
            if len(halves) != 2 or not all(half.strip() for half in halves):
                continue
            triplet = Triplet(source.caption, halves[0].strip(), halves[1].strip(), source.url)
            allowed = self.moderate is None or self.moderate(triplet.edit, triplet.output)
            if allowed and accepted(triplet):
                return triplet
        return None


def _unique(sources: Iterable[Source]) -> list[Source]:
    seen: set[str] = set()
    return [source for source in sources if _new(source, seen)]


def _new(source: Source, seen: set[str]) -> bool:
    """Whether neither caption nor URL were seen; now they are."""
    known = {text for text in (source.caption, source.url) if text}
    if not known or known & seen:
        return False
    seen |= known
    return True
