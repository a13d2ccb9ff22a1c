"""Data sets of semantic segmentation: a picture and the class of each of its pixels.

```
<root>/ADEChallengeData2016/{images,annotations}/{training,validation}/ADE_val_00000001.{jpg,png}
<root>/coco_stuff164k/{images,annotations}/{train2017,val2017}/000000000139{.jpg,_labelTrainIds.png}
<root>/cityscapes/{leftImg8bit,gtFine}/{train,val}/<city>/..._{leftImg8bit,gtFine_labelTrainIds}.png
```
The first folder may be left out. Tabletop gives the same samples without a disk:
`vpd.data.tabletop.semantic`.
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from vpd.data.files import read_rgb
from vpd.data.labels import LabelCoding, direct, mapped, read_stored, zero_reduced
from vpd.data.naming import checked_names, class_names, read_names
from vpd.data.pairs import Pairs, below, ending, folders_in, match
from vpd.images import EXTENSIONS

ADE_FOLDERS = {"train": "training", "val": "validation"}
ADE_COUNTS = {"train": 20210, "val": 2000}
COCO_COUNTS = {"train": 118287, "val": 5000}
CITYSCAPES_COUNTS = {"train": 2975, "val": 500, "test": 1525}
# Ids 0..181 of the stuffthingmaps without a class: COCO never used these eleven for things.
_COCO_GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
# `labelIds` of Cityscapes in the order of their train ids; all other ids are ignored.
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_CITYSCAPES_LAST_ID = 33
_PICTURES = ending(*EXTENSIONS)


class LabelledPicture(Protocol):
    """What semantic segmentation reads, from disk or rendered."""

    @property
    def id(self) -> str: ...
    def read_image(self) -> NDArray[np.uint8]: ...
    def read_label(self) -> NDArray[Any]: ...
    def read(self) -> tuple[NDArray[np.uint8], NDArray[Any]]: ...


@dataclass(frozen=True)
class SemanticSample:
    """One picture on disk and its label; nothing is read before it is asked for."""

    id: str
    image_path: Path
    label_path: Path
    coding: LabelCoding

    def read_image(self) -> NDArray[np.uint8]:
        """The picture: uint8 [H, W, 3], RGB.

        Raises:
            OSError: if the file cannot be opened.
            ValueError: if it is no picture.
        """
        return read_rgb(self.image_path)

    def read_label(self) -> NDArray[Any]:
        """The class of each pixel, or the ignore index: uint8 [H, W] (int64 if an id needs it).

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no label picture, or holds an id that is no class.
        """
        return self.coding.decode(read_stored(self.label_path), self.label_path)

    def read(self) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Picture and label, checked to be of one size; raises as both and for that."""
        image, label = self.read_image(), self.read_label()
        if image.shape[:2] != label.shape:
            raise ValueError(
                f"{self.label_path}: expected a label of {image.shape[0]} x {image.shape[1]} "
                f"pixels like its picture {self.image_path}, got {label.shape[0]} x "
                f"{label.shape[1]}"
            )
        return image, label


@dataclass(frozen=True, eq=False)
class SemanticDataset(Sequence[SemanticSample]):
    """The pictures of a split, by index; a slice is a smaller data set.

    Attributes:
        name, split: which data set.
        variant: which of its forms on disk was found.
        names: class names; the id is the position.
        pairs: the files.
        coding: what stored label values mean.
        published: how many pictures the split of the official release has, None if unknown.
    """

    name: str
    split: str
    variant: str
    names: tuple[str, ...]
    pairs: Pairs
    coding: LabelCoding
    published: int | None = None

    @property
    def ignore_index(self) -> int:
        """The id of pixels without a class."""
        return self.coding.ignore_index

    def __len__(self) -> int:
        return len(self.pairs.rows)

    @overload
    def __getitem__(self, index: int) -> SemanticSample: ...
    @overload
    def __getitem__(self, index: slice) -> "SemanticDataset": ...
    def __getitem__(self, index: int | slice) -> "SemanticSample | SemanticDataset":
        if isinstance(index, slice):
            pairs = dataclasses.replace(self.pairs, rows=self.pairs.rows[index])
            return dataclasses.replace(self, pairs=pairs)
        key, image, label = self.pairs.rows[index]
        pairs = self.pairs
        return SemanticSample(key, pairs.image_root / image, pairs.target_root / label, self.coding)

    def whole(self) -> "SemanticDataset":
        """Itself; raises FileNotFoundError if a label is missing or there are no pictures."""
        self.pairs.whole("label")
        return self


def ade20k(root: str | os.PathLike[str], split: str = "val") -> SemanticDataset:
    """ADE20K's scene parsing benchmark (150 classes), or any data set in its layout.

    Stored labels are class ids plus one; 0 is no class. A file `classes.txt` beside `images`, one
    name a line, says which other classes a data set has (Tabletop comes with one).

    Args:
        root: the folder ADEChallengeData2016, or the one that holds it.
        split: train, val, or the name of another folder in `images`.

    Raises:
        FileNotFoundError: if a folder or a label is missing.
        ValueError: if two files could be the same picture, or `classes.txt` is damaged.
    """
    return find_ade20k(root, split).whole()


def find_ade20k(root: str | os.PathLike[str], split: str) -> SemanticDataset:
    """As `ade20k`, of which labels may be missing (`pairs.missing`)."""
    base, folder = below(root, "ADEChallengeData2016"), ADE_FOLDERS.get(split, split)
    pairs = match(
        base / "images" / folder, base / "annotations" / folder, _PICTURES, ending(".png")
    )
    names, variant = class_names("ade20k"), "150 classes"
    published = ADE_COUNTS.get(split)
    if (base / "classes.txt").is_file():
        names = read_names(base / "classes.txt")
        variant, published = f"{len(names)} classes of classes.txt", tabletop_count(names, split)
    coding = zero_reduced(len(names))
    return SemanticDataset("ade20k", split, variant, names, pairs, coding, published)


def ade20k_splits(root: Path) -> list[str]:
    """Splits that have a folder of pictures."""
    back = {folder: split for split, folder in ADE_FOLDERS.items()}
    found = folders_in(below(root, "ADEChallengeData2016") / "images")
    return [back.get(name, name) for name in found]


def tabletop_count(names: tuple[str, ...], split: str) -> int | None:
    """How many scenes a split has if these are Tabletop's classes, else None."""
    from vpd.data.tabletop.spec import CLASSES
    from vpd.data.tabletop.splits import SPLITS

    return SPLITS[split].count if names == CLASSES and split in SPLITS else None


def coco_stuff(root: str | os.PathLike[str], split: str = "val") -> SemanticDataset:
    """COCO-Stuff-164k: 171 classes, 80 things and then 91 stuffs.

    Labels are `*_labelTrainIds.png` with ids 0-170 if there are any, else the plain PNG files of
    the original stuffthingmaps with ids 0-181, of which eleven are never used.

    Args:
        root: the folder coco_stuff164k, or the one that holds it.
        split: train or val.

    Raises:
        ValueError: on another split, or if two files could be the same picture.
        FileNotFoundError: if a folder or a label is missing.
    """
    return find_coco_stuff(root, split).whole()


def find_coco_stuff(root: str | os.PathLike[str], split: str) -> SemanticDataset:
    """As `coco_stuff`, of which labels may be missing (`pairs.missing`)."""
    _check_split(split, COCO_COUNTS)
    base, folder = below(root, "coco_stuff164k"), f"{split}2017"
    images, labels = base / "images" / folder, base / "annotations" / folder
    names = class_names("coco_stuff")
    pairs = match(images, labels, _PICTURES, ending("_labelTrainIds.png"))
    variant, coding = "labelTrainIds", direct(len(names))
    if not pairs.rows:
        pairs = match(images, labels, _PICTURES, ending(".png"))
        ids = [i for i in range(182) if i not in _COCO_GAPS]
        classes = {stored: i for i, stored in enumerate(ids)}
        said = "0..181 without the unused ids, or 255 (none)"
        variant, coding = "stuffthingmaps", mapped(classes, len(names), said)
    published = COCO_COUNTS[split]
    return SemanticDataset("coco-stuff", split, variant, names, pairs, coding, published)


def coco_stuff_splits(root: Path) -> list[str]:
    """Splits that have a folder of pictures."""
    found = folders_in(below(root, "coco_stuff164k") / "images")
    return [split for split in COCO_COUNTS if f"{split}2017" in found]


def cityscapes(root: str | os.PathLike[str], split: str = "val") -> SemanticDataset:
    """Cityscapes with fine labels: 19 classes.

    Labels are `*_labelTrainIds.png` if there are any, else the `*_labelIds.png` of the download,
    whose classes without a train id are ignored.

    Args:
        root: the folder that holds leftImg8bit and gtFine, or the one with `cityscapes` in it.
        split: train, val or test (whose labels are placeholders).

    Raises:
        ValueError: on another split, or if two files could be the same picture.
        FileNotFoundError: if a folder or a label is missing.
    """
    return find_cityscapes(root, split).whole()


def find_cityscapes(root: str | os.PathLike[str], split: str) -> SemanticDataset:
    """As `cityscapes`, of which labels may be missing (`pairs.missing`)."""
    _check_split(split, CITYSCAPES_COUNTS)
    base, names = below(root, "cityscapes"), class_names("cityscapes")
    images, labels = base / "leftImg8bit" / split, base / "gtFine" / split
    image_key = ending("_leftImg8bit.png", "_leftImg8bit.jpg")
    pairs = match(images, labels, image_key, ending("_gtFine_labelTrainIds.png"))
    variant, coding = "labelTrainIds", direct(len(names))
    if not pairs.rows:
        pairs = match(images, labels, image_key, ending("_gtFine_labelIds.png"))
        classes = dict.fromkeys(range(_CITYSCAPES_LAST_ID + 1), 255)
        classes |= {stored: i for i, stored in enumerate(_CITYSCAPES_IDS)}
        said = f"0..{_CITYSCAPES_LAST_ID}, or 255 (none)"
        variant, coding = "labelIds", mapped(classes, len(names), said)
    published = CITYSCAPES_COUNTS[split]
    return SemanticDataset("cityscapes", split, variant, names, pairs, coding, published)


def cityscapes_splits(root: Path) -> list[str]:
    """Splits that have a folder of pictures."""
    found = folders_in(below(root, "cityscapes") / "leftImg8bit")
    return [split for split in CITYSCAPES_COUNTS if split in found]


def image_mask_folder(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    names: Sequence[str] | str | os.PathLike[str],
    reduce_zero_label: bool = False,
    ignore_index: int = 255,
) -> SemanticDataset:
    """Any two folders in which a picture and its mask have the same name up to the extension.

    Args:
        images: folder of pictures; subfolders are searched too.
        masks: folder of label pictures of one channel (of a palette PNG the indices count).
        names: class names, or a file with one a line.
        reduce_zero_label: stored labels are class ids plus one, and 0 is no class.
        ignore_index: id of pixels without a class; also stored as such.

    Raises:
        FileNotFoundError: if a folder or a mask is missing.
        ValueError: if two files could be the same picture, or the names or ignore_index are wrong.
    """
    found = find_image_masks(images, masks, names, reduce_zero_label, ignore_index)
    return found.whole()


def find_image_masks(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    names: Sequence[str] | str | os.PathLike[str],
    reduce_zero_label: bool = False,
    ignore_index: int = 255,
) -> SemanticDataset:
    """As `image_mask_folder`, of which masks may be missing (`pairs.missing`)."""
    given = isinstance(names, (str, os.PathLike))
    known = read_names(names) if given else checked_names("names", names)  # type: ignore[arg-type]
    coding = (zero_reduced if reduce_zero_label else direct)(len(known), ignore_index)
    pairs = match(Path(images), Path(masks), _PICTURES, ending(".png", ".bmp", ".tif", ".tiff"))
    variant = "masks, 0 is no class" if reduce_zero_label else "masks"
    return SemanticDataset("folder", "all", variant, known, pairs, coding)


def _check_split(split: str, known: dict[str, int]) -> None:
    if split not in known:
        raise ValueError(f"split must be one of {', '.join(known)}, got {split!r}")
