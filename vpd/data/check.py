"""Says whether a data set on disk is whole, before a long run finds out."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vpd.data.refer import in_split, read_instances, read_refs, variant


@dataclass(frozen=True)
class PublishedCount:
    """Refs and sentences of a split; `verified`: checked against public pages, else recalled."""

    refs: int
    sentences: int
    verified: bool


def _row(verified: bool, **splits: tuple[int, int]) -> dict[str, PublishedCount]:
    return {name: PublishedCount(*count, verified) for name, count in splits.items()}


PUBLISHED = {
    ("refcoco", "unc"): _row(
        True, train=(42404, 120624), val=(3811, 10834), testA=(1975, 5657), testB=(1810, 5095)
    ),
    ("refcoco+", "unc"): _row(
        False, train=(42278, 120191), val=(3805, 10758), testA=(1975, 5726), testB=(1798, 4889)
    ),
    ("refcocog", "umd"): _row(False, train=(42226, 80512), val=(2573, 4896), test=(5023, 9602)),
    ("tabletop", "vpd"): _row(
        True,
        **{
            "train": (3702, 5523),
            "train-10k": (36984, 54783),
            "val": (1205, 1422),
            "test": (1176, 1413),
        },
    ),
}
_SPLIT_ORDER = ("train", "val", "test", "testA", "testB", "testC")


def _order(split: str) -> tuple[int, str]:
    return (_SPLIT_ORDER.index(split) if split in _SPLIT_ORDER else len(_SPLIT_ORDER), split)


@dataclass(frozen=True)
class SplitCount:
    """What a split holds, and what it should hold (None where nothing is published)."""

    split: str
    refs: int
    sentences: int
    published: PublishedCount | None

    @property
    def agrees(self) -> bool | None:
        """Whether both counts are the published ones; None without those or without the split."""
        if self.published is None or not self.refs:
            return None
        return (self.refs, self.sentences) == (self.published.refs, self.published.sentences)


@dataclass(frozen=True)
class ReferReport:
    """Result of `check_refer`.

    Attributes:
        splits: counts by split of the file, and by published splits that it lacks.
        images: how many pictures the refs need.
        missing_images: names of those that are not there, all of them.
        missing_annotations: ids of refs whose annotation or image row is not in instances.json.
        repeated_refs: ref ids that occur more than once.
        image_folder: where the pictures were looked for.
        found_split_bys: split makers whose refs file lies in the folder.
    """

    name: str
    split_by: str
    splits: tuple[SplitCount, ...]
    images: int
    missing_images: tuple[str, ...]
    missing_annotations: tuple[int, ...]
    repeated_refs: tuple[int, ...]
    image_folder: Path
    found_split_bys: tuple[str, ...]

    @property
    def recognised(self) -> bool:
        """Whether every split that is there has exactly its published count."""
        return all(s.agrees is not False for s in self.splits) and any(
            s.agrees for s in self.splits
        )

    @property
    def ok(self) -> bool:
        """Whether all that the refs need is on disk, each once. Counts may still be unusual."""
        return not (self.missing_images or self.missing_annotations or self.repeated_refs)

    def table(self, names: int = 5) -> str:
        """The report as text, with at most `names` names of missing pictures."""
        known = "counts as published" if self.recognised else "not a published variant"
        lines = [
            f"{self.name} ({self.split_by}): {known}",
            f"refs files found: {', '.join(self.found_split_bys)}",
            f"{'split':<10} {'refs':>8} {'sentences':>10}   published",
        ]
        for s in self.splits:
            note = "-"
            if s.published is not None:
                sure = "" if s.published.verified else " (recalled, unverified)"
                note = f"{s.published.refs} / {s.published.sentences}{sure}"
                note = "same" + sure if s.agrees else note if s.refs else f"absent; {note}"
            lines.append(f"{s.split:<10} {s.refs:>8} {s.sentences:>10}   {note}")
        lines.append(
            f"pictures: {self.images - len(self.missing_images)} of {self.images} "
            f"in {self.image_folder}"
        )
        for what, missing in (
            ("missing pictures", self.missing_images),
            ("refs without annotation", self.missing_annotations),
            ("refs that occur repeatedly", self.repeated_refs),
        ):
            if missing:
                more = f" and {len(missing) - names} more" if len(missing) > names else ""
                first = ", ".join(str(m) for m in missing[:names])
                lines.append(f"{what} ({len(missing)}): {first}{more}")
        return "\n".join(lines)


def check_refer(
    root: str | os.PathLike[str], name: str, split_by: str | None = None
) -> ReferReport:
    """Counts refs and sentences of a data set in the REFER layout and looks for what is missing.

    Args:
        root, name, split_by: as for `ReferDataset`.

    Raises:
        FileNotFoundError: if the refs or instances file is missing.
        ValueError: if one is damaged, or the name is unknown.
    """
    known, split_by = variant(name, split_by)
    folder, image_folder = Path(root) / name, Path(root) / known.images
    refs = read_refs(folder / f"refs({split_by}).p")
    tables = read_instances(folder / "instances.json")
    file_names = {i.get("id"): str(i.get("file_name")) for i in tables["images"]}
    annotated = {a.get("id") for a in tables["annotations"]}
    needed = {file_names[r["image_id"]] for r in refs if r["image_id"] in file_names}
    lost = [r for r in refs if r["image_id"] not in file_names or r["ann_id"] not in annotated]

    times = Counter(r["ref_id"] for r in refs)

    published = PUBLISHED.get((name, split_by), {})
    in_file = {str(r["split"]) for r in refs}
    counts = []
    for split in sorted(in_file | set(published), key=_order):
        mine = [r for r in refs if in_split(split, r["split"])]
        sentences = sum(len(r["sentences"]) for r in mine)
        counts.append(SplitCount(split, len(mine), sentences, published.get(split)))
    return ReferReport(
        name=name,
        split_by=split_by,
        splits=tuple(counts),
        images=len(needed),
        missing_images=tuple(sorted(n for n in needed if not (image_folder / n).is_file())),
        missing_annotations=tuple(r["ref_id"] for r in lost),
        repeated_refs=tuple(sorted(i for i, n in times.items() if n > 1)),
        image_folder=image_folder,
        found_split_bys=tuple(
            sorted(p.name[5:-3] for p in folder.glob("refs(*).p") if p.is_file())
        ),
    )
