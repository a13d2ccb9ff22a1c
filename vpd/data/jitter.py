"""Large-scale jittering (Ghiasi et al. 2021), how panoptic segmentation trains on COCO."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpd.data.augment import check_pair, check_shares, check_sizes
from vpd.data.colors import Picture
from vpd.data.segments import PanopticLabel

GREY = 128  # of the padding, as Mask2Former and ODISE pad pictures in [0, 255]


@dataclass(frozen=True)
class PanopticAugmentation:
    """Flip, resize by a random factor, cut out or pad to one size: all pictures become equally
    large.

    The order, and what is drawn, are those of Mask2Former.

    Attributes:
        crop: height and width of the result in pixels.
        scale: range of the factor: at 1, the picture is as large as fits into `crop`.
        flip: probability of a horizontal flip.
    """

    crop: tuple[int, int] = (1024, 1024)
    scale: tuple[float, float] = (0.1, 2.0)
    flip: float = 0.5

    def __post_init__(self) -> None:
        check_sizes(crop=self.crop)
        check_shares(flip=self.flip)
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be 0 < least <= most, got {self.scale}")

    def __call__(
        self, image: Picture, label: PanopticLabel, generator: np.random.Generator
    ) -> tuple[Picture, PanopticLabel]:
        """One random version of a sample; see `vpd.data.augment.sample_generator`.

        Args:
            image: uint8 [H, W, 3], RGB.
            label: of the same size.

        Returns:
            Picture, padded with grey, and label, padded with 0 (no segment), both of the size
            `crop`; segments that are cut off are not listed any more.

        Raises:
            ValueError: if they are not of this form or not of one size.
        """
        check_pair(image, label.ids, "label")
        ids = label.ids
        if generator.random() < self.flip:
            image, ids = image[:, ::-1], ids[:, ::-1]
        factor = generator.uniform(*self.scale) * min(
            want / have for want, have in zip(self.crop, ids.shape, strict=True)
        )
        size = tuple(max(round(side * factor), 1) for side in ids.shape)
        share = generator.random()  # of both axes, where there is something to be cut off
        image, ids = _resized(image, ids, (size[0], size[1]))
        top, left = (
            round(max(have - want, 0) * share) for have, want in zip(size, self.crop, strict=True)
        )
        rows, columns = slice(top, top + self.crop[0]), slice(left, left + self.crop[1])
        picture = np.full((*self.crop, 3), GREY, np.uint8)
        found = np.zeros(self.crop, np.int32)
        seen = ids[rows, columns]
        picture[: seen.shape[0], : seen.shape[1]] = image[rows, columns]
        found[: seen.shape[0], : seen.shape[1]] = seen
        return picture, PanopticLabel(found, label.segments).seen()


def _resized(
    image: Picture, ids: NDArray[np.int32], size: tuple[int, int]
) -> tuple[Picture, NDArray[np.int32]]:
    """The picture bilinear, area-averaged where it shrinks, and ids nearest."""
    import cv2

    shrinks = size[0] * size[1] < ids.size
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    picture = cv2.resize(np.ascontiguousarray(image), size[::-1], interpolation=how)
    small = cv2.resize(
        np.ascontiguousarray(ids, dtype=np.int32), size[::-1], interpolation=cv2.INTER_NEAREST
    )
    return np.asarray(picture, np.uint8), np.asarray(small, np.int32)
