"""Pairs of pictures before and after an edit, with its instruction.

```python
data = EditDataset("clip-filtered-dataset", "train")
generator = sample_generator(seed, step, row)
pair = data.pair(i, generator)  # one random pair of the entry
before, after = EditAugmentation()(pair, generator)  # float32 [3, 256, 256] in [-1, 1]
```
`vpd.data.tabletop.edits` gives pairs whose edited picture and region are known exactly.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vpd.data.edit_files import EditPair, Entry, pair_paths, read_prompt, read_seeds
from vpd.data.files import read_rgb
from vpd.data.triplets import Triplet
from vpd.images import in_range

__all__ = ["EDIT_SPLITS", "EditAugmentation", "EditDataset", "EditPair", "EditSplit", "split_range"]

EditSplit = Literal["train", "val", "test", "all"]
EDIT_SPLITS: dict[str, tuple[int, int]] = {
    "train": (0, 18),
    "val": (18, 19),
    "test": (19, 20),
    "all": (0, 20),
}
"""From which twentieth of the entries to which, in the order of `seeds.json`."""


def split_range(split: str, entries: int) -> slice:
    """Which of so many entries belong to a split."""
    first, last = (part * entries // 20 for part in EDIT_SPLITS[split])
    return slice(first, last)


class EditDataset:
    """Edited pairs in InstructPix2Pix's layout, see `vpd.data.edit_files`. An item is an entry: an
    instruction with one pair or more.

    Args:
        root: the folder with `seeds.json`.
        split: "train" is the first 90 % of the entries, "val" the next 5 %, "test" the rest; "all".

    Raises:
        FileNotFoundError: There is no `seeds.json`.
        ValueError: It holds something else, or an unknown split.
    """

    def __init__(self, root: str | os.PathLike[str], split: EditSplit = "train") -> None:
        if split not in EDIT_SPLITS:
            raise ValueError(f"split must be one of {', '.join(EDIT_SPLITS)}, got {split!r}")
        self.root, self.split = Path(root), split
        entries = read_seeds(root)
        self.entries: list[Entry] = entries[split_range(split, len(entries))]

    def __len__(self) -> int:
        return len(self.entries)

    def triplet(self, index: int) -> Triplet:
        """The texts of an entry.

        Raises:
            OSError, ValueError: They are missing or damaged.
        """
        return read_prompt(self.root, self.entries[index].name)

    def pair(self, index: int, generator: np.random.Generator | None = None) -> EditPair:
        """A pair of an entry: drawn from the generator, without one the first.

        Raises:
            OSError, ValueError: A file is missing or damaged, or the sizes differ.
        """
        seeds = self.entries[index].seeds
        return self.pair_of(index, 0 if generator is None else int(generator.integers(len(seeds))))

    def pair_of(self, index: int, number: int) -> EditPair:
        """The pair of that number of an entry; see `pair`."""
        entry = self.entries[index]
        seed = entry.seeds[number]
        paths = pair_paths(self.root, entry.name, seed)
        before, after = (read_rgb(path) for path in paths)
        if before.shape != after.shape:
            raise ValueError(
                f"{paths[1]}: expected the size of {paths[0].name}, {list(before.shape[:2])}, "
                f"got {list(after.shape[:2])}"
            )
        return EditPair(f"{entry.name}/{seed}", self.triplet(index), before, after)


@dataclass(frozen=True)
class EditAugmentation:
    """InstructPix2Pix's augmentation, the same for both pictures: resize to a square (Lanczos), a
    random crop, a flip.

    Attributes:
        sizes: least and largest side after the resize, in pixels, both possible. The released
            configuration has one, the paper 256 to 288.
        crop: side of the result, at most the least side.
        flip: probability of a horizontal flip. Not for instructions that say left or right.
    """

    sizes: tuple[int, int] = (256, 256)
    crop: int = 256
    flip: float = 0.5

    def __post_init__(self) -> None:
        least, most = self.sizes
        if not 1 <= self.crop <= least <= most:
            raise ValueError(
                f"expected 1 <= crop <= least <= most side, got crop {self.crop} and sizes "
                f"{self.sizes}"
            )
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip must be within 0..1, got {self.flip}")

    def __call__(self, pair: EditPair, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """One random version of a pair: before and after, float32 [3, crop, crop] in [-1, 1]."""
        side = int(generator.integers(self.sizes[0], self.sizes[1] + 1))
        top, left = (int(v) for v in generator.integers(0, side - self.crop + 1, size=2))
        turned = bool(generator.random() < self.flip)
        box = (slice(top, top + self.crop), slice(left, left + self.crop))

        def view(image: NDArray[np.uint8]) -> Tensor:
            cut = _lanczos(image, side)[box]
            return in_range(cut[:, ::-1] if turned else cut)

        return view(pair.before), view(pair.after)


def _lanczos(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Squashed to a square as Pillow does it, which widens the filter where it shrinks a picture;
    OpenCV's Lanczos does not."""
    from PIL import Image

    if image.shape[:2] == (side, side):
        return image
    resized = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.uint8)
