"""One reader for all data sets in the REFER layout: a sentence, a picture, one mask.

```
<root>/<name>/{instances.json, refs(<split_by>).p}
<root>/images/{mscoco/images/train2014, saiapr_tc-12, tabletop}/...
```
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpd.data.files import read_rgb
from vpd.data.masks import check_mask_merge, decode_segmentation
from vpd.data.pickles import load_plain
from vpd.data.subset import Subset
from vpd.data.tables import read_tables

_COCO = Path("images", "mscoco", "images", "train2014")


_FIELDS: dict[str, dict[str, type]] = {
    "images": {"id": int, "file_name": str, "height": int, "width": int},
    "annotations": {"id": int, "image_id": int, "category_id": int},
    "categories": {"id": int, "name": str},
}


@dataclass(frozen=True)
class Variant:
    """Where a data set keeps its pictures, and the split makers it comes with (first = default)."""

    images: Path
    split_bys: tuple[str, ...]


VARIANTS = {
    "refcoco": Variant(_COCO, ("unc", "google")),
    "refcoco+": Variant(_COCO, ("unc",)),
    "refcocog": Variant(_COCO, ("umd", "google")),
    "refclef": Variant(Path("images", "saiapr_tc-12"), ("unc", "berkeley")),
    "tabletop": Variant(Path("images", "tabletop"), ("vpd",)),
}


@dataclass(frozen=True)
class Sentence:
    """One referring sentence; kind is attribute, place or relation on Tabletop, else None."""

    id: int
    text: str
    kind: str | None = None


@dataclass(frozen=True)
class Ref:
    """One referred object with its sentences."""

    ref_id: int
    ann_id: int
    image_id: int
    category: str
    split: str
    sentences: tuple[Sentence, ...]


def in_split(wanted: str, found: str) -> bool:
    """REFER's rule of which refs belong to a split.

    "test" takes every test split; testA, testB and testC also take combined ones such as testAB.
    """
    if wanted == "test":
        return "test" in found
    if wanted in ("testA", "testB", "testC"):
        return wanted[-1] in found
    return wanted == found


def variant(name: str, split_by: str | None = None) -> tuple[Variant, str]:
    """The data set of a name and its split maker.

    Raises:
        ValueError: if either is unknown.
    """
    if name not in VARIANTS:
        raise ValueError(f"data set must be one of {', '.join(VARIANTS)}, got {name!r}")
    known = VARIANTS[name]
    chosen = known.split_bys[0] if split_by is None else split_by
    if chosen not in known.split_bys:
        raise ValueError(f"split_by of {name} must be one of {known.split_bys}, got {split_by!r}")
    return known, chosen


def read_refs(path: Path) -> list[dict[str, Any]]:
    """The raw entries of a `refs(...).p` file, checked for the fields that are used.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, hostile, or of another form.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the referring sentences here, found no file")
    refs = load_plain(path)
    if not isinstance(refs, list):
        raise ValueError(f"{path}: expected a list of refs, got {type(refs).__name__}")
    for i, ref in enumerate(refs):
        try:
            if not all(isinstance(s["sent"], str) for s in ref["sentences"]):
                raise TypeError("a sentence is not text")
            for field in ("ref_id", "ann_id", "image_id"):
                if not isinstance(ref[field], int):
                    raise TypeError(f"{field} is no integer but {ref[field]!r:.80}")
            if not isinstance(ref["split"], str):
                raise TypeError(f"split is no text but {ref['split']!r:.80}")
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: ref number {i} is not a REFER entry: {error!r}") from error
    return refs


def read_instances(path: Path) -> dict[str, Any]:
    """The tables of an `instances.json`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not COCO instances, or a row lacks what is used of it.
    """
    tables = read_tables(path, "COCO instances")
    for table, fields in _FIELDS.items():
        for number, row in enumerate(tables[table]):
            for field, kind in fields.items():
                found = row.get(field) if isinstance(row, dict) else None
                if not isinstance(found, kind):
                    raise ValueError(
                        f"{path}: expected {field!r} of type {kind.__name__} in number {number} of "
                        f"{table}, got {found!r:.80}"
                    )
    return tables


def _first(refs: list[dict[str, Any]], subset: Subset) -> list[dict[str, Any]]:
    counts = subset.kept(len(ref["sentences"]) for ref in refs)
    return [
        {**ref, "sentences": ref["sentences"][:count]}
        for ref, count in zip(refs, counts, strict=False)
    ]


class ReferDataset:
    """A split of RefCOCO, RefCOCO+, G-Ref, RefCLEF or Tabletop.

    ```python
    data = ReferDataset("data", "refcoco", split="val")
    for ref, sentence in data.pairs:  # every sentence, as evaluation wants
        image, mask = data.image(ref), data.mask(ref)
    ```

    Attributes:
        refs: the referred objects of the split, in file order.
        pairs: (ref, sentence) for every sentence.

    Args:
        root: folder that holds the data set's folder and `images`.
        name: one of VARIANTS.
        split_by: whose split; default: unc, unc, umd, unc, vpd in the order of VARIANTS.
        split: train, val, test, testA, testB, ...; see `in_split`.
        mask_merge: see `decode_segmentation`.
        subset: only the first sentences or refs of the split.

    Raises:
        FileNotFoundError: if a file of the data set is missing.
        ValueError: on an unknown name or split, or files that are damaged or contradict each other.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        name: str,
        split_by: str | None = None,
        split: str = "val",
        mask_merge: str = "union",
        subset: Subset | None = None,
    ):
        known, self.split_by = variant(name, split_by)
        check_mask_merge(mask_merge)
        self.name, self.split, self.mask_merge = name, split, mask_merge
        folder = Path(root) / name
        self.image_folder = Path(root) / known.images
        refs_path = folder / f"refs({self.split_by}).p"
        self._instances_path = folder / "instances.json"
        raw = read_refs(refs_path)
        chosen = [r for r in raw if in_split(split, r["split"])]
        if not chosen:
            there = ", ".join(sorted({str(r["split"]) for r in raw}))
            raise ValueError(f"{refs_path}: expected split {split!r}, found only: {there}")
        if subset is not None:
            chosen = _first(chosen, subset)
        self._read_tables(read_instances(self._instances_path), {r["image_id"] for r in chosen})
        self.refs = [self._ref(r) for r in chosen]
        self.pairs = [(ref, sentence) for ref in self.refs for sentence in ref.sentences]

    def __len__(self) -> int:
        return len(self.refs)

    def _read_tables(self, tables: dict[str, Any], wanted: set[int]) -> None:
        images = [i for i in tables["images"] if i["id"] in wanted]
        self._images = {i["id"]: i for i in images}
        self._categories = {c["id"]: c["name"] for c in tables["categories"]}
        annotations = [a for a in tables["annotations"] if a["image_id"] in wanted]
        self._annotations = {a["id"]: a for a in annotations}
        for what, rows, by_id in (
            ("image", images, self._images),
            ("annotation", annotations, self._annotations),
        ):
            if len(rows) != len(by_id):
                raise ValueError(
                    f"{self._instances_path}: expected every {what} id once, got "
                    f"{len(rows) - len(by_id)} repeated"
                )
        self._of_image: dict[int, list[int]] = {}
        for a in annotations:
            self._of_image.setdefault(a["image_id"], []).append(a["id"])

    def _ref(self, raw: dict[str, Any]) -> Ref:
        where = f"{self._instances_path}: ref {raw['ref_id']} of split {raw['split']!r}"
        if raw["image_id"] not in self._images:
            raise ValueError(f"{where} needs image {raw['image_id']}, which is not listed")
        annotation = self._annotations.get(raw["ann_id"])
        if annotation is None:
            raise ValueError(f"{where} needs annotation {raw['ann_id']}, which is not listed")
        category = self._categories.get(annotation.get("category_id"))
        if category is None:
            raise ValueError(f"{where} has an unknown category {annotation.get('category_id')}")
        return Ref(
            ref_id=raw["ref_id"],
            ann_id=raw["ann_id"],
            image_id=raw["image_id"],
            category=category,
            split=raw["split"],
            sentences=tuple(
                Sentence(s.get("sent_id", -1), s["sent"], s.get("kind")) for s in raw["sentences"]
            ),
        )

    def image_path(self, ref: Ref | int) -> Path:
        """The picture of a ref or of an image id; the file need not exist."""
        return self.image_folder / str(self._image_row(ref)["file_name"])

    def image(self, ref: Ref | int) -> NDArray[np.uint8]:
        """The picture of a ref or of an image id: uint8 [H, W, 3], RGB.

        Raises:
            FileNotFoundError: if the file is missing.
            ValueError: if it is no picture, or not of the size that the annotations are for.
        """
        path, row = self.image_path(ref), self._image_row(ref)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected a picture of {self.name} here, found none")
        image = read_rgb(path)
        if image.shape[:2] != (row["height"], row["width"]):
            raise ValueError(
                f"{path}: expected {row['height']} x {row['width']} pixels as annotated, "
                f"got {image.shape[0]} x {image.shape[1]}"
            )
        return image

    def mask(self, ref: Ref) -> NDArray[np.bool_]:
        """The mask of the referred object: bool [H, W].

        Raises:
            ValueError: if the annotation is damaged.
        """
        return self._mask(ref.ann_id)

    def instances(self, image: Ref | int) -> dict[int, NDArray[np.bool_]]:
        """Masks of every annotated object of a picture, by annotation id (see `mask`)."""
        image_id = image.image_id if isinstance(image, Ref) else image
        self._image_row(image_id)
        return {ann_id: self._mask(ann_id) for ann_id in self._of_image.get(image_id, [])}

    def categories(self, ann_ids: Iterable[int]) -> list[str]:
        """Category names of annotations, such as the keys of `instances`.

        Raises:
            ValueError: if a category is not listed.
        """
        names = []
        for ann_id in ann_ids:
            category = self._annotations[ann_id]["category_id"]
            if category not in self._categories:
                where = f"{self._instances_path}: annotation {ann_id}"
                raise ValueError(f"{where} has an unknown category {category}")
            names.append(self._categories[category])
        return names

    def _image_row(self, ref: Ref | int) -> dict[str, Any]:
        image_id = ref.image_id if isinstance(ref, Ref) else ref
        if image_id not in self._images:
            raise ValueError(f"image must be one of split {self.split!r}, got id {image_id!r}")
        return self._images[image_id]

    def _mask(self, ann_id: int) -> NDArray[np.bool_]:
        annotation = self._annotations[ann_id]
        row = self._images[annotation["image_id"]]
        try:
            return decode_segmentation(
                annotation.get("segmentation"), row["height"], row["width"], self.mask_merge
            )
        except ValueError as error:
            raise ValueError(f"{self._instances_path}: annotation {ann_id}: {error}") from error
