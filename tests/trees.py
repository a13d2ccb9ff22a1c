"""Small synthetic trees in the official layouts."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

SIZE = (12, 16)


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    return path


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Smooth, so that JPEG changes it little."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    channels = [rows * 4 + seed, columns * 4 + seed, rows + columns + 50]
    return np.stack(channels, -1).astype(np.uint8)


def ade(root: Path, labels: dict[str, list[np.ndarray]], ending: str = ".jpg") -> Path:
    """Labels as stored, by folder ("training", "validation")."""
    base = root / "ADEChallengeData2016"
    for folder, stored in labels.items():
        for i, label in enumerate(stored, start=1):
            name = f"ADE_{folder[:5]}_{i:08d}"
            write(base / "images" / folder / f"{name}{ending}", picture(i, label.shape))
            write(base / "annotations" / folder / f"{name}.png", label)
    return base


def coco(root: Path, stored: list[np.ndarray], ending: str) -> Path:
    for i, label in enumerate(stored):
        write(root / "images" / "val2017" / f"{i:012d}.jpg", picture(i, label.shape))
        write(root / "annotations" / "val2017" / f"{i:012d}{ending}", label)
    return root


def cityscapes(root: Path, stored: list[np.ndarray], ending: str) -> Path:
    for i, label in enumerate(stored):
        name = f"ulm_{i:06d}_000019"
        write(root / f"leftImg8bit/train/ulm/{name}_leftImg8bit.png", picture(i, label.shape))
        write(root / f"gtFine/train/ulm/{name}_gtFine_{ending}.png", label)
        (root / f"gtFine/train/ulm/{name}_gtFine_polygons.json").write_text("{}")
        write(root / f"gtFine/train/ulm/{name}_gtFine_color.png", picture(i, label.shape))
    return root


def depth_mm(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    found = np.random.default_rng(seed).integers(500, 10_000, size).astype(np.uint16)
    found[0, :3] = 0  # not measured
    return found


def nyu(folder: Path, frames: dict[str, int], ending: str = ".jpg") -> None:
    """Frames "scene/00045" with the seeds of their depths."""
    for frame, seed in frames.items():
        scene, number = frame.split("/")
        write(folder / scene / f"rgb_{number}{ending}", picture(seed))
        write(folder / scene / f"sync_depth_{number}.png", depth_mm(seed))


def colored(ids: np.ndarray) -> np.ndarray:
    """Segment ids as COCO's panoptic pictures have them."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def coco_panoptic(
    root: Path,
    maps: list[np.ndarray],
    segments: list[list[tuple[int, int, int]]],
    categories: list[tuple[int, str, int]],
    split: str = "val2017",
) -> Path:
    """Segments (id, category, crowd) of each map; categories (id, name, isthing)."""
    base = root / "coco"
    images, annotations = [], []
    for i, (ids, own) in enumerate(zip(maps, segments, strict=True)):
        name = f"{i:012d}"
        write(base / split / f"{name}.jpg", picture(i, ids.shape))
        write(base / f"panoptic_{split}" / f"{name}.png", colored(ids))
        height, width = ids.shape
        images.append({"id": i, "file_name": f"{name}.jpg", "height": height, "width": width})
        info = [{"id": s, "category_id": c, "iscrowd": crowd} for s, c, crowd in own]
        annotations.append({"image_id": i, "file_name": f"{name}.png", "segments_info": info})
    tables = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name, "isthing": t} for i, name, t in categories],
    }
    path = base / "annotations" / f"panoptic_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tables))
    return path
