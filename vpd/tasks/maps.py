"""What the words of a sentence attend to, in a task model or in a foundation alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vpd.images import read_image, to_network
from vpd.models.autoencoder import Posterior
from vpd.models.unet import Taps
from vpd.noise import add_noise_to_latents, add_noise_to_pixels, image_key
from vpd.protocol import NoiseSpec
from vpd.tasks.foundation import Foundation
from vpd.tasks.refer import ReferSegmenter
from vpd.tokens import EOS, token_strings, token_words, tokenize

__all__ = ["AttentionMaps", "attention_maps"]


@dataclass(frozen=True)
class AttentionMaps:
    """Cross-attention maps of one sentence over one image, at one timestep."""

    image: np.ndarray
    """uint8 [H, W, 3], as it came."""
    text: str
    labels: tuple[str, ...]
    """The word or token of each map."""
    maps: dict[int, np.ndarray]
    """Stride on the latent grid -> float32 [labels, h, w]: probabilities, a word's being the mean
    over its tokens."""
    noise: NoiseSpec
    part: str = ""
    """The layer and head they are from, a line each, where they are not the average over all."""

    def show(self) -> Any:
        """A figure with one row per stride and one column per label; notebooks draw it."""
        from vpd.viz import maps_figure

        return maps_figure(self)

    def _repr_png_(self) -> bytes:
        return self.show()._repr_png_()

    def __repr__(self) -> str:
        shapes = {stride: maps.shape for stride, maps in self.maps.items()}
        return f"AttentionMaps({self.text!r}, labels={self.labels}, maps={shapes})"

    def save(self, path: str | Path) -> Path:
        """Writes the figure as a PNG file, complete or not at all."""
        return Path(self.show().save(path))


def attention_maps(
    model: ReferSegmenter | Foundation,
    image: Any,
    text: str,
    *,
    strides: Sequence[int] = (2, 4),
    mode: Literal["words", "tokens"] = "words",
    markers: bool = False,
    noise: NoiseSpec | None = None,
    selector: str = "up_cross+down_cross",
    layers: Sequence[str] | None = None,
    head: int | None = None,
) -> AttentionMaps:
    """Runs the U-Net once and reads its cross-attention.

    Args:
        model: A task model (its text adapter is applied) or a pre-trained foundation without any
            head.
        image: What :func:`vpd.images.read_image` takes.
        text: One sentence.
        strides: On the latent grid: 2 means maps of half its side.
        mode: ``words``: the tokens of a word averaged; ``tokens``: each for itself.
        markers: Whether the start, the end and the padding get maps too.
        noise: Protocol; by default the model's own, for a foundation its clean, scaled latent at
            timestep 1.
        selector: Places averaged over (:class:`vpd.Taps`).
        layers: Exactly these layers instead (:meth:`vpd.UNet.attention_layers`).
        head: One head instead of the average over heads.

    Raises:
        ValueError: An empty text, an unknown mode, or strides, layers or a head that the U-Net
            lacks.
    """
    if not isinstance(text, str):
        raise TypeError(f"a sentence must be a str, got {type(text).__name__}")
    if not text.strip():
        raise ValueError("the sentence is empty: say what to look for")
    config = model.config
    noise = noise or own_noise(model)
    picture = read_image(image)
    tokens = tokenize(text, config.token_length)
    groups = _groups(text, tokens.ids[0], mode, markers)
    if not groups:
        raise ValueError(f"the sentence {text!r} has no word")
    taps = Taps(
        features=False,
        attention=tuple(strides),
        selector=selector,
        layers=tuple(layers) if layers is not None else None,
        per_head=head is not None,
    )
    device = next(model.parameters()).device
    with torch.inference_mode():
        pixels = to_network(picture, config.image_size).to(device)
        latents = noisy_latents(model, pixels, noise)
        states = context(model, tokens.ids)
        attention = model.unet(latents, noise.timestep, states, taps=taps).attention
    if head is not None:
        attention = {stride: _one_head(maps, head) for stride, maps in attention.items()}
    maps = {
        stride: np.stack([all_[0, list(columns)].mean(0) for _, columns in groups])
        for stride, all_ in ((s, m.float().cpu().numpy()) for s, m in sorted(attention.items()))
    }
    labels = tuple(label for label, _ in groups)
    return AttentionMaps(picture, text, labels, maps, noise, _part(layers, head))


def own_noise(model: ReferSegmenter | Foundation) -> NoiseSpec:
    """The protocol of a model; for a foundation a clean latent, scaled as in its training, at 1."""
    if isinstance(model, ReferSegmenter):
        return model.config.noise
    return NoiseSpec(latent_scale=model.config.scale_factor)


def at_timestep(protocol: str, t: int, like: NoiseSpec) -> NoiseSpec:
    """A named protocol at timestep ``t``, with the latent scale, seed and so on of ``like``."""
    named = NoiseSpec.preset(protocol)
    return replace(like, noise_space=named.noise_space, embed_t=named.embed_t, noise_t=t)


def context(model: ReferSegmenter | Foundation, ids: Tensor) -> Tensor:
    """What the U-Net attends to for token ids [B, N]: a task model's text adapter is applied."""
    states = model.text(ids.to(next(model.parameters()).device)).hidden
    if isinstance(model, ReferSegmenter) and model.config.text_adapter:
        return model.adapter(states)
    return states


def noisy_latents(
    model: ReferSegmenter | Foundation,
    pixels: Tensor,
    noise: NoiseSpec,
    posterior: Posterior | None = None,
) -> Tensor:
    """What the U-Net sees of pictures [I, 3, H, W] in [-1, 1] under a noise protocol.

    ``posterior``: the autoencoder's of these pictures where it is known already; used unless the
    protocol changes their pixels.
    """
    keys = [image_key(row) for row in pixels]
    dtype = next(model.unet.parameters()).dtype
    seen = add_noise_to_pixels(pixels, noise, keys)
    if posterior is None or seen is not pixels:
        posterior = model.vae.encode(seen.to(dtype))
    latents = posterior.mode() if noise.latent_mode == "mode" else posterior.sample()
    latents = add_noise_to_latents(latents, noise, model.config.scale_factor, keys)
    return latents * noise.latent_scale


def _part(layers: Sequence[str] | None, head: int | None) -> str:
    """Block and number of each layer: the rest of its name is the same for all."""
    lines = [".".join(layer.split(".")[:2]) for layer in layers or ()]
    return "".join(f"\n{line}" for line in (*lines, *([] if head is None else [f"head {head}"])))


def _one_head(maps: Tensor, head: int) -> Tensor:
    if not 0 <= head < maps.shape[1]:
        raise ValueError(f"head must be in 0..{maps.shape[1] - 1}, got {head}")
    return maps[:, head]


def _groups(text: str, ids: Tensor, mode: str, markers: bool) -> list[tuple[str, tuple[int, ...]]]:
    """Label and token columns of each map."""
    end = ids.tolist().index(EOS)
    if mode == "words":
        inner = [(span.word, span.tokens) for span in token_words(text, len(ids))]
    elif mode == "tokens":
        names = token_strings(ids)
        inner = [(names[column], (column,)) for column in range(1, end)]
    else:
        raise ValueError(f"mode must be 'words' or 'tokens', got {mode!r}")
    if not markers:
        return inner
    rest = tuple(range(end + 1, len(ids)))
    padding = [("[padding]", rest)] if rest else []
    return [("[start]", (0,)), *inner, ("[end]", (end,)), *padding]
