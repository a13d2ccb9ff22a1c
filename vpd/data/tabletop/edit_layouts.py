"""Writes Tabletop's edited pairs in InstructPix2Pix's layout, so that its reader reads them too.

A folder for each split, `<root>/tabletop-ip2p/val` and so on, of which the reader's split is
"all". The work can be killed and repeated: finished pairs stay.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from vpd.data.edit_files import NewPair, is_finished, write_entry, write_seeds
from vpd.data.files import atomic_write
from vpd.data.tabletop.edits import edits
from vpd.data.tabletop.picture_layouts import USUAL_SPLITS, labelled_sizes, written_sizes
from vpd.data.tabletop.spec import VERSION
from vpd.data.tabletop.splits import load_split

__all__ = ["TREES", "write_ip2p"]

TREES = "tabletop-ip2p"


def write_ip2p(
    root: str | os.PathLike[str],
    splits: Iterable[str] = USUAL_SPLITS,
    counts: Mapping[str, int] | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Writes one edited pair of each scene below `<root>/tabletop-ip2p`; arguments as
    `vpd.data.tabletop.picture_layouts.write_ade20k`.

    JPEG of quality 100 moves values by about one step; `vpd.data.tabletop.edits` has exact ones,
    and the region of each edit.
    """
    from tqdm.auto import tqdm

    base = Path(root) / TREES
    note = base / "tabletop.json"
    sizes = labelled_sizes(splits, counts)
    before = written_sizes(note, lambda found: found)
    for name, size in sizes.items():
        size = max(size, before.get(name, 0))
        split = load_split(name, cache_dir, workers, limit=size, progress=progress)
        pairs = edits(split)
        folder = base / name
        for i in tqdm(range(len(pairs)), desc=f"writing {name}", disable=not progress):
            if is_finished(folder, i):
                continue
            pair = pairs.pair(i)
            new = NewPair(pairs.scene_seed(i), pair.before, pair.after)
            write_entry(folder, i, pair.triplet, [new])
        write_seeds(folder)
        before[name] = size
    with atomic_write(note) as file:
        file.write(
            json.dumps({"version": VERSION, "splits": dict(sorted(before.items()))}).encode()
        )
