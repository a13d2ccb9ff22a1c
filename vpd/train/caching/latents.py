"""What the U-Net sees of the pictures of a training set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from vpd.images import Size, to_network
from vpd.noise import add_noise_to_latents
from vpd.protocol import NoiseSpec
from vpd.tasks.dense import DenseModel, pad_to_multiple
from vpd.tasks.refer import ReferSegmenter
from vpd.train.caching.row_store import RowStore, digest

__all__ = [
    "Encoder", "PictureLatents", "content_key", "draw_names", "encode_once", "latents_name",
    "reproducible", "squashed", "with_noise",
]  # fmt: skip

Encoder = ReferSegmenter | DenseModel[Any]
E = TypeVar("E", bound=Encoder)
_ENCODED = 32  # pictures of a pass of the autoencoder


def reproducible(noise: NoiseSpec) -> bool:
    """Whether a protocol gives the same latents whenever an image is encoded."""
    return noise.latent_mode == "mode" and not (noise.adds_noise and noise.seed is None)


def with_noise(model: E, noise: NoiseSpec, **changes: Any) -> E:
    """The same model, sharing its weights, under another noise protocol (and with other changes of
    its config)."""
    twin = copy.copy(model)
    twin.config = replace(model.config, noise=noise, **changes)
    return twin


def draw_names(step: int, places: Iterable[int], shared: bool) -> list[str]:
    """What noise that is drawn anew in every step is drawn from, for each place in the batch; one
    for all of them if it is shared."""
    return [f"step {step}" + f", place {place}" * (not shared) for place in places]


def latents_name(model: Encoder) -> str:
    """Names all that latents depend on besides the picture. What the U-Net is told about their
    noise is not part of it."""
    config = model.config
    first, *others = map(_added, config.noises)
    sizes = {"image_size": config.image_size, "scale_factor": config.scale_factor}
    # The usual choice is not named: stores made before there was another remain valid.
    norm = [config.image_norm] if config.image_norm != "half" else []
    return digest("latents 1", model.vae, asdict(config.vae), first, sizes, *others, *norm)


def _added(noise: NoiseSpec) -> dict[str, Any]:
    """What a protocol adds to latents."""
    noise = replace(noise, embed_t=0)
    if not noise.adds_noise:
        noise = NoiseSpec(embed_t=0, latent_scale=noise.latent_scale)
    return noise.to_dict()


class PictureLatents:
    """Latents for training: VPD's autoencoder is frozen and its images are not augmented, so each
    picture is encoded once, under the model's noise protocol.

    Noise may be drawn anew in every step, from (seed, step, place in the batch), so a resumed run
    and one of several processes meet the same. On latents it is then added to clean ones; on pixels
    the autoencoder runs in every step.

    Args:
        model: Encodes the pictures, squashed to its ``image_size``.
        pictures: uint8 [H, W, 3] images. Where they are encoded in every step, they are read anew
            each time if this is a sequence.
        seed: Of noise that is drawn anew.
        fresh: Draw noise anew in every step; without a seed in the protocol it is so anyway.
        cache: Folder where latents are kept for other runs; None for none.
        multiple: What the sides of a picture are padded to multiples of, with grey.

    Attributes:
        fresh: Whether noise is drawn anew.
        keys: Content key of each picture, where they are encoded once.
    """

    def __init__(
        self,
        model: Encoder,
        pictures: Iterable[np.ndarray],
        seed: int,
        *,
        fresh: bool = False,
        cache: Path | None = None,
        multiple: int = 1,
    ) -> None:
        config, noise = model.config, model.config.noise
        self.fresh = any(n.adds_noise and (fresh or n.seed is None) for n in config.noises)
        self.keys: list[bytes] = []
        self._device = torch.device("cpu")
        self._pictures: Sequence[np.ndarray] = ()
        self._kept: Tensor | None = None
        self._multiple = multiple
        self._noisy = with_noise(model, replace(noise, seed=seed, noise_key="image"))
        self._shared = noise.noise_key == "shared"
        if self.fresh:
            if noise.latent_mode != "mode":
                raise ValueError(
                    "noise that is drawn anew in every step needs latent_mode='mode', got "
                    f"{noise.latent_mode!r}"
                )
            if noise.noise_space == "pixel":
                known = isinstance(pictures, Sequence)
                self._pictures = pictures if known else list(pictures)  # type: ignore[assignment]
                return
            alone = {"attn_t_ensemble": ()} if len(config.noises) > 1 else {}
            model = with_noise(model, NoiseSpec(latent_scale=noise.latent_scale), **alone)
        self._kept = self._encode_all(model, pictures, cache)

    def to(self, device: torch.device) -> None:
        self._device = device
        self._kept = self._kept if self._kept is None else self._kept.to(device)

    def kept(self, images: Tensor) -> Tensor:
        """Latents of some pictures, int64 [I] by number, without noise that is drawn anew: float32
        [I, C, h, w], or as :meth:`ReferSegmenter.encode_image` gives them."""
        assert self._kept is not None
        return self._kept[images.to(self._device)].float()

    def at_step(self, images: Tensor, step: int, places: Tensor) -> Tensor:
        """Latents under noise that is drawn anew, as :meth:`ReferSegmenter.encode_image` gives
        them.

        Args:
            images: int64 [I], the pictures' numbers.
            step: Of the training.
            places: int64 [I], where in the batch each stands.
        """
        config = self._noisy.config
        draws = draw_names(step, places.tolist(), self._shared)
        if self._kept is None:
            # As where pictures are encoded once: before training, not in its precision.
            with torch.autocast(self._device.type, enabled=False):
                chosen = [self._pictures[i] for i in images.tolist()]
                return _encode(self._noisy, chosen, self._multiple, draws).float()
        scale = config.noise.latent_scale
        clean = self.kept(images) / scale
        found = [
            scale * add_noise_to_latents(clean, spec, config.scale_factor, draws)
            for spec in config.noises
        ]
        return torch.stack(found, dim=1) if len(found) > 1 else found[0]

    def _encode_all(
        self, model: Encoder, pictures: Iterable[np.ndarray], cache: Path | None
    ) -> Tensor:
        """Latents of all pictures, float16; notes their content keys on the way."""
        store = None
        if cache is not None and all(map(reproducible, model.config.noises)):
            store = RowStore(cache / latents_name(model))

        def encode(chosen: Sequence[np.ndarray]) -> Tensor:
            return _encode(model, chosen, self._multiple)

        self.keys, found = encode_once(pictures, encode, store)
        return found


def encode_once(
    pictures: Iterable[np.ndarray],
    encode: Callable[[Sequence[np.ndarray]], Tensor],
    store: RowStore | None,
) -> tuple[list[bytes], Tensor]:
    """What a frozen network makes of pictures.

    Args:
        pictures: uint8 [H, W, 3] images, read once.
        encode: From some of them to a row for each.
        store: Rows of before, and of others; None: all are computed.

    Returns:
        The content key of each picture; float16 [N, ...] on the CPU.
    """
    keys: list[bytes] = []
    parts: list[Tensor] = []
    for chunk in _batched(pictures, _ENCODED):
        own = [content_key(picture) for picture in chunk]
        keys += own
        if store is None:
            parts.append(encode(chunk).half().cpu())
            continue
        absent = {key: p for key, p in zip(own, chunk, strict=True) if key not in store}
        if absent:
            store.add(list(absent), [encode(list(absent.values())).half().cpu()])
        parts.append(store.read(own)[0].half())
    if store is not None:
        store.flush()
    return keys, torch.cat(parts)


def _batched(pictures: Iterable[np.ndarray], count: int) -> Iterator[list[np.ndarray]]:
    """So many at a time."""
    left = iter(pictures)
    while chunk := list(islice(left, count)):
        yield chunk


def squashed(pictures: Sequence[np.ndarray], size: Size) -> Tensor:
    """Pictures as a model of that input size sees them, [B, 3, *size] in [-1, 1]."""
    return torch.cat([to_network(picture, size) for picture in pictures])


def _encode(
    model: Encoder,
    pictures: Sequence[np.ndarray],
    multiple: int,
    keys: Sequence[str] | None = None,
) -> Tensor:
    size = model.config.image_size
    pixels = pad_to_multiple(squashed(pictures, size), multiple)
    with torch.no_grad():
        return model.encode_image(pixels.to(model.device), keys)


def content_key(picture: np.ndarray) -> bytes:
    """What a picture is known by: a hash of its pixels."""
    pixels = np.ascontiguousarray(picture)
    return bytes.fromhex(digest(pixels.tobytes(), f"{pixels.dtype} {pixels.shape}"))
