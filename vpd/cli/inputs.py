"""What `vpd predict` is given: an image, a folder of them, or a video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Source", "count", "sources"]

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


@dataclass(frozen=True)
class Source:
    """One picture to predict."""

    where: str
    """The file, and of a video the frame."""
    name: str
    """Of its results."""
    image: Any
    """What a task model takes: a path, or uint8 [H, W, 3]."""


def sources(path: Path, own: tuple[str, ...], every: int = 1) -> Iterator[Source]:
    """The pictures of an image file, a folder or a video, one after another.

    Args:
        path: The file or folder.
        own: Endings of results; such files in a folder are no pictures.
        every: Of a video: every so manyth frame.

    Raises:
        OSError: It cannot be opened.
        ValueError: No picture in the folder, or a video that cannot be decoded.
    """
    if path.suffix.lower() in VIDEOS and not path.is_dir():
        yield from _frames(path, every)
        return
    paths = _images(path, own) if path.is_dir() else [path]
    for one, name in zip(paths, _names(paths), strict=True):
        yield Source(str(one), name, one)


def count(path: Path, own: tuple[str, ...], every: int = 1) -> int | None:
    """How many there are, as far as it is known beforehand; raises as :func:`sources`."""
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    if path.is_dir():
        return len(_images(path, own))
    if path.suffix.lower() not in VIDEOS:
        return 1
    import cv2

    capture = cv2.VideoCapture(str(path))
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    return -(-frames // every) if frames > 0 else None


def _images(path: Path, own: tuple[str, ...]) -> list[Path]:
    from vpd.images import list_images

    # A second run on a folder that results were written to does not take them for images.
    images = [file for file in list_images(path) if not file.name.endswith(own)]
    if not images:
        raise ValueError(f"{path}: expected at least one image, got only results of vpd")
    return images


def _names(paths: list[Path]) -> list[str]:
    """The stem of each file; its full name where several share a stem."""
    stems = [path.stem for path in paths]
    return [p.stem if stems.count(p.stem) == 1 else p.name for p in paths]


def _frames(path: Path, every: int) -> Iterator[Source]:
    import cv2

    if not path.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    capture = cv2.VideoCapture(str(path))
    number = 0
    try:
        while capture.isOpened() and capture.grab():
            if number % every == 0:
                there, frame = capture.retrieve()
                if not there:
                    raise ValueError(f"{path}: frame {number} cannot be decoded")
                image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                yield Source(f"{path} frame {number}", f"{path.stem}.{number:06d}", image)
            number += 1
    finally:
        capture.release()
    if number == 0:
        raise ValueError(f"{path}: expected a video, got a file without a frame that can be read")
