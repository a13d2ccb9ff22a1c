"""Pictures in: whatever people have becomes one uint8 RGB array, and then what networks see.

Rules, the same for files, PIL images and arrays:

* grey becomes three equal channels; transparency is composited over white, as viewers show it;
* 16-bit values are scaled by 255/65535 and rounded; floats are in [0, 1] and scaled by 255;
* the EXIF orientation of a file or PIL image is applied, as OpenCV does (except in files with an
  alpha channel, where OpenCV does not).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vpd.decoding import decode

if TYPE_CHECKING:
    import numpy.typing as npt

    RGBImage: TypeAlias = npt.NDArray[np.uint8]

Size: TypeAlias = int | tuple[int, int]
"""Height and width in pixels; one int means a square."""

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_ROUNDING = 1e-5  # how far resampling in float32 may leave [0, 1]


def read_image(source: Any) -> RGBImage:
    """Reads an image from a file, a PIL image, an array or a tensor.

    Args:
        source: A path (str or path-like); a PIL image; a NumPy array [H, W], [H, W, 1], [H, W, 3]
            (RGB) or [H, W, 4] (RGBA) of uint8, uint16, or floats in [0, 1]; a torch tensor
            [C, H, W] or [H, W] of the same types with C = 1, 3 or 4.

    Returns:
        uint8 [H, W, 3], RGB, contiguous. The caller's array is never modified, but is returned
        itself if it already has this form.

    Raises:
        FileNotFoundError, IsADirectoryError, OSError: If the file cannot be opened.
        TypeError: If ``source`` or its dtype is of another type.
        ValueError: If the file is empty, truncated or no image, or an array has another shape, no
            pixels, NaN or infinite pixels, or floats outside [0, 1].
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(os.fspath(source)))
    if isinstance(source, np.ndarray):
        return _from_array(source, "image array")
    if isinstance(source, Tensor):
        return _from_tensor(source)
    if type(source).__module__.partition(".")[0] == "PIL" or hasattr(source, "getexif"):
        return _from_pil(source)
    raise TypeError(
        "read_image: expected a path, a PIL image, a NumPy array or a torch tensor, "
        f"got {type(source).__name__}"
    )


def to_network(image: Any, size: Size) -> Tensor:
    """Squash-resizes an image and maps it to the range networks see.

    The aspect ratio is not kept. Each axis that shrinks is area-averaged (OpenCV's INTER_AREA: no
    aliasing, like an antialiased resize), each axis that grows is bilinear (INTER_LINEAR).

    Args:
        image: Anything ``read_image`` takes.
        size: Output height and width in pixels; one int means a square.

    Returns:
        float32 [1, 3, H, W] in [-1, 1]: value / 127.5 - 1.

    Raises:
        ValueError: If ``size`` is not positive; and what ``read_image`` raises.
    """
    height, width = _size(size)
    return in_range(_resize(read_image(image), height, width))[None]


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def in_range(picture: RGBImage) -> Tensor:
    """A picture, uint8 [H, W, 3], in the range networks see: float32 [3, H, W] in [-1, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    return tensor.to(torch.float32).div_(127.5).sub_(1.0)


def scaled(picture: RGBImage, factor: float) -> Tensor:
    """A picture, uint8 [H, W, 3], resized (bilinear) with its aspect ratio kept, as networks see
    it: float32 [1, 3, H', W'] in [-1, 1]. Sides are rounded as mmcv's ``imrescale`` does, to 1 at
    least."""
    import cv2

    height, width = picture.shape[:2]
    size = (max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5)))
    if size != (width, height):
        resized = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
        picture = np.asarray(resized, dtype=np.uint8)
    return in_range(picture)[None]


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Lists the image files directly inside a folder, sorted by name.

    Args:
        folder: An existing folder. Files count by extension (``EXTENSIONS``, any case); hidden
            files are left out.

    Returns:
        At least one path.

    Raises:
        FileNotFoundError, NotADirectoryError: If there is no such folder.
        ValueError: If it holds no image.
    """
    folder = Path(folder)
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )
    if not paths:
        raise ValueError(f"{folder}: expected at least one image ({', '.join(EXTENSIONS)}), got 0")
    return paths


def _read_file(path: Path) -> RGBImage:
    import cv2

    # OpenCV's own imread fails on some Unicode paths and hides why a file cannot be opened.
    data = path.read_bytes()
    if not data:
        raise ValueError(f"{path}: expected an image, got an empty file (0 bytes)")
    pixels = decode(data, cv2.IMREAD_UNCHANGED)
    # Only this mode keeps alpha, and only the colour mode applies the EXIF orientation.
    if pixels is not None and not _has_alpha(pixels):
        pixels = decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if pixels is None:
        raise ValueError(
            f"{path}: expected an image, got {len(data)} bytes that no image decoder accepts "
            "(damaged, truncated, or another kind of file)"
        )
    order = cv2.COLOR_BGRA2RGBA if _has_alpha(pixels) else cv2.COLOR_BGR2RGB
    return _from_array(cv2.cvtColor(pixels, order), str(path))


def _has_alpha(pixels: npt.NDArray[Any]) -> bool:
    return pixels.ndim == 3 and pixels.shape[2] == 4


def _from_pil(image: Any) -> RGBImage:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey, which PIL may hold in 32 bits
        values = np.asarray(image)
        if values.size and not (values.min() >= 0 and values.max() <= 65535):
            raise ValueError(
                f"PIL image of mode {image.mode}: expected values in [0, 65535], "
                f"got [{values.min()}, {values.max()}]"
            )
        return _from_array(values.astype(np.uint16), "PIL image")
    if image.mode != "F":
        transparent = "transparency" in image.info or image.mode[-1] in "Aa"
        image = image.convert("RGBA" if transparent else "RGB")
    return _from_array(np.asarray(image), "PIL image")


def _from_tensor(image: Tensor) -> RGBImage:
    shape = list(image.shape)
    if image.dim() not in (2, 3) or (image.dim() == 3 and shape[0] not in (1, 3, 4)):
        hint = ""
        if image.dim() == 4:
            hint = "; pass one image of the batch at a time"
        elif image.dim() == 3 and shape[2] in (1, 3, 4):
            hint = "; a tensor is channels first, image.permute(2, 0, 1) makes it so"
        raise ValueError(f"image tensor must be [C, H, W] with C = 1, 3 or 4, got {shape}{hint}")
    image = image.detach().cpu()
    if image.dtype == torch.bfloat16:  # unknown to NumPy
        image = image.float()
    array = image.numpy()
    return _from_array(array.transpose(1, 2, 0) if image.dim() == 3 else array, "image tensor")


def _from_array(image: npt.NDArray[Any], name: str) -> RGBImage:
    shape = list(image.shape)
    if image.ndim not in (2, 3) or (image.ndim == 3 and shape[2] not in (1, 3, 4)):
        first = image.ndim == 3 and shape[0] in (1, 3, 4)
        hint = "; an array is channels last, image.transpose(1, 2, 0) makes it so" if first else ""
        raise ValueError(
            f"{name} must be [H, W] or [H, W, C] with C = 1, 3 or 4, got {shape}{hint}"
        )
    if image.size == 0:
        raise ValueError(f"{name} must have at least one pixel, got shape {shape}")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] == 4:
        scaled = _scaled(image, name)
        alpha = scaled[:, :, 3:]
        image = scaled[:, :, :3] * alpha + (1.0 - alpha)
    if image.dtype != np.uint8:
        image = np.rint(_scaled(image, name) * 255.0).astype(np.uint8)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image)


def _scaled(image: npt.NDArray[Any], name: str) -> npt.NDArray[np.float64]:
    """The values of any accepted dtype as floats in [0, 1]."""
    if image.dtype in (np.uint8, np.uint16):
        return image.astype(np.float64) / float(np.iinfo(image.dtype).max)
    if not np.issubdtype(image.dtype, np.floating):
        raise TypeError(f"{name} must be uint8, uint16 or float in [0, 1], got {image.dtype}")
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(np.count_nonzero(~np.isfinite(image)))
        raise ValueError(f"{name} must have finite values, got {bad} NaN or infinite ones")
    if low < -_ROUNDING or high > 1.0 + _ROUNDING:
        raise ValueError(
            f"{name} of {image.dtype} must be in [0, 1], got values from {low:g} to {high:g}"
        )
    return np.clip(image.astype(np.float64), 0.0, 1.0)


def _size(size: Any) -> tuple[int, int]:
    pair = size if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or any(not isinstance(n, int) or n < 1 for n in pair):
        raise ValueError(f"to_network: size must be a positive int or (height, width), got {size}")
    return pair[0], pair[1]


def _resize(image: RGBImage, height: int, width: int) -> RGBImage:
    import cv2

    # Two passes, because one cv2.resize call treats both axes alike.
    low = (min(height, image.shape[0]), min(width, image.shape[1]))
    if low != image.shape[:2]:
        image = cv2.resize(image, low[::-1], interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if (height, width) != image.shape[:2]:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return image
