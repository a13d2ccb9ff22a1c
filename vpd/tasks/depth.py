"""Monocular depth: metres for every pixel (VPD; Zhao et al. 2023, section 4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vpd.images import read_image, scaled
from vpd.models.adapters import TextAdapter
from vpd.models.depth_head import DepthHead, DepthHeadConfig
from vpd.models.unet import UNetOutput
from vpd.tasks.dense import Context, DenseConfig, DenseModel, pad_to_multiple
from vpd.tasks.dense_results import DepthResult
from vpd.tasks.windows import Overlap, shifted_windows

__all__ = ["DepthConfig", "DepthEstimator"]


@dataclass(frozen=True)
class DepthConfig(DenseConfig):
    """A depth estimator; the defaults are VPD's on NYUv2, whose scene types are not given here."""

    scenes: tuple[str, ...] = ()
    """Types of scenes, of which one conditions the U-Net."""
    image_size: int = 480
    """Side of the square crops that it is trained on and of the windows of a test."""
    max_depth: float = 10.0
    """Metres that depth cannot exceed."""
    embed_dim: int = 192
    num_filters: tuple[int, ...] = (32, 32, 32)
    norm_groups: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scenes:
            raise ValueError("DepthConfig.scenes: expected at least one type of scene, got none")
        if self.vit is not None:
            _check_strides(self.vit.strides)
        if 2 ** len(self.num_filters) != self.finest:
            raise ValueError(
                "DepthConfig.num_filters: depth has the picture's size with as many as double the "
                f"finest map, of stride {self.finest}, to it; got {len(self.num_filters)}"
            )


def _check_strides(strides: tuple[int, ...]) -> None:
    """Refuses maps of a vision transformer that a depth head cannot read."""
    first = strides[0]
    if first & (first - 1) or strides != tuple(first << i for i in range(4)):
        raise ValueError(
            "DepthConfig.vit: strides must be four powers of 2, each twice the one before, got "
            f"{strides}"
        )


class DepthEstimator(DenseModel[DepthConfig]):
    """Autoencoder, U-Net, text adapter and head, from a picture to metres; or a vision transformer
    and head (``config.vit``).

    ``model(image)`` takes what people have; ``model.logits(image)`` takes tensors and is what
    trains. ``class_embeddings`` [scenes, C] holds one pooled text embedding for each type of scene,
    of which the U-Net sees one as its only token.
    """

    class_embeddings: Tensor

    def __init__(self, config: DepthConfig) -> None:
        super().__init__(config)
        if config.vit is None:
            width = config.unet.context_dim
            self.adapter = TextAdapter(width)
            self.register_buffer("class_embeddings", torch.zeros(len(config.scenes), width))
        channels = self.feature_channels
        if len(channels) != 4:
            raise ValueError(f"a depth head reads four feature maps, there are {len(channels)}")
        self.head = DepthHead(
            DepthHeadConfig(
                dims=channels,
                embed_dim=config.embed_dim,
                num_filters=config.num_filters,
                max_depth=config.max_depth,
                norm_groups=config.norm_groups,
            )
        )

    def states(self, scenes: Tensor | None = None) -> Tensor:
        """What conditions the U-Net, [B, 1, C]: embeddings of types of scenes, int64 [B]; the mean
        of all if None, [1, 1, C]. A vision transformer is told nothing, [1, 0, C]."""
        if self.config.vit is not None:
            return torch.zeros(1, 0, self.config.unet.context_dim, device=self.device)
        if scenes is None:
            return self.class_embeddings.mean(0)[None, None]
        return self.class_embeddings[scenes][:, None]

    def features(self, latents: Tensor, states: Tensor | None = None) -> UNetOutput:
        """The U-Net's features for latents [B, C, h, w] and :meth:`states` [B or 1, 1, C]."""
        states = self.states() if states is None else states
        return self.attend(latents, self._told(states))

    def context(self, words: Sequence[Any], seen: Tensor | None = None) -> Context:
        """What the U-Net is told about pictures of some types of scenes, ids; the mean of all if
        nothing is said."""
        if any(word is None for word in words):
            return self._told(self.states())
        return self._told(self.states(torch.tensor(words, device=self.device)))

    def _told(self, states: Tensor) -> Context:
        return Context(self.adapted(states.to(self.dtype)))

    def depth(self, out: UNetOutput, size: tuple[int, int]) -> Tensor:
        """Metres [B, 1, *size] from the U-Net's output on a picture of that size, which was padded
        to a multiple of ``config.multiple``."""
        crop = self._crop(size, out.features[2].shape[-2:])
        found = self.head(self.pyramid(out), crop=crop)
        return found[..., : size[0], : size[1]]

    def _crop(self, size: tuple[int, int], grid: torch.Size) -> tuple[int, int]:
        """Rows and columns of the second coarsest grid that are padding alone."""
        stride = self.config.multiple // 2
        used = [-(-side // stride) for side in size]
        return grid[0] - used[0], grid[1] - used[1]

    def logits(self, image: Tensor, states: Tensor | None = None) -> Tensor:
        """Depth at input size.

        Args:
            image: [B, 3, H, W] in [-1, 1]; any size: padded with zeros to what the networks take.
            states: [B or 1, 1, C] of :meth:`states`; the mean over all types of scenes if None.

        Returns:
            Metres [B, 1, H, W] in [0, max_depth].
        """
        padded = pad_to_multiple(image, self.config.multiple)
        out = self.features(self.encode_image(padded), states)
        return self.depth(out, (image.shape[-2], image.shape[-1]))

    def forward(
        self,
        image: Any,
        *,
        scene: str | None = None,
        windows: int | None = None,
        flip: bool = True,
    ) -> DepthResult:
        """The depth of each pixel.

        The shorter side becomes ``image_size``; square windows shifted along the longer one, each
        also mirrored, are averaged where they overlap (VPD's test on NYUv2), and the result is
        resized to the picture.

        Args:
            image: Path, PIL image, uint8 array HxWx3 (or grey, RGBA, 16 bit), float array or
                tensor in [0, 1]; any size.
            scene: Its type, one of ``config.scenes``; None: the mean of their embeddings.
            windows: How many; None: as few as cover the picture.
            flip: Average over the mirrored windows too.

        Returns:
            A :class:`vpd.tasks.dense_results.DepthResult` at the picture's own size.

        Raises:
            ValueError, TypeError, OSError: A picture that cannot be read, an unknown scene, windows
                that do not cover the picture.
        """
        states = self.states(self._scene(scene))
        picture = read_image(image)
        height, width = picture.shape[:2]
        pixels = scaled(picture, self.config.image_size / min(height, width))
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                found = self._shifted(pixels, states, windows, flip)
                metres = F.interpolate(found, (height, width), mode="bilinear", align_corners=False)
        finally:
            self.train(training)
        return DepthResult(picture, metres[0, 0].numpy())

    def _scene(self, name: str | None) -> Tensor | None:
        if name is None:
            return None
        scenes = self.config.scenes
        if name not in scenes:
            raise ValueError(f"scene must be one of {', '.join(scenes)}, got {name!r}")
        return torch.tensor([scenes.index(name)], device=self.device)

    def _shifted(self, pixels: Tensor, states: Tensor, windows: int | None, flip: bool) -> Tensor:
        """[1, 1, H, W] on the CPU, from a picture whose shorter side is the windows'."""
        height, width = pixels.shape[-2:]
        side = min(height, width)
        count = -(-max(height, width) // side) if windows is None else windows
        upright = height > width
        places = shifted_windows(side, max(height, width), count)
        mean = Overlap(height, width)
        for _, start in places:
            top, left = (start, 0) if upright else (0, start)
            seen = pixels[..., top : top + side, left : left + side].to(self.device, self.dtype)
            mean.add(self.logits(seen, states).float().cpu(), top, left)
            if flip:
                mirrored = self.logits(seen.flip(-1), states).float().cpu()
                mean.add(mirrored.flip(-1), top, left)
        return mean.mean()
