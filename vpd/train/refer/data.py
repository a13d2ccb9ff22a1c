"""What a referring segmenter is trained on and scored on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpd.data import tabletop
from vpd.data.refer import ReferDataset
from vpd.data.subset import Subset
from vpd.tasks.samples import ReferSamples, refer_samples
from vpd.train.refer.config import ReferData
from vpd.train.refer.table import Referred, dataset_refs, tabletop_refs

__all__ = ["TrainingData", "training_data", "val_samples"]


class Pictures(Sequence[np.ndarray]):
    """uint8 [H, W, 3] images, each read when it is asked for."""

    def __init__(self, count: int, read: Callable[[int], np.ndarray]) -> None:
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        if not 0 <= place < self._count:
            raise IndexError(place)
        return self._read(place)


@dataclass(frozen=True)
class TrainingData:
    """Pictures, and the objects that sentences are about."""

    pictures: Pictures
    refs: Iterable[Referred]
    """Their ``image`` counts the pictures."""


def training_data(data: ReferData, progress: bool = True) -> TrainingData:
    """The split that is trained on.

    Raises:
        ValueError: A data set that is read from disk without its folder.
    """
    if _rendered(data):
        split = _load(data, data.split, progress, data.limit)
        sentences = tabletop.expressions_for(split, _subset(data, data.subset))
        # Behind the last scene that is spoken of, none has to be encoded.
        used = max((i + 1 for i, spoken in enumerate(sentences) if spoken), default=0)
        pictures = Pictures(used, lambda place: split.images[place])
        return TrainingData(pictures, tabletop_refs(split, sentences))
    source = _read(data, data.split, data.subset)
    images = sorted({ref.image_id for ref in source.refs})
    pictures = Pictures(len(images), lambda place: source.image(images[place]))
    return TrainingData(pictures, dataset_refs(source, images))


def val_samples(data: ReferData, progress: bool = True) -> ReferSamples:
    """The split that is watched during training and scored at its end; raises as
    :func:`training_data`."""
    if _rendered(data):
        split = _load(data, data.val_split, progress)
        return refer_samples(split, _subset(data, data.val_subset))
    return refer_samples(_read(data, data.val_split, data.val_subset))


def _rendered(data: ReferData) -> bool:
    if data.root is None and data.name != "tabletop":
        raise ValueError(f"data.name={data.name} needs data.root, the folder that holds it")
    return data.root is None


def _load(
    data: ReferData, split: str, progress: bool, limit: int | None = None
) -> tabletop.TabletopSplit:
    where: dict[str, Any] = {"cache_dir": data.cache_dir, "workers": data.workers}
    return tabletop.load_split(split, limit=limit, progress=progress, **where)


def _read(data: ReferData, split: str, count: int | None) -> ReferDataset:
    assert data.root is not None
    return ReferDataset(data.root, data.name, data.split_by, split, subset=_subset(data, count))


def _subset(data: ReferData, count: int | None) -> Subset | None:
    return None if count is None else Subset(count, data.subset_unit)
