"""What an editor's U-Net sees of edited pairs: latents that are encoded once, or anew in every
step."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vpd.data.augment import sample_generator
from vpd.data.edit import EditAugmentation
from vpd.data.files import atomic_write
from vpd.models.autoencoder import AutoencoderKL
from vpd.train.caching.ahead import RowsAhead
from vpd.train.caching.row_store import RowStore, digest
from vpd.train.dense.table import Epochs
from vpd.train.edit.pairs import Pairs

__all__ = ["Draws", "EditBatch", "EditTable", "PairLatents", "ResidentPairs", "StreamedPairs"]

_TOGETHER = 8  # pairs of a pass of the autoencoder


@dataclass(frozen=True)
class EditBatch:
    """Rows of a batch; latents are float32 and not scaled."""

    image: Tensor
    """[B, C, h, w], mode of the latents of the pictures before."""
    mean: Tensor
    """[B, C, h, w], of the latents of the edited pictures."""
    std: Tensor
    """[B, C, h, w], of the same: training draws from the posterior."""
    texts: list[str]
    """B instructions."""


class EditTable(Protocol):
    """What a training draws from. Every answer depends on its arguments alone."""

    steps_per_epoch: int
    texts: Sequence[str]
    """All instructions, as far as they are known beforehand."""

    def to(self, device: torch.device) -> None: ...

    def draw(self, step: int, part: slice = slice(None)) -> EditBatch:
        """Some rows of the batch of a training step."""

    def close(self) -> None:
        """Ends what works ahead."""


class PairLatents:
    """Latents of pairs that are squashed to a square, each encoded once and kept on disk.

    Pictures go through the autoencoder in the same company whatever is on disk already, so that the
    numbers do not depend on where an earlier run was ended.

    Args:
        vae: Encodes them, without autocast.
        pairs: Where they are read.
        crop: Side of the square, in pixels.
        mirrored: Whether there are mirror images too. A *view* is the number of a pair, or with
            mirror images twice that, plus 1 for its mirror image.
        cache: Folder for latents of all kinds.
        progress: Show a bar.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        pairs: Pairs,
        crop: int,
        mirrored: bool,
        cache: Path,
        progress: bool = True,
    ) -> None:
        self._views = 2 if mirrored else 1
        self._device = torch.device("cpu")
        own = {name: value for name, value in asdict(vae.config).items() if name != "encode_only"}
        self._store = RowStore(cache / digest("edits 1", vae, own, {"crop": crop}))
        numbers = range(sum(pairs.counts))
        self._keys = [pairs.key(number) for number in numbers]
        self.texts: list[str] = self._fill(vae, pairs, crop, progress)
        """The instruction of each pair."""

    def __deepcopy__(self, memo: dict[int, Any]) -> PairLatents:
        return self

    def to(self, device: torch.device) -> None:
        self._device = device

    def read(self, views: Sequence[int]) -> EditBatch:
        """Some views."""
        parts = self._store.read(self._key(view) for view in views)
        image, mean, std = (part.to(self._device) for part in parts)
        return EditBatch(image, mean, std, [self.texts[view // self._views] for view in views])

    def _key(self, view: int) -> bytes:
        mirrored = " mirrored" * (view % self._views)
        return (self._keys[view // self._views] + mirrored).encode()

    def _fill(self, vae: AutoencoderKL, pairs: Pairs, crop: int, progress: bool) -> list[str]:
        """Encodes what is not on disk yet; returns the instructions, which lie there too: to know
        one of Tabletop's, its picture must be rendered."""
        from tqdm.auto import tqdm

        known = self._store.folder / f"{digest('texts 1', *self._keys)}.json"
        texts = json.loads(known.read_bytes()) if known.is_file() else []
        with tqdm(
            total=len(self._keys), desc="encoding pairs", unit="pair", disable=not progress
        ) as bar:
            for start in range(0, len(self._keys), _TOGETHER):
                numbers = range(start, min(start + _TOGETHER, len(self._keys)))
                bar.update(len(numbers))
                views = range(start * self._views, numbers.stop * self._views)
                absent = [self._key(view) not in self._store for view in views]
                if any(absent):
                    read = [pairs.pair(number) for number in numbers]
                    said = [pair.triplet.edit for pair in read]
                    rows = self._encode(vae, read, crop)
                    chosen = torch.tensor(absent)
                    keys = [self._key(v) for v, new in zip(views, absent, strict=True) if new]
                    self._store.add(keys, [row[chosen] for row in rows])
                elif not known.is_file():
                    said = [pairs.instruction(number) for number in numbers]
                else:
                    continue
                if not known.is_file():
                    texts += said
        self._store.flush()
        if not known.is_file():
            with atomic_write(known) as file:
                file.write(json.dumps(texts).encode())
        return texts

    @torch.no_grad()
    def _encode(self, vae: AutoencoderKL, read: Sequence[Any], crop: int) -> list[Tensor]:
        squash = EditAugmentation((crop, crop), crop, flip=0)
        pixels = torch.stack([torch.stack(squash(p, np.random.default_rng(0))) for p in read])
        views = torch.stack([pixels, pixels.flip(-1)][: self._views], dim=1).flatten(0, 1)
        device = next(vae.parameters()).device
        before, after = (vae.encode(views[:, side].to(device)) for side in (0, 1))
        return [before.mode(), after.mean, after.std]


class Draws:
    """The views of each step's batch. An epoch visits every entry once: one of its pairs, mirrored
    or not, by chance.

    Args:
        counts: Pairs of each entry.
        views: Of each pair: 1, or 2 with its mirror image.
        batch: Rows of a batch.
        seed: Of order and chance.
    """

    def __init__(self, counts: Sequence[int], views: int, batch: int, seed: int) -> None:
        self._counts = torch.tensor(list(counts)) * views
        self._starts = torch.tensor([0, *accumulate(counts)]) * views
        self._epochs = Epochs(len(counts), batch, seed)
        self.steps_per_epoch = self._epochs.steps

    def __call__(self, step: int) -> list[int]:
        """Numbers of the views of a step."""
        entries, luck = self._epochs.rows(step)
        choice = (luck * self._counts[entries]).long()
        return (self._starts[entries] + choice).tolist()


class ResidentPairs:
    """A training set of :class:`PairLatents`.

    Args:
        latents: Of all pairs.
        draws: Which of their views a step sees.
    """

    def __init__(self, latents: PairLatents, draws: Draws) -> None:
        self._latents, self._draws = latents, draws
        self.steps_per_epoch = draws.steps_per_epoch
        self.texts: Sequence[str] = latents.texts

    def __deepcopy__(self, memo: dict[int, Any]) -> ResidentPairs:
        return self

    def to(self, device: torch.device) -> None:
        self._latents.to(device)

    def draw(self, step: int, part: slice = slice(None)) -> EditBatch:
        return self._latents.read(self._draws(step)[part])

    def close(self) -> None:
        """Nothing works ahead here."""


class StreamedPairs:
    """A training set of pairs that are resized, cropped and mirrored at random, by threads that
    work ahead, from (seed, step, place in the batch): a resumed run and one of several processes
    see the same. The autoencoder runs in every step.

    Args:
        encode: From pixels [B, 3, H, W] to their posterior.
        pairs: Where they are read.
        augmentation: Of both pictures.
        batch: Rows of a batch.
        seed: Of order and chance.
        workers: Threads; None: one per CPU.
    """

    texts: Sequence[str] = ()

    def __init__(
        self,
        encode: Callable[[Tensor], Any],
        pairs: Pairs,
        augmentation: EditAugmentation,
        batch: int,
        seed: int,
        workers: int | None = None,
    ) -> None:
        self._encode, self._pairs, self._augment = encode, pairs, augmentation
        self._batch, self._seed = batch, seed
        self._draws = Draws(pairs.counts, 1, batch, seed)
        self.steps_per_epoch = self._draws.steps_per_epoch
        self._rows = RowsAhead(self._draws, self._row, workers)
        self._device = torch.device("cpu")

    def __deepcopy__(self, memo: dict[int, Any]) -> StreamedPairs:
        return self

    def to(self, device: torch.device) -> None:
        self._device = device

    def draw(self, step: int, part: slice = slice(None)) -> EditBatch:
        rows = self._rows(step, range(self._batch)[part])
        old, new, texts = zip(*rows, strict=True)
        before, after = (self._posterior(torch.stack(side)) for side in (old, new))
        mode, mean, std = before.mode(), after.mean, after.std
        return EditBatch(mode.float(), mean.float(), std.float(), list(texts))

    def close(self) -> None:
        self._rows.close()

    def _posterior(self, pixels: Tensor) -> Any:
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            return self._encode(pixels.to(self._device))

    def _row(self, number: int, step: int, place: int) -> tuple[Tensor, Tensor, str]:
        """Pixels before and after, [3, crop, crop] in [-1, 1], and the instruction."""
        pair = self._pairs.pair(number)
        before, after = self._augment(pair, sample_generator(self._seed, step, place))
        return before, after, pair.triplet.edit
