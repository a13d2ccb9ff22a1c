"""Random changes of training samples, each drawn from one generator, so that runs repeat.

```python
generator = sample_generator(seed, step, row)  # a resumed run sees what an uninterrupted one does
image, label = SemanticAugmentation(crop=(512, 512))(image, label, generator)
```
Pictures stay uint8.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vpd.data.colors import Picture, distort, vary

Box = tuple[slice, slice]
T = TypeVar("T", bound=np.generic)


def sample_generator(seed: int, step: int, row: int) -> np.random.Generator:
    """Randomness of one row of one training step; it depends on nothing else.

    Raises:
        ValueError: if a number is negative.
    """
    if min(seed, step, row) < 0:
        raise ValueError(f"seed, step and row must not be negative, got {seed}, {step}, {row}")
    return np.random.default_rng((seed, step, row))


def pad_to(array: NDArray[T], size: tuple[int, int], value: float) -> NDArray[T]:
    """Fills up [H, W, ...] to a size on the right and at the bottom; never cuts.

    The recipe pads a picture *after* it is normalised, with 0, and its label with the ignore index.
    """
    missing = [max(want - have, 0) for want, have in zip(size, array.shape, strict=False)]
    if not any(missing):
        return array
    around = [(0, m) for m in missing] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, around, constant_values=value)


@dataclass(frozen=True)
class SemanticAugmentation:
    """VPD's augmentation for semantic segmentation, that of mmsegmentation 0.x in its order.

    Resize with the aspect ratio kept, random crop, flip, photometric distortion. Where the resized
    picture is smaller than the crop the result is smaller too: see `pad_to`.

    Attributes:
        scale: limits of the long and the short side, in pixels; both are multiplied by one random
            ratio, and the picture is made as large as fits. None: no resize.
        ratio: range of that ratio.
        crop: height and width in pixels; None: no crop.
        cat_max_ratio: a crop is drawn again if one class has this share of its labelled pixels or
            more, or if there are not two classes.
        tries: how many times at most; the last draw is taken as it is.
        flip: probability of a horizontal flip.
        photometric: whether brightness, contrast, saturation and hue vary, each with probability
            one half: by +-32, x 0.5-1.5 (before or after the colours), x 0.5-1.5, and -18..17 steps
            of two degrees.
        ignore_index: id of pixels without a class.
    """

    scale: tuple[int, int] | None = (2048, 512)
    ratio: tuple[float, float] = (0.5, 2.0)
    crop: tuple[int, int] | None = (512, 512)
    cat_max_ratio: float = 0.75
    tries: int = 10
    flip: float = 0.5
    photometric: bool = True
    ignore_index: int = 255

    def __post_init__(self) -> None:
        check_sizes(scale=self.scale, crop=self.crop)
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be 0 < least <= most, got {self.ratio}")
        check_shares(cat_max_ratio=self.cat_max_ratio, flip=self.flip)

    def __call__(
        self, image: Picture, label: NDArray[Any], generator: np.random.Generator
    ) -> tuple[Picture, NDArray[Any]]:
        """One random version of a sample.

        Args:
            image: uint8 [H, W, 3], RGB.
            label: integers [H, W].

        Raises:
            ValueError: if they are not of this form or not of one size.
        """
        check_pair(image, label, "label")
        if self.scale is not None:
            ratio = generator.uniform(*self.ratio)
            long, short = (int(side * ratio) for side in self.scale)
            image, label = _resize_within(image, label, max(long, short), min(long, short))
        if self.crop is not None:
            box = self._crop_box(label, self.crop, generator)
            image, label = image[box], label[box]
        if generator.random() < self.flip:
            image, label = image[:, ::-1], label[:, ::-1]
        image, label = np.ascontiguousarray(image), np.ascontiguousarray(label)
        return (distort(image, generator) if self.photometric else image), label

    def _crop_box(
        self, label: NDArray[Any], crop: tuple[int, int], generator: np.random.Generator
    ) -> Box:
        box = _random_box(label.shape, crop, generator)
        if self.cat_max_ratio >= 1:
            return box
        for _ in range(self.tries):
            count = np.bincount(label[box].ravel(), minlength=self.ignore_index + 1)
            count[self.ignore_index] = 0
            if (count > 0).sum() > 1 and count.max() / count.sum() < self.cat_max_ratio:
                break
            box = _random_box(label.shape, crop, generator)
        return box


@dataclass(frozen=True)
class DepthAugmentation:
    """VPD's augmentation for depth: vertical CutDepth, flip, crop, colours.

    Attributes:
        crop: height and width in pixels; None: no crop.
        cutdepth_every: samples whose number is a multiple get CutDepth; 0: none does.
        cutdepth_share: the widest strip, as a share of what lies right of its left edge.
        cutdepth_cast: how depth becomes a colour. "scale": depth / max_depth_m * 255. "wrap":
            millimetres modulo 256, which is what the released code does.
        max_depth_m: depth that becomes white under "scale".
        flip: probability of a horizontal flip.
        colors: whether brightness and contrast (+-0.2), gamma (0.8-1.2), and hue, saturation, value
            (+-20, +-30, +-20) vary; each of the three with probability one half.
        short_side: pixels that the shorter side is resized to before all else, the aspect kept, as
            a test does; None: the picture stays as it is.
    """

    crop: tuple[int, int] | None = (480, 480)
    cutdepth_every: int = 4
    cutdepth_share: float = 0.75
    cutdepth_cast: Literal["scale", "wrap"] = "scale"
    max_depth_m: float = 10.0
    flip: float = 0.5
    colors: bool = True
    short_side: int | None = None

    def __post_init__(self) -> None:
        check_sizes(crop=self.crop)
        check_shares(cutdepth_share=self.cutdepth_share, flip=self.flip)
        if self.cutdepth_cast not in ("scale", "wrap"):
            raise ValueError(f"cutdepth_cast must be scale or wrap, got {self.cutdepth_cast!r}")
        if self.short_side is not None and self.short_side < 1:
            raise ValueError(f"short_side must be at least 1 pixel, got {self.short_side}")
        if self.cutdepth_every < 0 or not self.max_depth_m > 0:
            raise ValueError(
                "cutdepth_every must not be negative and max_depth_m must be positive, got "
                f"{self.cutdepth_every} and {self.max_depth_m}"
            )

    def __call__(
        self,
        image: Picture,
        depth_m: NDArray[np.floating[Any]],
        generator: np.random.Generator,
        number: int,
    ) -> tuple[Picture, NDArray[np.float32]]:
        """One random version of a sample.

        Args:
            image: uint8 [H, W, 3], RGB.
            depth_m: metres [H, W]; zero, negative and non-finite values are not measured.
            number: the how-manieth sample of the run this is (step x batch + row): decides about
                CutDepth.

        Returns:
            Picture, and depth as float32 in metres, 0 where nothing was measured.

        Raises:
            ValueError: if they are not of this form or not of one size, or smaller than the crop.
        """
        check_pair(image, depth_m, "depth_m")
        depth = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, 0).astype(np.float32)
        if self.short_side is not None:
            image, depth = _resize(image, depth, self.short_side / min(depth.shape))
        if self.cutdepth_every and number % self.cutdepth_every == 0:
            image = self._cut_depth(image, depth, generator)
        if generator.random() < self.flip:
            image, depth = image[:, ::-1], depth[:, ::-1]
        if self.crop is not None:
            if depth.shape[0] < self.crop[0] or depth.shape[1] < self.crop[1]:
                raise ValueError(
                    f"a picture must not be smaller than the crop {list(self.crop)}, "
                    f"got {list(depth.shape)}"
                )
            box = _random_box(depth.shape, self.crop, generator)
            image, depth = image[box], depth[box]
        image, depth = np.ascontiguousarray(image), np.ascontiguousarray(depth)
        return (vary(image, generator) if self.colors else image), depth

    def _cut_depth(
        self, image: Picture, depth: NDArray[np.float32], generator: np.random.Generator
    ) -> Picture:
        """The picture with a vertical strip of depth in it (Ishii & Yamashita 2021)."""
        left_share, width_share = generator.random(2)
        width = image.shape[1]
        left = int(left_share * width)
        strip = max(int((width - left_share * width) * width_share * self.cutdepth_share), 1)
        columns = slice(left, left + strip)
        shown = depth[:, columns]
        if self.cutdepth_cast == "wrap":
            gray = np.rint(shown * 1000) % 256
        else:
            gray = np.rint(np.clip(shown / self.max_depth_m, 0, 1) * 255)
        image = image.copy()
        image[:, columns] = gray.astype(np.uint8)[..., None]
        return image


def _resize_within(
    image: Picture, label: NDArray[Any], long: int, short: int
) -> tuple[Picture, NDArray[Any]]:
    """As large as fits into long x short."""
    return _resize(image, label, min(long / max(label.shape), short / min(label.shape)))


def _resize(image: Picture, target: NDArray[T], factor: float) -> tuple[Picture, NDArray[T]]:
    """Both sides by a factor: the picture bilinear, its label or depth nearest."""
    import cv2

    height, width = target.shape
    size = max(int(width * factor + 0.5), 1), max(int(height * factor + 0.5), 1)
    # OpenCV resizes no int64; no data set has that many classes.
    plain: NDArray[Any] = target
    if target.dtype not in (np.uint8, np.float32):
        plain = target.astype(np.int32)
    resized = cv2.resize(plain, size, interpolation=cv2.INTER_NEAREST)
    picture = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return picture.astype(np.uint8, copy=False), resized.astype(target.dtype, copy=False)


def _random_box(
    shape: tuple[int, ...], crop: tuple[int, int], generator: np.random.Generator
) -> Box:
    """A box of the crop's size, or as large as there is, anywhere; all places equally likely."""
    top, left = (
        int(generator.integers(max(have - want, 0) + 1))
        for have, want in zip(shape, crop, strict=False)
    )
    return slice(top, top + crop[0]), slice(left, left + crop[1])


def check_pair(image: NDArray[Any], target: NDArray[Any], name: str) -> None:
    """Raises ValueError unless they are a picture and something of its size."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"augmentation: image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}"
        )
    if target.shape != image.shape[:2]:
        raise ValueError(
            f"augmentation: {name} must be {list(image.shape[:2])} like the image, "
            f"got {list(target.shape)}"
        )


def check_sizes(**sizes: tuple[int, int] | None) -> None:
    """Raises ValueError on sizes that are none, None excepted."""
    for name, size in sizes.items():
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"{name} must be two positive numbers of pixels, got {size}")


def check_shares(**shares: float) -> None:
    """Raises ValueError on shares outside 0..1."""
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be within 0..1, got {share}")
