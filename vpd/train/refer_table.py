"""A referring data set held in memory: every image encoded once (VPD's autoencoder is frozen and
its images are not augmented)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from vpd.data import tabletop
from vpd.data.refer import ReferDataset
from vpd.images import to_network
from vpd.tasks.refer import ReferSegmenter
from vpd.tokens import tokenize
from vpd.train.loop import Resident, step_generator


@dataclass(frozen=True)
class Referred:
    """One referred object: its image, its mask at any size, and every sentence about it."""

    image: int
    mask: np.ndarray  # bool [H, W]
    sentences: Sequence[str]


@dataclass(frozen=True)
class Batch:
    latents: Tensor  # [B, C, h, w]
    ids: Tensor  # int64 [B, length]
    masks: Tensor  # int64 [B, H, W], 0 or 1


def tabletop_refs(split: tabletop.TabletopSplit) -> Iterator[Referred]:
    """The objects of a rendered split; sentences about one object belong together."""
    for index, sentences in enumerate(tabletop.expressions_for(split)):
        targets: dict[int, list[str]] = {}
        for sentence in sentences:
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
    with one random sentence.

    Args:
        model: Encodes the images, under its noise protocol.
        pictures: uint8 [H, W, 3] images, in the order that ``Referred.image`` counts.
        refs: The referred objects.
        batch: Rows of a batch; the last, incomplete one of an epoch is dropped.
        seed: Of order and sentences.
    """

    def __init__(
        self,
        model: ReferSegmenter,
        pictures: Iterable[np.ndarray],
        refs: Iterable[Referred],
        batch: int,
        seed: int,
    ) -> None:
        config = model.config
        if config.noise.adds_noise and config.noise.seed is None:
            raise ValueError(
                "training encodes each image once: its noise protocol needs a seed, "
                "got NoiseSpec(seed=None)"
            )
        self.size, self.batch, self.seed = config.image_size, batch, seed
        rows, packed, ids, counts = [], [], [], []
        for ref in refs:
            rows.append(ref.image)
            packed.append(np.packbits(self._resized(ref.mask), axis=-1))
            ids.append(
                tokenize(list(ref.sentences), length=config.token_length).ids.to(torch.int32)
            )
            counts.append(len(ref.sentences))
        if len(rows) < batch:
            raise ValueError(f"expected at least one batch of {batch} objects, got {len(rows)}")
        self.count, self.sentences = len(rows), sum(counts)
        self.steps_per_epoch = self.count // batch
        self._data = Resident(
            latents=self._encode(model, pictures),
            images=torch.tensor(rows),
            masks=torch.from_numpy(np.stack(packed)),
            ids=torch.cat(ids),
            counts=torch.tensor(counts),
            first=torch.tensor([0, *np.cumsum(counts)[:-1].tolist()]),
            bits=torch.arange(7, -1, -1, dtype=torch.uint8),
        )

    def _resized(self, mask: np.ndarray) -> np.ndarray:
        if mask.shape == (self.size, self.size):
            return mask
        size = (self.size, self.size)
        return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0

    @torch.no_grad()
    def _encode(self, model: ReferSegmenter, pictures: Iterable[np.ndarray]) -> Tensor:
        parts: list[Tensor] = []
        chunk: list[Tensor] = []

        def flush() -> None:
            if chunk:
                pixels = torch.cat(chunk).to(model.device)
                parts.append(model.encode_image(pixels).half().cpu())
                chunk.clear()

        for picture in pictures:
            chunk.append(to_network(picture, self.size))
            if len(chunk) == 32:
                flush()
        flush()
        return torch.cat(parts)

    def to(self, device: torch.device) -> None:
        self._data.to(device)

    def draw(self, step: int) -> Batch:
        """The batch of a training step, the same whenever it is asked for."""
        data = self._data
        epoch, place = divmod(step, self.steps_per_epoch)
        generator = step_generator(self.seed, epoch)
        order = torch.randperm(self.count, generator=generator)
        luck = torch.rand(self.count, generator=generator)
        rows = order[place * self.batch : (place + 1) * self.batch]
        device = data["images"].device
        luck, rows = luck[rows].to(device), rows.to(device)
        sentence = data["first"][rows] + (luck * data["counts"][rows]).long()
        bits = (data["masks"][rows].unsqueeze(-1) >> data["bits"]) & 1
        return Batch(
            data["latents"][data["images"][rows]].float(),
            data["ids"][sentence].long(),
            bits.flatten(-2)[..., : self.size].long(),
        )
