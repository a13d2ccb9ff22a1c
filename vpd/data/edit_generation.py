"""Makes a data set of edited pairs: samples pairs for each triplet, keeps those that CLIP likes.

Brooks et al. 2023, sections 3.1.2 and 3.1.3: 100 pairs of each triplet, made with Prompt-to-Prompt
at a random strength and guidance, of which at most four are kept.

```python
sampler = PromptToPromptSampler(model)  # vpd.data.edit_sampler
make_edits("pairs", read_triplets("triplets.jsonl"), sampler, clip=clip)
```
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vpd.data.edit_files import NewPair, is_finished, write_entry, write_seeds
from vpd.data.edit_texts import partition
from vpd.data.tabletop import dice
from vpd.data.triplets import Triplet
from vpd.images import in_range
from vpd.metrics.edit import EditScores, edit_scores
from vpd.models.clip import CLIP

__all__ = [
    "EditThresholds",
    "PairRanges",
    "PairSampler",
    "PairSettings",
    "make_edits",
    "pair_settings",
]


@dataclass(frozen=True)
class PairSettings:
    """What one pair is made from.

    Attributes:
        seed: of its noise, the same for both pictures.
        p2p_threshold: share of the sampling steps in which the second picture takes the attention
            of the first.
        cfg_scale: guidance.
    """

    seed: int
    p2p_threshold: float
    cfg_scale: float


@dataclass(frozen=True)
class PairRanges:
    """What the settings of pairs are drawn from, evenly; the defaults are InstructPix2Pix's.

    Attributes:
        share: least and greatest share of steps with attention of the first picture, 0 to 1.
        guidance: least and greatest guidance.
    """

    share: tuple[float, float] = (0.1, 0.9)
    guidance: tuple[float, float] = (7.5, 15.0)

    def __post_init__(self) -> None:
        for name, (least, greatest) in (("share", self.share), ("guidance", self.guidance)):
            if not least <= greatest:
                raise ValueError(f"{name} must be least and greatest, got {least} and {greatest}")
        if not (self.share[0] >= 0 and self.share[1] <= 1):
            raise ValueError(f"share must be within 0..1, got {self.share}")


PairSampler = Callable[[Triplet, Sequence[PairSettings]], Iterable[NewPair]]
"""From a triplet and settings to a pair for each, in their order, with their seeds."""


@dataclass(frozen=True)
class EditThresholds:
    """Which pairs of a triplet are kept; a threshold of 0 is none.

    Attributes:
        image: least cosine of the two pictures.
        caption: least cosine of each picture and its caption.
        direction: least cosine of the ways from picture to picture and caption to caption.
        keep: at most so many, those with the highest ``direction``.
    """

    image: float = 0.7
    caption: float = 0.2
    direction: float = 0.2
    keep: int = 4

    def __post_init__(self) -> None:
        for name in ("image", "caption", "direction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be within 0..1, got {getattr(self, name)}")
        if self.keep < 1:
            raise ValueError(f"keep must be at least 1, got {self.keep}")

    def select(self, scores: EditScores) -> list[int]:
        """Positions of the pairs that are kept, the best first (of equal ones the first)."""
        good = scores.sim_image.isfinite() & scores.sim_direction.isfinite()
        for values, least in (
            (scores.sim_image, self.image),
            (scores.sim_0, self.caption),
            (scores.sim_1, self.caption),
            (scores.sim_direction, self.direction),
        ):
            if least:
                good &= values.double() >= least
        kept = good.nonzero().flatten().tolist()
        return sorted(kept, key=lambda i: -float(scores.sim_direction[i]))[: self.keep]


def pair_settings(
    index: int, samples: int, seed: int = 0, ranges: PairRanges | None = None
) -> list[PairSettings]:
    """The settings of a triplet's samples; they depend on its index, the seed and the ranges
    alone."""
    chosen = ranges or PairRanges()
    rng = random.Random(seed * 2**40 + index)
    return [
        PairSettings(
            seed=dice.below(rng, 2**32),
            p2p_threshold=dice.uniform(rng, *chosen.share),
            cfg_scale=dice.uniform(rng, *chosen.guidance),
        )
        for _ in range(samples)
    ]


def make_edits(
    root: str | os.PathLike[str],
    triplets: Sequence[Triplet],
    sampler: PairSampler,
    *,
    clip: CLIP,
    thresholds: EditThresholds | None = None,
    ranges: PairRanges | None = None,
    samples: int = 100,
    batch: int = 4,
    part: int = 0,
    parts: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> int:
    """Makes InstructPix2Pix's folder of pairs (`vpd.data.edit_files`) from triplets.

    The work can be killed and repeated, and shared out: finished triplets stay, and what is made
    of one depends on its position and the seed alone.

    Args:
        root: folder; made if it is missing.
        sampler: makes the pairs, such as `vpd.data.edit_sampler.PromptToPromptSampler`.
        clip: what they are judged by; the original is ViT-L/14.
        thresholds: which are kept.
        ranges: what their settings are drawn from.
        samples: pairs made for each triplet.
        batch: how many at a time.
        part, parts: which share of the triplets this process does, see
            `vpd.data.edit_texts.partition`.

    Returns:
        How many entries with a pair the folder has, others' included.

    Raises:
        ValueError: samples or batch < 1, or a part out of range.
    """
    from tqdm.auto import tqdm

    if min(samples, batch) < 1:
        raise ValueError(f"samples and batch must be at least 1, got {samples} and {batch}")
    chosen = thresholds or EditThresholds()
    Path(root).mkdir(parents=True, exist_ok=True)
    mine = partition(len(triplets), part, parts, seed)
    for index in tqdm(mine, desc="making pairs", unit="triplet", disable=not progress):
        if is_finished(root, index):
            continue
        kept: list[NewPair] = []
        for settings in _batches(pair_settings(index, samples, seed, ranges), batch):
            made = list(sampler(triplets[index], settings))
            if [pair.seed for pair in made] != [s.seed for s in settings]:
                raise ValueError(
                    f"the sampler must give a pair for each of {len(settings)} settings, in order, "
                    f"got {len(made)}"
                )
            kept = _best(kept, _scored(clip, triplets[index], made, settings), chosen)
        write_entry(root, index, triplets[index], kept)
    return len(write_seeds(root))


def _batches(settings: list[PairSettings], size: int) -> Iterator[list[PairSettings]]:
    return (settings[i : i + size] for i in range(0, len(settings), size))


_SCORES = {
    "sim_0": "clip_sim_0",
    "sim_1": "clip_sim_1",
    "sim_direction": "clip_sim_dir",
    "sim_image": "clip_sim_image",
}
"""From a score to its name in `metadata.jsonl`."""


def _scored(
    clip: CLIP, triplet: Triplet, pairs: Sequence[NewPair], settings: Sequence[PairSettings]
) -> list[NewPair]:
    """The pairs with what they were made from and their scores."""
    before, after = (
        torch.stack([in_range(image) for image in images])
        for images in ([p.before for p in pairs], [p.after for p in pairs])
    )
    count = len(pairs)
    scores = edit_scores(clip, before, after, [triplet.input] * count, [triplet.output] * count)
    return [
        NewPair(
            pair.seed,
            pair.before,
            pair.after,
            {
                "p2p_threshold": chosen.p2p_threshold,
                "cfg_scale": chosen.cfg_scale,
                **{name: float(getattr(scores, field)[i]) for field, name in _SCORES.items()},
                **pair.details,
            },
        )
        for i, (pair, chosen) in enumerate(zip(pairs, settings, strict=True))
    ]


def _best(kept: list[NewPair], new: list[NewPair], thresholds: EditThresholds) -> list[NewPair]:
    """Of those kept so far and new ones; never more than a batch and four are held."""
    every = [*kept, *new]
    columns = ([p.details[name] for p in every] for name in _SCORES.values())
    scores = EditScores(*(torch.tensor(column, dtype=torch.float64) for column in columns))
    return [every[i] for i in thresholds.select(scores)]
