"""``vpd tags``: files of tags, made, checked and scored."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vpd.cli.answer import Answer, plain

if TYPE_CHECKING:
    from vpd.tags import TagSet

_SHOWN = 5  # of what is missing, as many as are named
Words = Literal["ade20k", "coco_stuff", "cityscapes", "nyuv2", "tabletop"]


def make(
    out: Path,
    *,
    images: Path | None = None,
    splits: list[str] | None = None,
    names: Path | None = None,
    words: Words | None = None,
    subset: str | None = None,
    templates: Literal["clip80", "single", "bare"] | None = None,
    top: int | None = None,
    threshold: float | None = None,
    model: str = "vpd-mini",
    clip: Path | None = None,
    device: str = "cpu",
    miss: float | None = None,
    false_alarm: float | None = None,
) -> Answer:
    """Tags pictures by CLIP and writes OUT.json, tags and scores by file name.

    Scores are cosines of picture and text. In place of such a file, trainings take what another
    model said in the same form (docs/tags.md). A picture that cannot be read is named and the
    others are done; the exit code is then 1. With miss or false_alarm CLIP is not asked: written
    are Tabletop's true tags with so many errors, those of a seed that is the same every time.

    Args:
        out: file to write, ending in .json
        images: folder of pictures
        splits: instead of images: rendered splits of Tabletop, whose scenes go by their numbers
        names: tags to look for: a text file with one a line, or a TagSet in .json
        words: instead of names: the classes of a data set, or Tabletop's tags
        subset: of a TagSet with subsets: which one
        templates: sentences around a name; by default the TagSet's, else "a photo of a {}."
        top: at most so many tags a picture; 10 by default, all with a threshold
        threshold: cosine that tags exceed
        model: whose CLIP looks at the pictures
        clip: instead of a model: weights of CLIP, both towers in one file
        device: cpu, cuda or cuda:N
        miss: chance that a true tag of Tabletop is not said
        false_alarm: chance that one which is not true is said
    """
    from tqdm import tqdm

    from vpd.cli.models import clip_of, foundation_or_refer
    from vpd.tags import ClipTagger, TabletopTagger, TagSet, write_tags

    if out.suffix != ".json":
        raise ValueError(f"{out}: expected a name ending in .json")
    pictures = _pictures(images, splits)
    tagger: ClipTagger | TabletopTagger
    if miss is None and false_alarm is None:
        known = _tag_set(names, words)
        if subset is not None:
            known = known.subset(subset)
        if templates is not None:
            known = TagSet(known.entries, templates_=templates)
        if top is None and threshold is None:
            top = 10
        network = None if clip else foundation_or_refer(model, None, device, "float32")
        judge = clip_of(network, model, clip, device)
        tagger = ClipTagger(judge, known, top=top, threshold=threshold)
    elif {names, words, subset, templates, top, threshold, clip} != {None}:
        raise ValueError(
            "miss and false_alarm are those of Tabletop's true tags: leave out names, words, "
            "subset, templates, top, threshold and clip, which are for CLIP's"
        )
    else:
        tagger = TabletopTagger(miss=miss or 0.0, false_alarm=false_alarm or 0.0)
    found, failed = {}, []
    for name, picture in tqdm(pictures, unit="image", disable=not sys.stderr.isatty()):
        try:
            found[name] = tagger.tags(picture)
        except (ValueError, OSError) as error:
            failed.append({"image": name, "error": " ".join(str(error).split())})
    write_tags(out, found)
    known = tagger.tag_set
    data = {"path": str(out), "pictures": len(found), "tags": len(known), "failed": failed}
    said = [f"{len(found)} pictures, {len(known)} tags to choose from -> {out}"]
    said += [f"failed: {row['error']}" for row in failed]
    return Answer(data, "\n".join(said), code=1 if failed else 0)


def check(
    tags: Path, *, images: Path | None = None, names: Path | None = None, words: Words | None = None
) -> Answer:
    """Counts what a file of tags holds, names pictures without an entry and words that are no tags.

    The exit code is 1 if a picture has no entry.

    Args:
        tags: file of tags
        images: folder of pictures that it should cover
        names: tags that it may use: a text file with one a line, or a TagSet in .json
        words: instead of names: the classes of a data set, or Tabletop's tags
    """
    from vpd.images import list_images
    from vpd.tags import CachedTagger

    tagger = CachedTagger(tags)
    rows = list(tagger.table.values())
    data: dict[str, Any] = {
        "path": str(tags),
        "pictures": len(rows),
        "words": len(tagger.names),
        "without_tags": sum(not row for row in rows),
        "most_tags": max(map(len, rows), default=0),
        "mean_tags": sum(map(len, rows)) / max(len(rows), 1),
    }
    said = [
        f"{tags}: {data['pictures']} pictures, {data['words']} words, {data['mean_tags']:.1f} tags "
        f"a picture (at most {data['most_tags']}, {data['without_tags']} without any)"
    ]
    if names is not None or words is not None:
        unknown = _tag_set(names, words).unknown(tagger.names)
        data["unknown"] = unknown
        said += _listed("words that are no tags", unknown)
    missing = []
    if images is not None:
        missing = [str(p) for p in list_images(images) if tagger.table.find(str(p)) is None]
        data["missing"] = missing
        said += _listed("pictures without an entry", missing)
    return Answer(data, "\n".join(said), code=1 if missing else 0)


def score(
    tags: Path,
    *,
    data: Literal["tabletop", "ade20k", "coco-stuff", "cityscapes"] = "tabletop",
    root: Path | None = None,
    split: str = "val",
    limit: int | None = None,
    threshold: float | None = None,
    per_class: bool = False,
    figure: Path | None = None,
) -> Answer:
    """Scores a file of tags against the true ones: mAP, precision, recall and F1, recall@k, beside
    the same with the tags of other pictures (floor/...).

    Tags that a file does not name rank behind all that it does. True are the classes in a picture's
    label map; of Tabletop the true tags of the scene whose number a file name ends in.

    Args:
        tags: file of tags
        data: where the truth comes from
        root: folder of the data set; Tabletop needs none
        split: of a data set on disk
        limit: only the first so many pictures
        threshold: score that counts as said; by default whatever is in the file
        per_class: also AP of each tag
        figure: also draw precision against recall into this .png
    """
    from vpd.cli.pictures import draw_tag_curves
    from vpd.metrics import TagMetrics
    from vpd.tags import CachedTagger

    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    tagger = CachedTagger(tags)
    known, truth = _truth(tagger.table, data, root, split)
    scores = [value for row in tagger.table.values() for _, value in row]
    unsaid = min([0.0, *scores]) - 1
    least = (unsaid + min(scores, default=0.0)) / 2 if threshold is None else threshold
    metrics = TagMetrics(len(known), threshold=least, names=known.names)
    for count, (picture, true) in enumerate(truth):
        if count == limit:
            break
        said = [(word, value - unsaid) for word, value in tagger.tags(picture)]
        metrics.update(known.scores([said]) + unsaid, known.targets([true]))
    found, floor = metrics.compute(per_class=per_class), metrics.shuffled().compute()
    found |= {f"floor/{name}": floor[name] for name in ("mAP", "OF1")}
    drawn = draw_tag_curves(metrics, figure) if figure is not None else None
    lines = [f"{tags} on {data}, {len(known)} tags"]
    lines += [f"  {name:<16} {value:8.2f}" for name, value in found.items() if name != "n"]
    lines += [f"  {'pictures':<16} {found['n']:5.0f}"] + ([f"  -> {drawn}"] if drawn else [])
    protocol = {"tags": str(tags), "data": data, "split": split, **metrics.protocol()}
    return Answer(plain({"metrics": found, "protocol": protocol}), "\n".join(lines))


def _tag_set(names: Path | None, words: Words | None) -> TagSet:
    from vpd.data.naming import class_names
    from vpd.tags import TagSet

    if (names is None) == (words is None):
        raise ValueError("give either names, a file, or words, a data set's name")
    if names is not None:
        return TagSet.read(names)
    if words == "tabletop":
        from vpd.data import tabletop

        return TagSet(tabletop.TAGS)
    return TagSet(class_names(str(words)))


def _pictures(images: Path | None, splits: list[str] | None) -> list[tuple[str, Any]]:
    """Names and pictures."""
    if (images is None) == (splits is None):
        raise ValueError("give either images, a folder, or splits, of Tabletop")
    if images is not None:
        from vpd.images import list_images

        return [(path.name, path) for path in list_images(images)]
    from vpd.data.dense import dense_samples

    samples = (dense_samples("semantic", "tabletop", split) for split in splits or ())
    return [(sample.id, sample) for scenes in samples for sample in scenes]


def _truth(
    pictures: Any, data: str, root: Path | None, split: str
) -> tuple[TagSet, Iterator[tuple[Any, Sequence[str]]]]:
    """The tags that there are, and each picture with its own."""
    from vpd.tags import TabletopTagger, TagSet

    if data == "tabletop":
        if root is not None:
            raise ValueError(
                "root is for data sets on disk: Tabletop's tags are those of its scenes"
            )
        true = TabletopTagger()
        return true.tag_set, ((name, true.truth(name)) for name in pictures)
    import numpy as np

    from vpd.data.dense import dense_samples

    samples = dense_samples("semantic", data, split, root=root)  # type: ignore[arg-type]
    known = TagSet(samples.names)

    def labelled() -> Iterator[tuple[Any, Sequence[str]]]:
        for sample in samples:
            ids = np.unique(sample.read_label())
            yield sample, [known.names[i] for i in ids if i < len(known)]

    return known, labelled()


def _listed(what: str, found: Sequence[str]) -> list[str]:
    if not found:
        return [f"no {what}"]
    more = ", ..." if len(found) > _SHOWN else ""
    return [f"{len(found)} {what}: {', '.join(found[:_SHOWN])}{more}"]
