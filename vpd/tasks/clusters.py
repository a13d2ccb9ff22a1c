"""What a diffusion model's U-Net groups by itself: k-means over its features of one picture (figure
1 of ODISE; Xu et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpd._load import core
from vpd.images import read_image, sides, to_network
from vpd.kmeans import kmeans, principal_components, squared_distances
from vpd.models.unet import Taps, UNetConfig
from vpd.protocol import NoiseSpec
from vpd.tasks.dense import Context, DenseModel
from vpd.tasks.foundation import Foundation
from vpd.tasks.maps import context, noisy_latents, own_noise
from vpd.tasks.refer import ReferSegmenter
from vpd.tokens import tokenize

if TYPE_CHECKING:
    from vpd.tasks.panoptic_results import PanopticResult

__all__ = ["ClusterResult", "Upsample", "cluster_features", "default_block"]

Upsample = Literal["nearest", "bilinear"]
Model = ReferSegmenter | Foundation | DenseModel[Any]


@dataclass(frozen=True)
class ClusterResult:
    """The cluster of each pixel."""

    image: np.ndarray
    """The image as it came, uint8 [H, W, 3]."""
    labels: np.ndarray
    """uint8 [H, W] (int32 beyond 256 clusters), in [0, k)."""
    grid: np.ndarray
    """The same on the grid of the features, [h, w]."""
    centroids: np.ndarray
    """float32 [k, d]: of what was clustered, the features after normalisation and projection."""
    inertia: float
    """Sum of the squared distances between features and their centroids."""
    blocks: tuple[str, ...]
    """Where the features are from, such as ``output_blocks.8:input``."""
    noises: tuple[NoiseSpec, ...]
    """The protocols that the U-Net saw the picture under."""

    def mask(self, cluster: int) -> np.ndarray:
        """bool [H, W]: where a cluster is.

        Raises:
            KeyError: No cluster of that number.
        """
        if not 0 <= cluster < len(self.centroids):
            raise KeyError(f"no cluster {cluster}; they are 0..{len(self.centroids) - 1}")
        return self.labels == cluster

    def __repr__(self) -> str:
        height, width = self.labels.shape
        rows, columns = self.grid.shape
        return (
            f"ClusterResult({width} x {height} px, {len(self.centroids)} clusters of "
            f"{columns} x {rows} features, {', '.join(self.blocks)})"
        )

    def _repr_png_(self) -> bytes:
        return self.show()._repr_png_()

    def show(self, panoptic: PanopticResult | None = None) -> Any:
        """Image, clusters, and segments of it or else the clusters over the image, as a figure."""
        from vpd.viz.clusters import clusters_figure

        return clusters_figure(self, panoptic)

    def save(self, path: str | Path, panoptic: PanopticResult | None = None) -> Path:
        """Writes the clusters over the image (``.png``), everything as arrays (``.npz``) or the
        figure (``.figure.png``). The file appears only when complete."""
        from vpd.viz.clusters import save_clusters

        return save_clusters(self, Path(path), panoptic)


def cluster_features(
    image: Any,
    block: int | str | Sequence[int | str] | None = None,
    K: int = 10,
    *,
    model: Model | str | Path = "vpd-mini",
    words: Any = None,
    noise: NoiseSpec | Sequence[NoiseSpec] | None = None,
    pca: int | None = None,
    upsample: Upsample = "nearest",
    seed: int = 0,
    restarts: int = 10,
    iterations: int = 100,
) -> ClusterResult:
    """Groups a picture's pixels by a frozen U-Net's features: objects fall into clusters although
    nobody named or outlined any.

    Features have length 1 at every place; several blocks or noises are brought to the finest of
    their grids (bilinear), where each has length 1 before they are put together.

    Args:
        image: What :func:`vpd.images.read_image` takes; any size. The model sees it squashed to
            what it was trained on.
        block: ``"output_blocks.8"``, or 8 for short: what goes into this block;
            ``"output_blocks.8:output"``: what comes out; ``input_blocks`` and ``middle_block``
            alike. Several are put together. By default the input of the last decoder block before
            the finest grid, 8 of Stable Diffusion.
        K: How many clusters, at most as many as features have pixels.
        model: A pre-trained foundation or a task model with a U-Net; or a name or folder of one.
        words: What the U-Net is told: of a foundation or a referring segmenter a caption, the empty
            one if None; of others what their call takes. ODISE's implicit captioner looks for
            itself.
        noise: Protocol, or several whose features are put together; the model's own by default, for
            a foundation its clean, scaled latent at timestep 1.
        pca: Cluster only so many principal components.
        upsample: From the features' grid to the picture: ``nearest``, or ``bilinear``: of the
            squared distances to each centroid, which is the same as of the features.
        seed, restarts, iterations: Of :func:`vpd.kmeans.kmeans`.

    Raises:
        ValueError: A block that the U-Net lacks, a number out of range, features that are not
            finite, words that the model does not take.
        TypeError, OSError: A model without U-Net; an image that cannot be read.
    """
    network = _network(model)
    if upsample not in ("nearest", "bilinear"):
        raise ValueError(f"upsample must be 'nearest' or 'bilinear', got {upsample!r}")
    blocks = _blocks(default_block(network.config.unet) if block is None else block)
    noises = (own_noise(network),) if noise is None else _several(noise)
    picture = read_image(image)
    features = _features(network, picture, blocks, words, noises)
    height, width = features.shape[-2:]
    points = features.flatten(1).T
    if pca is not None:
        points = principal_components(points, pca)
    found = kmeans(points, K, seed=seed, restarts=restarts, iterations=iterations)
    grid = found.labels.reshape(height, width)
    size = (picture.shape[0], picture.shape[1])
    if upsample == "bilinear":
        near = -squared_distances(points, found.centroids).T.reshape(-1, height, width)
        labels, _ = core.pixel_classes([near], [False], size, False)
    else:
        labels = F.interpolate(grid[None, None].double(), size, mode="nearest-exact")[0, 0]
    kind = np.uint8 if len(found.centroids) <= 256 else np.int32
    return ClusterResult(
        picture,
        labels.numpy().astype(kind),
        grid.numpy().astype(kind),
        found.centroids.float().numpy(),
        found.inertia,
        blocks,
        noises,
    )


def default_block(config: UNetConfig) -> str:
    """The last decoder block before the finest grid: 8 of Stable Diffusion."""
    levels, of_level = len(config.channel_mult), config.num_res_blocks + 1
    return f"output_blocks.{max(levels - 1, 1) * of_level - 1}"


def _network(model: Model | str | Path) -> Model:
    from vpd.tasks import store

    found = store.load(model) if isinstance(model, str | Path) else model
    if not isinstance(getattr(found, "unet", None), torch.nn.Module):
        raise TypeError(f"clusters are of a U-Net's features: {type(found).__name__} has no U-Net")
    return found


def _blocks(asked: int | str | Sequence[int | str]) -> tuple[str, ...]:
    """``output_blocks.8:input`` and the like, as the U-Net calls what it returns."""
    several = [asked] if isinstance(asked, int | str) else list(asked)
    if not several:
        raise ValueError("expected at least one block, got none")
    names = []
    for one in several:
        name, _, side = str(one).partition(":")
        if side not in ("", "input", "output"):
            raise ValueError(f"a block is such as output_blocks.8 or output_blocks.8:output: {one}")
        names.append(f"{f'output_blocks.{name}' if name.isdigit() else name}:{side or 'input'}")
    return tuple(dict.fromkeys(names))


def _several(noise: NoiseSpec | Sequence[NoiseSpec]) -> tuple[NoiseSpec, ...]:
    noises = (noise,) if isinstance(noise, NoiseSpec) else tuple(noise)
    if not noises:
        raise ValueError("expected at least one noise protocol, got none")
    return noises


@torch.inference_mode()
def _features(
    model: Model,
    picture: np.ndarray,
    blocks: Sequence[str],
    words: Any,
    noises: Sequence[NoiseSpec],
) -> Tensor:
    """float32 [C, h, w] on the CPU: every block under every noise, normalised, on one grid."""
    config = model.config
    multiple = 2 ** (len(config.vae.ch_mult) - 1 + len(config.unet.channel_mult) - 1)
    height, width = (-(-side // multiple) * multiple for side in sides(config.image_size))
    weight = next(model.unet.parameters())
    pixels = to_network(picture, (height, width)).to(weight.device)
    told = _told(model, words, pixels.to(weight.dtype))
    taps = Taps(
        features=False,
        attention=(),
        block_inputs=tuple(b.removesuffix(":input") for b in blocks if b.endswith(":input")),
        block_outputs=tuple(b.removesuffix(":output") for b in blocks if b.endswith(":output")),
    )
    parts: list[Tensor] = []
    for spec, seen in zip(noises, noisy_latents(model, pixels, noises), strict=True):
        out = model.unet(
            seen,
            spec.timestep,
            told.states,
            context_mask=told.mask,
            time_bias=told.time_bias,
            taps=taps,
        )
        parts += [out.blocks[block].float().cpu() for block in blocks]
    finest = max((part.shape[-2:] for part in parts), key=lambda size: size[0] * size[1])
    resized = [
        part
        if part.shape[-2:] == finest
        else F.interpolate(part, finest, mode="bilinear", align_corners=False)
        for part in parts
    ]
    return torch.cat([F.normalize(part, dim=1) for part in resized], dim=1)[0]


def _told(model: Model, words: Any, pixels: Tensor) -> Context:
    """What the U-Net is told about the picture."""
    if isinstance(model, DenseModel):
        return model.context([words], model.look(pixels))
    if not isinstance(words, str | None):
        raise TypeError(f"words must be a caption, got {words!r}")
    return Context(context(model, tokenize(words or "", model.config.token_length).ids))
