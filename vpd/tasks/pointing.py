"""Whether the attention map of a word lies on the object that the word is about: phrases that name
one object of a Tabletop scene, heat maps of their words, and scores."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpd.data import tabletop
from vpd.data.tabletop.phrases import ATTRIBUTES, matching
from vpd.data.tabletop.render import SceneObject
from vpd.tokens import token_words, tokenize

__all__ = ["ATTRIBUTES", "MEAN", "PHRASE", "NamedObjects", "Score", "heat_maps", "named_objects"]

PHRASE = "phrase"
"""The kind of map that is the mean over all attribute words of a phrase."""
MEAN = "mean"
"""The key of maps averaged over strides."""
_BINS = 50  # thresholds 0, 0.02, ..., 0.98


@dataclass(frozen=True)
class NamedObjects:
    """Phrases ("a small striped red cube"), each true of exactly one visible object of its scene;
    P of them, sorted by scene."""

    kinds: tuple[str, ...]
    """What the words behind the article say, in their order: ``size``, ``material``, ``color``,
    ``shape``."""
    texts: tuple[str, ...]
    ids: Tensor
    """int64 [P, length]."""
    columns: Tensor
    """float32 [P, kinds, length]: the share of each token in its word's map."""
    scenes: Tensor
    """int64 [P], index in the split."""
    objects: Tensor
    """int64 [P], the object's id in its scene's instance map."""
    targets: Tensor
    """bool [P, H, W], the object's mask."""
    visible: Tensor
    """int64 [P], objects in sight."""
    alike: Tensor
    """int64 [P, kinds], objects in sight that each word is true of."""

    def __len__(self) -> int:
        return len(self.texts)


def named_objects(
    split: tabletop.TabletopSplit,
    length: int,
    *,
    attributes: Sequence[str] = ATTRIBUTES,
    per_scene: int = 2,
    limit: int | None = None,
) -> NamedObjects:
    """Draws objects that a phrase of these attributes singles out; the same for the same scenes.

    Args:
        split: Any split with instance maps.
        length: Columns of the token ids.
        attributes: Named ones, a subset of ``ATTRIBUTES`` that ends in ``shape``.
        per_scene: At most so many objects of a scene, of at least ``tabletop.TARGET_PX`` visible
            pixels.
        limit: Only the first so many scenes.

    Raises:
        ValueError: Attributes in another order or without the shape, or no such object at all.
    """
    kinds = tuple(a for a in ATTRIBUTES if a in attributes)
    if kinds != tuple(attributes) or kinds[-1:] != ("shape",):
        raise ValueError(
            f"attributes must be some of {ATTRIBUTES} in this order and end in 'shape', "
            f"got {tuple(attributes)}"
        )
    rng = random.Random(9)
    rows: list[tuple[int, int, SceneObject, list[SceneObject]]] = []
    for index in range(min(limit or len(split), len(split))):
        objects = split.scene(index).objects
        visible = [o for o in objects if o.visible_px >= tabletop.VISIBLE_PX]
        unique = [
            (index, number, o, visible)
            for number, o in enumerate(objects, start=1)
            if o.visible_px >= tabletop.TARGET_PX and len(matching(visible, o, kinds)) == 1
        ]
        rng.shuffle(unique)
        rows += unique[:per_scene]
    if not rows:
        raise ValueError("no object of these scenes is singled out by such a phrase")
    texts = tuple(_phrase(o, kinds) for _, _, o, _ in rows)
    return NamedObjects(
        kinds=kinds,
        texts=texts,
        ids=tokenize(texts, length=length).ids,
        columns=torch.stack([_columns(text, length) for text in texts]),
        scenes=torch.tensor([index for index, _, _, _ in rows]),
        objects=torch.tensor([number for _, number, _, _ in rows]),
        targets=torch.stack(
            [torch.from_numpy(split.instances[index] == number) for index, number, _, _ in rows]
        ),
        visible=torch.tensor([len(seen) for _, _, _, seen in rows]),
        alike=torch.tensor(
            [[len(matching(seen, o, (k,))) for k in kinds] for _, _, o, seen in rows]
        ),
    )


def _phrase(o: SceneObject, kinds: Sequence[str]) -> str:
    words = " ".join(getattr(o, kind) for kind in kinds)
    return f"{'an' if words.startswith('o') else 'a'} {words}"


def _columns(text: str, length: int) -> Tensor:
    words = token_words(text, length)[1:]  # behind the article
    shares = np.zeros((len(words), length), np.float32)
    for row, word in zip(shares, words, strict=True):
        row[list(word.tokens)] = 1 / len(word.tokens)
    return torch.from_numpy(shares)


def heat_maps(
    attention: dict[int, Tensor], columns: Tensor, size: tuple[int, int]
) -> dict[str, Tensor]:
    """Maps of words and of whole phrases at the size of the picture, each scaled to [0, 1].

    Every map is resized (bilinear) and then scaled from its least to its greatest value. Means,
    over the words of a phrase or over strides, are means of scaled maps, scaled again: so each part
    has the same say.

    Args:
        attention: Stride -> probabilities [n, N, h, w], as :class:`vpd.UNet` returns them.
        columns: [n, kinds, N], as in :class:`NamedObjects`.
        size: (H, W) of the result.

    Returns:
        ``"2"``, ... for each stride, and ``MEAN`` if there are several -> float32
        [n, kinds + 1, H, W]; the last map is the phrase's.
    """
    found: dict[str, Tensor] = {}
    for stride, maps in sorted(attention.items()):
        words = torch.einsum("nkt,nthw->nkhw", columns.to(maps.device), maps.float())
        words = _scaled(F.interpolate(words, size, mode="bilinear"))
        found[str(stride)] = torch.cat([words, _scaled(words.mean(1, keepdim=True))], dim=1)
    if len(found) > 1:
        found[MEAN] = _scaled(torch.stack(list(found.values())).mean(0))
    return found


def _scaled(maps: Tensor) -> Tensor:
    low = maps.amin((-2, -1), keepdim=True)
    return (maps - low) / (maps.amax((-2, -1), keepdim=True) - low).clamp_min(1e-12)


class Score:
    """Pointing game, and oIoU of thresholded maps, over many heat maps.

    The threshold is not a free choice: samples come in two halves, and for each half the one that
    is best on the other half is taken.
    """

    def __init__(self) -> None:
        self.n = 0
        self._hits = 0
        self._touched = 0
        # Pixels by half, outside or inside the object, and heat.
        self._pixels = torch.zeros(2, 2, _BINS, dtype=torch.float64)

    def update(
        self,
        heat: Tensor,
        targets: Tensor,
        objects: Tensor | None = None,
        halves: Tensor | None = None,
    ) -> None:
        """Adds n maps.

        Args:
            heat: [n, H, W] in [0, 1].
            targets: bool [n, H, W], the objects the maps should lie on.
            objects: bool [n, H, W], all objects; for ``on_object``.
            halves: int64 [n], 0 or 1, the half that a sample belongs to; all in the first if None.
        """
        flat, inside = heat.flatten(1), targets.to(heat.device).flatten(1)
        peak = flat.argmax(1, keepdim=True)
        self.n += len(flat)
        self._hits += int(inside.gather(1, peak).sum())
        if objects is not None:
            self._touched += int(objects.to(heat.device).flatten(1).gather(1, peak).sum())
        half = 0 if halves is None else halves.to(heat.device)[:, None]
        bins = (flat * _BINS).long().clamp(0, _BINS - 1) + _BINS * (inside + 2 * half)
        self._pixels += torch.bincount(bins.flatten(), minlength=4 * _BINS).view(2, 2, _BINS).cpu()

    def compute(self) -> dict[str, float]:
        """In percent: ``pointing`` (the maximum lies inside the object), ``on_object`` (inside any
        object), ``oIoU`` (sum of intersections / sum of unions). ``threshold``: the mean of both
        halves', in [0, 1]; ``n``: samples."""
        at_least = self._pixels.flip(-1).cumsum(-1).flip(-1)  # heat >= k / _BINS
        intersection = at_least[:, 1]
        union = at_least.sum(1) + at_least[:, 1, :1] - intersection
        best = (intersection / union.clamp_min(1)).argmax(1)
        if self._pixels[1].sum() > 0:
            best = best.flip(0)
        both = torch.arange(2)
        overlap, total = intersection[both, best].sum(), union[both, best].sum()
        share = 100 / max(1, self.n)
        return {
            "pointing": share * self._hits,
            "on_object": share * self._touched,
            "oIoU": 100 * float(overlap / total.clamp_min(1)),
            "threshold": float(best.double().mean()) / _BINS,
            "n": self.n,
        }
