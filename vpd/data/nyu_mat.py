"""Extracts the official NYU Depth v2 download into the tree that `vpd.data.nyuv2` reads."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpd.data.files import write_jpeg, write_png
from vpd.data.mat import read_numbers

_SIZE = (480, 640)
# The colour camera's picture has a white frame after undistortion; inside it these are picture.
_ROWS, _COLUMNS = slice(7, 474), slice(7, 632)


def extract_nyu_mat(
    mat: str | os.PathLike[str],
    splits: str | os.PathLike[str],
    root: str | os.PathLike[str],
    *,
    progress: bool = True,
) -> dict[str, int]:
    """Writes `<root>/nyu_depth_v2/official_splits/{train,test}/<scene type>/...`.

    As BTS and VPD have it: file numbers count from 0 in the order of the file, depth is the raw one
    in whole millimetres (cut, not rounded), pictures are black outside rows 7-473 and columns
    7-631. Files that are there are kept, so the work can be killed and repeated.

    Args:
        mat: nyu_depth_v2_labeled.mat (HDF5).
        splits: splits.mat with the official 795 + 654 numbers.
        root: any folder; made if it is missing.

    Returns:
        How many pictures each split has.

    Raises:
        ImportError: without h5py, which comes with `vpd[nyu]`.
        OSError: if a file cannot be opened.
        ValueError: if one of them is not what its name says.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"extracting NYUv2 needs h5py, but {error}: pip install 'vpd[nyu]'"
        ) from error
    from tqdm.auto import tqdm

    numbers = _read_splits(Path(splits))
    with _open(Path(mat), h5py) as file:
        images, depths, scenes = _tables(Path(mat), file, h5py)
        last = max(int(n.max()) for n in numbers.values())
        if last > len(scenes):
            raise ValueError(
                f"{splits}: expected numbers of the {len(scenes)} pictures of {mat}, got {last}"
            )
        split_of = {int(n) - 1: split for split, found in numbers.items() for n in found}
        base = Path(root) / "nyu_depth_v2" / "official_splits"
        for i in tqdm(sorted(split_of), desc="extracting NYUv2", disable=not progress):
            folder = base / split_of[i] / scenes[i]
            depth, picture = folder / f"sync_depth_{i:05d}.png", folder / f"rgb_{i:05d}.jpg"
            try:
                if not depth.exists():
                    write_png(depth, _millimetres(depths[i]))
                if not picture.exists():
                    write_jpeg(picture, _framed(images[i]))
            except OSError as error:
                if error.errno is not None:  # of the file system, not of HDF5
                    raise
                raise ValueError(f"{mat}: picture {i + 1} cannot be read: {error}") from error
    return {split: len(found) for split, found in numbers.items()}


def _millimetres(raw_m: NDArray[Any]) -> NDArray[np.uint16]:
    """uint16 [480, 640] of float32 metres, stored column by column."""
    millimetres = raw_m.T.astype(np.float32) * np.float32(1000)
    return np.where(np.isfinite(millimetres), millimetres, 0).clip(0, 65535).astype(np.uint16)


def _framed(stored: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 [480, 640, 3], RGB, of [3, 640, 480], black where the white frame was."""
    picture = np.zeros((*_SIZE, 3), np.uint8)
    picture[_ROWS, _COLUMNS] = stored.transpose(2, 1, 0)[_ROWS, _COLUMNS]
    return picture


def _read_splits(path: Path) -> dict[str, NDArray[np.int64]]:
    tables = read_numbers(path, ("trainNdxs", "testNdxs"))
    numbers = {"train": tables["trainNdxs"], "test": tables["testNdxs"]}
    both = np.concatenate(list(numbers.values()))
    if not all(map(len, numbers.values())) or both.min() < 1 or len(np.unique(both)) < len(both):
        raise ValueError(f"{path}: expected numbers from 1, each in one split, got others")
    return numbers


def _open(path: Path, h5py: Any) -> Any:
    path.open("rb").close()
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"{path}: expected nyu_depth_v2_labeled.mat, an HDF5 file, but {error}"
        ) from error


def _tables(path: Path, file: Any, h5py: Any) -> tuple[Any, Any, list[str]]:
    """Images [N, 3, 640, 480] and raw depths [N, 640, 480], not read yet, and scene types."""
    try:
        images, depths, references = file["images"], file["rawDepths"], file["sceneTypes"]
        scenes = [_text(file[r]) for r in np.asarray(references).ravel()]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"{path}: expected images, rawDepths and sceneTypes of NYUv2, but {error!r}"
        ) from error
    width = (_SIZE[1], _SIZE[0])
    wanted = (len(scenes), 3, *width), (len(scenes), *width)
    if (images.shape, depths.shape) != wanted or images.dtype != np.uint8:
        raise ValueError(
            f"{path}: expected images {wanted[0]} of uint8 and rawDepths {wanted[1]}, "
            f"got {images.shape} of {images.dtype} and {depths.shape}"
        )
    return images, depths, scenes


def _text(characters: Any) -> str:
    """A MATLAB string that may become the name of a folder."""
    text = "".join(chr(int(c)) for c in np.asarray(characters).ravel())
    if not text.replace("_", "").isalnum() or not text.isascii():
        raise ValueError(f"scene type {text!r:.80} is no plain name")
    return text
