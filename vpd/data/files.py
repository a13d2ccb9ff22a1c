"""Files that are either complete or not there."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vpd.decoding import decode

_UMASK = os.umask(0)  # can only be read by setting it: once, before any thread starts
os.umask(_UMASK)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path` that takes its place when the block succeeds.

    Missing folders are made. When the block raises, `path` is left as it was.

    Raises:
        OSError: if the file cannot be written; names `path`.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(name, 0o666 & ~_UMASK)  # mkstemp makes files private
        os.replace(name, target)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, name):
            error.filename = str(target)  # "No space left on device" alone does not say where
        raise


def write_texts(folder: str | os.PathLike[str], texts: Mapping[str, str]) -> list[Path]:
    """Writes texts by file name; returns their paths."""
    paths = [Path(folder) / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        with atomic_write(path) as file:
            file.write(text.encode())
    return paths


def json_lines(records: Iterable[object]) -> str:
    """One JSON value a line."""
    return "".join(json.dumps(record) + "\n" for record in records)


def parse_json(data: bytes | str, where: object) -> Any:
    """The value of a JSON text.

    Args:
        where: the file, for messages.

    Raises:
        ValueError: if it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: expected JSON, but {error}") from error


def write_png(path: str | os.PathLike[str], image: NDArray[Any]) -> None:
    """Writes an RGB image, uint8 [H, W, 3], or one channel, uint8 or uint16 [H, W], as PNG.

    Raises:
        ValueError: if it is neither.
    """
    if not (
        (image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8)
        or (image.ndim == 2 and image.dtype in (np.uint8, np.uint16))
    ):
        raise ValueError(
            f"{path}: image must be uint8 [H, W, 3], or uint8 or uint16 [H, W], "
            f"got {image.dtype} {list(image.shape)}"
        )
    _write_image(path, ".png", image)


def write_jpeg(
    path: str | os.PathLike[str], image: NDArray[np.uint8], *, best: bool = False
) -> None:
    """Writes an RGB image, uint8 [H, W, 3], as JPEG in OpenCV's usual quality (95).

    Args:
        best: quality 100, and colours as fine as brightness; hardly a value moves by more than 3.
    """
    import cv2

    finest = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    _write_image(path, ".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 100, *finest) if best else ())


def write_npz(path: str | os.PathLike[str], **arrays: Any) -> None:
    """Writes arrays by name, compressed, as NumPy reads them."""
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)


def _write_image(
    path: str | os.PathLike[str], ending: str, image: NDArray[Any], options: Sequence[int] = ()
) -> None:
    import cv2

    done, data = cv2.imencode(ending, image[..., ::-1] if image.ndim == 3 else image, options)
    if not done:
        raise ValueError(f"{path}: {image.dtype} {list(image.shape)} cannot be written as {ending}")
    with atomic_write(path) as file:
        file.write(data.tobytes())


def read_rgb(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Reads a picture of a data set as uint8 [H, W, 3] RGB.

    The EXIF orientation is ignored: masks are drawn on the pixels as stored.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a whole picture.
    """
    import cv2

    # Through a buffer: OpenCV's own file reading fails on some Unicode names.
    data = Path(path).read_bytes()
    image = decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError(f"{path}: expected a picture, got {len(data)} bytes that are none")
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)


def read_unchanged(path: str | os.PathLike[str]) -> NDArray[Any] | None:
    """A picture of labels or depth with the channels and the type it was stored with.

    Returns:
        [H, W] or [H, W, channels]; None if the file is no whole picture.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    import cv2

    return decode(Path(path).read_bytes(), cv2.IMREAD_UNCHANGED)
