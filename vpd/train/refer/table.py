"""A referring data set held in memory, and the batches that are drawn from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vpd.data import tabletop
from vpd.data.refer import ReferDataset
from vpd.tasks.refer import ReferSegmenter
from vpd.tokens import tokenize
from vpd.train.caching.latents import PictureLatents
from vpd.train.loop.batches import Resident, step_generator

__all__ = ["Batch", "ReferTable", "Referred", "dataset_refs", "tabletop_refs"]


@dataclass(frozen=True)
class Referred:
    """One referred object: its image, its mask at any size, and every sentence about it."""

    image: int
    mask: np.ndarray  # bool [H, W]
    sentences: Sequence[str]


@dataclass(frozen=True)
class Batch:
    latents: Tensor  # [I, C, h, w], or as ReferSegmenter.encode_image gives them
    ids: Tensor  # int64 [B, length]
    masks: Tensor  # int64 [B, H, W], 0 or 1
    index: Tensor  # int64 [B], the latent that each row looks at
    samples: Tensor  # int64 [B], each row's (object, sentence) pair
    whole_rows: int  # of the batch that this is a part of, or all of
    whole_pixels: int  # of the objects in that batch's masks


def tabletop_refs(
    split: tabletop.TabletopSplit,
    sentences: Iterable[Iterable[tabletop.Expression]] | None = None,
) -> Iterator[Referred]:
    """The objects of a rendered split; sentences about one object belong together. ``sentences``:
    those of each scene; all of them if None."""
    if sentences is None:
        sentences = tabletop.expressions_for(split)
    for index, spoken in enumerate(sentences):
        targets: dict[int, list[str]] = {}
        for sentence in spoken:
            targets.setdefault(sentence.target, []).append(sentence.text)
        instances = split.instances[index]
        for target, texts in targets.items():
            yield Referred(index, instances == target + 1, texts)


def dataset_refs(data: ReferDataset, images: Sequence[int]) -> Iterator[Referred]:
    """The objects of a REFER data set; ``images`` lists its image ids in the order they are
    encoded."""
    index = {image: i for i, image in enumerate(images)}
    for ref in data.refs:
        yield Referred(index[ref.image_id], data.mask(ref), [s.text for s in ref.sentences])


class ReferTable:
    """Latents, packed masks and tokens of a training set, drawn from by step number.

    An epoch visits every referred object once, in an order that depends on (seed, epoch), each
    with one random sentence. A *sample* is the number of an (object, sentence) pair.

    With ``together`` > 1, batches consist of so many objects of one picture side by side (some of
    them twice an epoch where a picture's do not come out even): the rows of a picture differ in
    their sentence alone, and what the U-Net computes before the first cross-attention is shared.

    Args:
        model: Encodes the images, under its noise protocol.
        pictures: uint8 [H, W, 3] images, in the order that ``Referred.image`` counts.
        refs: The referred objects.
        batch: Rows of a batch; the last, incomplete one of an epoch is dropped.
        seed: Of order and sentences.
        together: Objects of one picture that stand side by side; divides ``batch``.
        cache: Folder where latents are kept for other runs; None for none.
        fresh: Draw the noise of the protocol anew in every step, for each picture of the batch
            (:class:`PictureLatents`).

    Attributes:
        count: Objects.
        sentences: Samples.
        pictures: int64 [sentences], the picture of each sample.
    """

    def __init__(
        self,
        model: ReferSegmenter,
        pictures: Iterable[np.ndarray],
        refs: Iterable[Referred],
        batch: int,
        seed: int,
        together: int = 1,
        cache: Path | None = None,
        fresh: bool = False,
    ) -> None:
        config = model.config
        if together < 1 or batch % together:
            raise ValueError(f"together must divide the batch of {batch}, got {together}")
        self.size, self.batch, self.seed = config.image_size, batch, seed
        rows, packed, pixels, ids, counts = [], [], [], [], []
        for ref in refs:
            rows.append(ref.image)
            mask = self._resized(ref.mask)
            pixels.append(int(mask.sum()))
            packed.append(np.packbits(mask, axis=-1))
            ids.append(
                tokenize(list(ref.sentences), length=config.token_length).ids.to(torch.int32)
            )
            counts.append(len(ref.sentences))
        if len(rows) < batch:
            raise ValueError(f"expected at least one batch of {batch} objects, got {len(rows)}")
        self.count, self.sentences = len(rows), sum(counts)
        self._together = together
        by_picture: dict[int, list[int]] = {}
        for number, picture in enumerate(rows):
            by_picture.setdefault(picture, []).append(number)
        self._objects = list(by_picture.values())
        groups = sum(-(-len(group) // together) for group in self._objects)
        self.steps_per_epoch = groups * together // batch
        self._counts = torch.tensor(counts)
        self._pixels = torch.tensor(pixels)
        self._first = self._counts.cumsum(0) - self._counts  # each object's first sample
        self._images = torch.tensor(rows)
        self.pictures = self._images.repeat_interleave(self._counts)
        self._epoch = (-1, torch.empty(0), torch.empty(0))
        self._latents = PictureLatents(model, pictures, seed, fresh=fresh, cache=cache)
        self._data = Resident(
            masks=torch.from_numpy(np.stack(packed)),
            ids=torch.cat(ids),
            bits=torch.arange(7, -1, -1, dtype=torch.uint8),
        )

    def _resized(self, mask: np.ndarray) -> np.ndarray:
        if mask.shape == (self.size, self.size):
            return mask
        size = (self.size, self.size)
        return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0

    def __deepcopy__(self, memo: dict[int, Any]) -> ReferTable:
        return self

    @property
    def fresh(self) -> bool:
        """Whether noise is drawn anew in every step."""
        return self._latents.fresh

    def to(self, device: torch.device) -> None:
        self._data.to(device)
        self._latents.to(device)

    def draw(self, step: int, part: slice = slice(None)) -> Batch:
        """The batch of a training step, or some of its rows; the same whenever it is asked for."""
        data = self._data
        whole, samples = self._drawn(step)
        latents, index = self._seen(step, whole, part)
        device = data["bits"].device
        rows, samples = whole[part].to(device), samples[part].to(device)
        bits = (data["masks"][rows].unsqueeze(-1) >> data["bits"]) & 1
        return Batch(
            latents,
            data["ids"][samples].long(),
            bits.flatten(-2)[..., : self.size].long(),
            index.to(device),
            samples,
            self.batch,
            int(self._pixels[whole].sum()),
        )

    def _seen(self, step: int, whole: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Latents for some rows of a batch of objects, and which of them each row looks at."""
        if not self.fresh:
            used, index = torch.unique(self._images[whole[part]], return_inverse=True)
            return self._latents.kept(used), index
        # Only rows that stand together share a picture's noise.
        places = torch.arange(self.batch)[part] // self._together * self._together
        used, index = torch.unique(places, return_inverse=True)
        return self._latents.at_step(self._images[whole[used]], step, used), index

    def drawn(self, steps: int) -> Tensor:
        """Every sample that the first ``steps`` steps draw, int64, ascending."""
        return torch.unique(torch.cat([self._drawn(step)[1] for step in range(steps)]))

    def key(self, sample: int) -> bytes:
        """What a sample is made of, picture and sentence, as a content key."""
        sentence = self._data["ids"][sample].cpu().numpy()
        return self._latents.keys[int(self.pictures[sample])] + sentence.tobytes()

    def inputs(self, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [I, C, h, w] of the pictures of some samples, their token ids [B, length], and
        which latent each sample looks at, int64 [B]."""
        used, index = torch.unique(self.pictures[samples], return_inverse=True)
        return self._latents.kept(used), self._data["ids"][samples].long(), index

    def _drawn(self, step: int) -> tuple[Tensor, Tensor]:
        """Objects and samples of a step, int64 [B] on the CPU."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch[0]:
            generator = step_generator(self.seed, epoch)
            order = self._order(generator)
            self._epoch = (epoch, order, torch.rand(len(order), generator=generator))
        _, order, luck = self._epoch
        taken = slice(place * self.batch, (place + 1) * self.batch)
        rows = order[taken]
        return rows, self._first[rows] + (luck[taken] * self._counts[rows]).long()

    def _order(self, generator: torch.Generator) -> Tensor:
        """Objects in the order of an epoch."""
        order = torch.randperm(self.count, generator=generator)
        if self._together == 1:
            return order
        rank = torch.empty_like(order).scatter_(0, order, torch.arange(self.count)).tolist()
        groups = []
        for objects in self._objects:
            shuffled = sorted(objects, key=rank.__getitem__)
            shuffled += shuffled * self._together
            count = -(-len(objects) // self._together)
            groups += [
                shuffled[i * self._together : (i + 1) * self._together] for i in range(count)
            ]
        mixed = torch.randperm(len(groups), generator=generator)
        return torch.tensor(groups)[mixed].flatten()
