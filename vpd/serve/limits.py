"""What the page accepts."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vpd.images import RGBImage

__all__ = ["Limits", "read_upload"]

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")


@dataclass(frozen=True)
class Limits:
    """How much a visitor may ask for.

    Raises:
        ValueError: One below 1.
    """

    max_mb: int = 20
    """Size of a picture's file, in megabytes."""
    max_megapixels: int = 25
    """Size of a picture."""
    max_text: int = 2000
    """Characters of a sentence, an instruction or a vocabulary."""
    max_waiting: int = 16
    """Requests that wait while one is answered; more are refused."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    @property
    def max_bytes(self) -> int:
        return self.max_mb * 10**6

    def check_text(self, text: str) -> str:
        """``text`` without blanks around it.

        Raises:
            ValueError: It is too long.
        """
        if len(text) > self.max_text:
            raise ValueError(
                f"expected a text of at most {self.max_text} characters, got {len(text)}"
            )
        return text.strip()


def read_upload(path: str | os.PathLike[str] | None, limits: Limits) -> RGBImage:
    """A picture that was uploaded, uint8 [H, W, 3]. Its size is checked before it is decoded.

    Raises:
        ValueError: No picture, one in no format that browsers and cameras write, or a larger one
            than the limits allow.
    """
    from PIL import Image, UnidentifiedImageError

    from vpd.images import read_image

    if path is None:
        raise ValueError("there is no picture yet: drop one on the page")
    size = os.stat(path).st_size
    if size > limits.max_bytes:
        raise ValueError(
            f"expected a file of at most {limits.max_mb} MB, got {size / 10**6:.1f} MB"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=_FORMATS)
        with picture:
            width, height = picture.size
            if width * height > limits.max_megapixels * 10**6:
                raise ValueError(
                    f"expected at most {limits.max_megapixels} million pixels, got {width} x "
                    f"{height}"
                )
            return read_image(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(
            f"expected at most {limits.max_megapixels} million pixels, got far more"
        ) from None
    except UnidentifiedImageError:
        raise ValueError(f"expected a picture ({', '.join(_FORMATS)}), got another file") from None
    except (OSError, SyntaxError) as error:  # Pillow raises the latter of broken PNG files
        raise ValueError(f"the picture cannot be read: {error}") from None
