"""``vpd evaluate edit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vpd.cli.answer import Answer, plain
from vpd.cli.models import DType
from vpd.diffusion.sampler import Method

if TYPE_CHECKING:
    from vpd.models.clip import CLIP
    from vpd.tasks.edit_samples import EditPairs
    from vpd.tasks.editor import Editor

_COUNTS = {"tabletop": 200, "ip2p": 5000}  # pictures by default


def evaluate(
    *,
    model: str = "vpd-mini-edit",
    data: Literal["tabletop", "ip2p"] = "tabletop",
    root: Path | None = None,
    split: str = "val",
    limit: int | None = None,
    text_guidance: list[float] | None = None,
    image_guidance: list[float] = [1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2],  # noqa: B006 - not changed
    sdedit: list[float] | None = None,
    foundation: str = "vpd-mini",
    clip: Path | None = None,
    steps: int = 100,
    sampler: Method = "euler_ancestral",
    resolution: int | None = None,
    seed: int = 0,
    grid: int = 0,
    batch: int = 8,
    out: Path = Path("vpd-out"),
    device: str = "cpu",
    dtype: DType = "float32",
) -> Answer:
    """Scores an editor under every pair of guidances: how well edits follow their texts and how
    near they stay to their pictures, by CLIP; on Tabletop, whose true edited pictures are rendered,
    also the error inside and outside of the edited object.

    Can be interrupted and repeated: rows in OUT/edits.jsonl are not computed again. Draws the
    trade-off as OUT/edits.png.

    Args:
        model: a shipped editor, or a folder that vpd train edit wrote
        data: tabletop is rendered; ip2p is a folder of edited pairs in InstructPix2Pix's layout
        root: folder that holds the pairs of ip2p, with its seeds.json
        split: of tabletop train, train-10k, val or test; of ip2p train, val, test or all
        limit: number of pictures, drawn by seed; 200 of tabletop, 5000 of ip2p by default
        text_guidance: how closely instructions are followed, one or several; the model's own by
            default
        image_guidance: how close to their pictures edits stay, one or several
        sdedit: also draw the edited captions over the pictures by SDEdit, at each of these
            strengths between 0 and 1, e.g. 0.3,0.5,0.7
        foundation: the text-to-image model for that
        clip: file with both towers of CLIP ViT-L/14; by default the foundation's own CLIP on
            tabletop, and no similarities on ip2p
        steps: of the sampler
        sampler: its method
        resolution: about the longer side of edited pictures; the model's own by default
        seed: of the choice of pictures and of the noise
        grid: draw the grid of guidances of so many pictures, OUT/grid-N.png
        batch: pictures that go through the networks together
        out: folder for the results, made if missing
        device: cpu, cuda or cuda:N
        dtype: precision of the networks
    """
    from vpd.cli.models import editor_model, foundation_or_refer
    from vpd.tasks.edit_samples import chosen
    from vpd.tasks.evaluate_edit import edit_table, evaluate_edit, sweep_settings
    from vpd.tasks.foundation import Foundation
    from vpd.viz.edit_sweep import tradeoff_figure

    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    pairs = _pairs(data, root, split)
    editor = editor_model(model, device, dtype)
    texts = text_guidance or [editor.config.text_guidance]
    painter: Any = foundation_or_refer(foundation, None, device, dtype) if sdedit else None
    if painter is not None and not isinstance(painter, Foundation):
        raise ValueError(f"foundation: expected one, got {foundation}: a {type(painter).__name__}")
    known, name = _clip(clip, foundation if data == "tabletop" else None)
    rows = evaluate_edit(
        editor,
        pairs,
        sweep_settings(texts, image_guidance, sdedit or ()),
        samples=limit or _COUNTS[data],
        steps=steps,
        sampler=sampler,
        resolution=resolution,
        seed=seed,
        clip=None if known is None else known.to(editor.device),
        foundation=painter,
        names={"model": model, "clip": name or "", "data": data},
        batch=batch,
        out=out / "edits.jsonl",
    )
    files = [out / "edits.jsonl"]
    if known is not None:
        files.append(tradeoff_figure(rows).save(out / "edits.png"))
    for place in chosen(pairs, grid, seed):
        path = out / f"grid-{place}.png"
        files.append(_grid(editor, pairs, place, texts, image_guidance, steps, path))
    lines = [f"{model} on {rows[0]['num_samples']} edits of {data} {split}, {steps} steps"]
    lines += [edit_table(rows).rstrip("\n"), *(f"wrote {path}" for path in files)]
    return Answer(plain({"rows": rows, "files": files}), "\n".join(lines))


def _pairs(data: str, root: Path | None, split: Any) -> EditPairs:
    if data == "ip2p":
        from vpd.data.edit import EditDataset

        if root is None:
            raise ValueError("ip2p is read from disk: give its folder with --root")
        return EditDataset(root, split)
    if root is not None:
        raise ValueError("tabletop is rendered here; written with --layout ip2p it is --data ip2p")
    from vpd.data import tabletop

    if split not in tabletop.SPLITS:
        raise ValueError(f"split must be one of {', '.join(tabletop.SPLITS)}, got {split!r}")
    return tabletop.edits(tabletop.load_split(split))


def _clip(path: Path | None, foundation: str | None) -> tuple[CLIP | None, str | None]:
    """A CLIP and what it is called."""
    if path is not None:
        from vpd.tags.clip import read_clip

        return read_clip(path), str(path)
    if foundation is None:
        return None, None
    from vpd.tasks import store

    found = store.load_foundation(foundation).clip
    return found, None if found is None else foundation


def _grid(
    editor: Editor,
    pairs: EditPairs,
    place: int,
    texts: list[float],
    images: list[float],
    steps: int,
    path: Path,
) -> Path:
    from vpd.viz.edit_sweep import guidance_grid

    pair = pairs.pair(place)
    results = [
        editor.edit(
            pair.before, pair.triplet.edit, steps=steps, text_guidance=text, image_guidance=image,
            seed=place,
        )
        for text in texts
        for image in images
    ]  # fmt: skip
    return Path(guidance_grid(results).save(path))
