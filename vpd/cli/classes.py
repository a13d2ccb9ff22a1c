"""``vpd classes build``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vpd.cli.answer import Answer


def build(
    out: Path,
    *,
    names: Path | None = None,
    data: Literal["ade20k", "coco_stuff", "cityscapes", "nyuv2", "tabletop"] | None = None,
    templates: Literal["clip80", "single", "bare"] = "clip80",
    template_file: Path | None = None,
    model: str = "vpd-mini",
    weights: list[Path] | None = None,
) -> Answer:
    """Makes embeddings of class names, OUT.safetensors with OUT.json beside it.

    Each is the text encoder's pooled state, averaged over the templates. Of several synonyms in a
    line, "sofa; couch", the mean is taken.

    Args:
        out: file to write, ending in .safetensors
        names: text file with one class a line
        data: instead of names: the classes of a data set
        templates: sentences around a name: CLIP's 80, "a photo of a {}." or the name alone
        template_file: instead of templates: text file with one sentence a line, {} for the name
        model: whose text encoder reads them
        weights: instead of a model: Stable Diffusion v1 (one file or a diffusers folder)
    """
    from vpd.data.naming import class_names, read_names
    from vpd.tasks.class_texts import ClassTexts, embed_classes
    from vpd.tasks.class_texts import templates as sentences
    from vpd.train.caching.row_store import digest

    if (names is None) == (data is None):
        raise ValueError("give either names, a text file, or data, a data set's name")
    if names is not None:
        known = read_names(names)
    elif data == "tabletop":
        from vpd.data.tabletop.spec import CLASSES

        known = tuple(CLASSES)
    else:
        known = class_names(str(data))
    if template_file is not None:
        said = sentences(template_file.read_text().splitlines())
    else:
        said = sentences(templates)
    text = _encoder(model, weights)
    found = ClassTexts(known, embed_classes(text, known, said), said, digest(text))
    path = found.save(out)
    rows, width = found.embeddings.shape
    data_ = {
        "path": str(path),
        "names": list(known),
        "templates": len(said),
        "encoder": found.encoder,
        "shape": [rows, width],
    }
    summary = f"{rows} classes x {width} channels, mean over {len(said)} templates -> {path}"
    return Answer(data_, summary)


def _encoder(model: str, weights: list[Path] | None):  # type: ignore[no-untyped-def]
    from vpd.tasks import sources, store

    if weights:
        return sources.build_foundation(weights).text
    return store.load_foundation(model).text
