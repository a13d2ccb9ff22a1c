"""The splits of Tabletop, rendered once into a cache and then memory-mapped.

`pretrain` has captions only; labels may be read from the others. Seeds never overlap, and a longer
`pretrain` begins with the scenes of a shorter one.
"""

import functools
import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpd.data.subset import Subset
from vpd.data.tabletop.chunks import CHUNK, chunk_path, is_finished, render_chunks
from vpd.data.tabletop.expressions import Expression, expressions
from vpd.data.tabletop.render import SceneObject
from vpd.data.tabletop.sampling import sample_scene
from vpd.data.tabletop.spec import VERSION, SceneSpec


@dataclass(frozen=True)
class SplitInfo:
    """Seeds first_seed .. first_seed + capacity - 1 belong to the split; `count` is its size."""

    first_seed: int
    count: int
    capacity: int
    per_kind: int  # referring sentences of each kind per scene


SPLITS = {
    "train": SplitInfo(1_000_000, 1_000, 1_000, per_kind=2),
    "train-10k": SplitInfo(2_000_000, 10_000, 10_000, per_kind=2),
    "val": SplitInfo(3_000_000, 500, 500, per_kind=1),
    "test": SplitInfo(4_000_000, 500, 500, per_kind=1),
    "pretrain": SplitInfo(10_000_000, 24_000, 1_000_000, per_kind=2),
}


class ChunkedArray:
    """One array over memory-mapped chunks: `len`, integers, slices and integer arrays.

    A slice or an array of indices gives a fresh array; an integer gives a view.
    """

    def __init__(self, paths: Sequence[Path], length: int):
        self._chunks = [_open_chunk(path) for path in paths]
        expected = (CHUNK, *self._chunks[0].shape[1:])
        for path, chunk in zip(paths, self._chunks, strict=True):
            if chunk.shape != expected:
                raise ValueError(f"{path} must hold shape {expected}, got {chunk.shape}; delete it")
        self.shape: tuple[int, ...] = (length, *expected[1:])
        self.dtype = self._chunks[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        if isinstance(index, (int, np.integer)):
            i = range(len(self))[index]  # also counts from the end and checks the bounds
            return self._chunks[i // CHUNK][i % CHUNK]
        if isinstance(index, slice):
            index = np.arange(len(self))[index]
        rows = np.asarray(index)
        if rows.size and not np.issubdtype(rows.dtype, np.integer):
            raise TypeError(f"index must be integers or a slice, got an array of {rows.dtype}")
        if rows.size and (rows.min() < -len(self) or rows.max() >= len(self)):
            raise IndexError(f"index must be below {len(self)}, got {rows.min()}..{rows.max()}")
        rows = rows.astype(np.int64) % max(len(self), 1)
        out = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        for number in np.unique(rows // CHUNK):
            here = rows // CHUNK == number
            out[here] = self._chunks[number][rows[here] % CHUNK]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a chunked array cannot become one array without a copy")
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)


def _open_chunk(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it") from error


@dataclass(frozen=True, eq=False)
class SplitScene:
    """One scene of a split: what it holds, without its pictures."""

    spec: SceneSpec
    objects: tuple[SceneObject, ...]


class TabletopSplit:
    """The rendered scenes of a split.

    Attributes:
        name: the split.
        seeds: seed of every scene.
        images: uint8 [N, 128, 128, 3], RGB.
        instances: uint8 [N, 128, 128]; 0 = background, k = `scene(i).objects[k - 1]`.
        depths_mm: uint16 [N, 128, 128] in millimetres, or None if not asked for.
    """

    def __init__(self, name: str, folder: Path, count: int, depth: bool):
        self.name = name
        self.folder = folder
        self.seeds = range(SPLITS[name].first_seed, SPLITS[name].first_seed + count)
        numbers = range(-(-count // CHUNK))
        paths = {a: [chunk_path(folder, a, n) for n in numbers] for a in _arrays(depth)}
        self.images = ChunkedArray(paths["images"], count)
        self.instances = ChunkedArray(paths["instances"], count)
        self.depths_mm = ChunkedArray(paths["depths_mm"], count) if depth else None
        self._rows = functools.lru_cache(maxsize=None)(self._read_rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return TabletopSplit, (self.name, self.folder, len(self), self.depths_mm is not None)

    def __len__(self) -> int:
        return len(self.seeds)

    def __iter__(self) -> Iterator[SplitScene]:
        return (self.scene(i) for i in range(len(self)))

    def scene(self, index: int) -> SplitScene:
        """The objects of a scene, as captions, expressions, tags and floors want them."""
        i = range(len(self))[index]
        spec = sample_scene(self.seeds[i])
        seen = self._rows(i // CHUNK)[i % CHUNK]
        objects = (SceneObject(o, *row) for o, row in zip(spec.objects, seen, strict=True))
        return SplitScene(spec, tuple(objects))

    def _read_rows(self, number: int) -> list[list[list[Any]]]:
        return json.loads(chunk_path(self.folder, "objects", number).read_bytes())


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where rendered scenes are kept: `cache_dir`, else $VPD_CACHE, else ~/.cache/vpd."""
    root = cache_dir or os.environ.get("VPD_CACHE") or Path.home() / ".cache" / "vpd"
    return Path(root) / f"tabletop-{VERSION}"


def cache_beside(cache_dir: str | os.PathLike[str] | None, kind: str) -> Path:
    """The folder of another kind of cache, beside that of the renderings."""
    return cache_folder(cache_dir).parent / kind


def load_split(
    name: str,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    limit: int | None = None,
    *,
    depth: bool = False,
    progress: bool = True,
) -> TabletopSplit:
    """The scenes of a split; what is not in the cache yet is rendered first.

    Rendering may be killed at any time: finished chunks of 100 scenes stay.

    Args:
        name: one of SPLITS.
        cache_dir: see `cache_folder`.
        workers: rendering processes; default: one per core this process may use.
        limit: only the first `limit` scenes. `pretrain` may go beyond its usual 24,000.
        depth: whether depth is wanted too (another 32 kB a scene).
        progress: whether to show a bar while rendering.

    Raises:
        ValueError: on an unknown split, or a limit outside 1 .. the split's capacity.
    """
    if name not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {name!r}")
    info = SPLITS[name]
    count = info.count if limit is None else limit
    if not 1 <= count <= info.capacity:
        raise ValueError(f"limit of {name} must be within 1..{info.capacity}, got {limit}")
    folder = cache_folder(cache_dir) / name
    arrays = _arrays(depth)
    missing = [n for n in range(-(-count // CHUNK)) if not is_finished(folder, n, arrays)]
    if missing:
        from tqdm.auto import tqdm

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        with tqdm(
            total=len(missing) * CHUNK,
            desc=f"rendering {name}",
            unit="scene",
            disable=not progress,
        ) as bar:
            render_chunks(
                folder,
                info.first_seed,
                missing,
                arrays,
                workers or cores or 1,
                lambda: bar.update(CHUNK),
            )
    return TabletopSplit(name, folder, count, depth)


def _arrays(depth: bool) -> tuple[str, ...]:
    return ("images", "instances", *(("depths_mm",) if depth else ()))


def expressions_for(split: TabletopSplit, subset: Subset | None = None) -> list[list[Expression]]:
    """The referring sentences of each scene: 1 per kind for val and test, 2 for the others.

    They depend on the scene's seed alone, so a part of a split has the same ones as the whole.

    Args:
        subset: Only the first ones, in the order of the files that `write_refer` writes.
    """
    per_kind = SPLITS[split.name].per_kind
    found = [
        expressions(scene, random.Random(7 * scene.spec.seed + 11), per_kind) for scene in split
    ]
    return found if subset is None else _first(found, subset)


def _first(scenes: list[list[Expression]], subset: Subset) -> list[list[Expression]]:
    objects = [
        [e for e in spoken if e.target == target]
        for spoken in scenes
        for target in sorted({e.target for e in spoken})
    ]
    counts = subset.kept(len(spoken) for spoken in objects)
    kept = {id(e) for spoken, count in zip(objects, counts, strict=False) for e in spoken[:count]}
    return [[e for e in spoken if id(e) in kept] for spoken in scenes]
