"""Compressed pictures become pixels, by OpenCV, which is not handed what it trusts too much."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

PNG = b"\x89PNG\r\n\x1a\n"


def decode(data: bytes, flags: int) -> npt.NDArray[Any] | None:
    """The pixels of a picture in memory; None if it is no whole one.

    Args:
        data: of a file.
        flags: of ``cv2.imdecode``: its ``IMREAD_`` constants.

    Returns:
        [H, W] or [H, W, channels], colours in OpenCV's order (BGR).
    """
    import cv2

    if not data or (data.startswith(PNG) and not _has_its_chunks(data)):
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _has_its_chunks(data: bytes) -> bool:
    """Whether no chunk of a PNG file says that it ends behind the file's end.

    OpenCV takes the memory for a chunk before it reads it: 4 GB for a damaged file of 200 bytes.
    """
    at = len(PNG)
    while at + 8 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        at += 12 + length  # length, name and checksum around it
        if at > len(data):
            return False
        if name == b"IEND":
            return True
    return True
