"""What the words of a sentence attend to, in a task model or in a foundation alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vpd.daam import normalize, prompt_tokens
from vpd.images import read_image, to_network
from vpd.models.unet import Taps
from vpd.noise import encode_under
from vpd.protocol import NoiseSpec
from vpd.tasks.dense import DenseModel
from vpd.tasks.foundation import Foundation
from vpd.tasks.refer import ReferSegmenter
from vpd.tokens import EOS, token_strings, token_words, tokenize

__all__ = ["AttentionMaps", "attention_maps"]


@dataclass(frozen=True)
class AttentionMaps:
    """Cross-attention maps of one sentence over one image, at one timestep or averaged over
    several."""

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
    """What else they are, a line each: a single layer or head, attribution maps, shares."""
    others: tuple[NoiseSpec, ...] = ()
    """Protocols besides ``noise`` that they are averaged over."""

    @property
    def step(self) -> str:
        """Their noise and what the U-Net was told of it, as a figure says it."""
        every = (self.noise, *self.others)
        told = "t = " + ", ".join(dict.fromkeys(str(noise.timestep) for noise in every))
        if any(n.adds_noise and n.timestep != n.noise_t for n in every):
            told = "noise " + ", ".join(str(noise.noise_t) for noise in every) + f"\n{told}"
        return f"mean of\n{told}" if self.others else told

    def expanded(self, stride: int | None = None, *, absolute: bool = False) -> np.ndarray:
        """The maps at the size of the image, float32 [labels, H, W]: see :func:`vpd.daam.expand`.

        Args:
            stride: Which maps; the finest if None.
            absolute: Probabilities; otherwise each map goes from 0 to 1.
        """
        from vpd.daam import expand

        maps = torch.from_numpy(self.maps[min(self.maps) if stride is None else stride])
        size = (self.image.shape[0], self.image.shape[1])
        return expand(maps[None], size, absolute=absolute)[0].numpy()

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
    strides: Sequence[int] | None = None,
    mode: Literal["words", "tokens"] = "words",
    markers: bool = False,
    noise: NoiseSpec | Sequence[NoiseSpec] | None = None,
    fusion: Literal["mean", "daam"] | None = None,
    shares: bool = False,
    selector: str = "up_cross+down_cross",
    layers: Sequence[str] | None = None,
    head: int | None = None,
) -> AttentionMaps:
    """Runs the U-Net once per noise protocol and reads its cross-attention.

    Args:
        model: A task model (its text adapter is applied) or a pre-trained foundation without any
            head.
        image: What :func:`vpd.images.read_image` takes.
        text: One sentence.
        strides: On the latent grid: 2 means maps of half its side. By default 2 and 4; 1, the
            finest, for ``daam``.
        mode: ``words``: the tokens of a word averaged; ``tokens``: each for itself.
        markers: Whether the start, the end and the padding get maps too.
        noise: Protocol, or several that the maps are averaged over; by default the model's own
            (those of its ``attn_t_ensemble``), for a foundation its clean, scaled latent at
            timestep 1.
        fusion: ``mean``: the layers of a stride averaged; ``daam``: all layers fused on the finest
            grid (:mod:`vpd.daam`); by default the model's own.
        shares: Give each token its share among those of the sentence, at every pixel:
            :func:`vpd.daam.normalize`.
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
    noises = _noises(model, noise)
    fusion = fusion or own_fusion(model)
    if strides is None:
        strides = (1,) if fusion == "daam" else (2, 4)
    picture = read_image(image)
    tokens = tokenize(text, config.token_length)
    groups = _groups(text, tokens.ids[0], mode, markers)
    if not groups:
        raise ValueError(f"the sentence {text!r} has no word")
    taps = Taps(
        features=False,
        attention=tuple(strides),
        fusion=fusion,
        selector=selector,
        layers=tuple(layers) if layers is not None else None,
        per_head=head is not None,
    )
    device = next(model.parameters()).device
    with torch.inference_mode():
        pixels = to_network(picture, config.image_size).to(device)
        states = context(model, tokens.ids)
        passes = []
        for one, latents in zip(noises, noisy_latents(model, pixels, noises), strict=True):
            passes.append(model.unet(latents, one.timestep, states, taps=taps).attention)
        found = {s: torch.stack([maps[s] for maps in passes]).mean(0).float() for s in strides}
        if head is not None:
            found = {stride: _one_head(maps, head) for stride, maps in found.items()}
        if shares:
            counted = prompt_tokens(tokens)
            found = {stride: normalize(maps, counted) for stride, maps in found.items()}
    maps = {
        stride: np.stack([every[0, list(columns)].mean(0) for _, columns in groups])
        for stride, every in ((s, found[s].cpu().numpy()) for s in sorted(found))
    }
    labels = tuple(label for label, _ in groups)
    part = _part(fusion, shares, layers, head)
    return AttentionMaps(picture, text, labels, maps, noises[0], part, noises[1:])


def _noises(
    model: ReferSegmenter | Foundation, noise: NoiseSpec | Sequence[NoiseSpec] | None
) -> tuple[NoiseSpec, ...]:
    """The protocols that maps are averaged over."""
    if isinstance(noise, NoiseSpec):
        return (noise,)
    if noise is not None:
        if not noise:
            raise ValueError("expected at least one noise protocol, got none")
        return tuple(noise)
    if isinstance(model, ReferSegmenter) and model.config.attn_t_ensemble:
        return model.config.noises[1:]
    return (own_noise(model),)


def own_fusion(model: ReferSegmenter | Foundation) -> Literal["mean", "daam"]:
    """How a model's decoder sees maps; a foundation has none."""
    return model.config.attn_fusion if isinstance(model, ReferSegmenter) else "mean"


def own_noise(model: ReferSegmenter | Foundation | DenseModel[Any]) -> NoiseSpec:
    """The protocol of a model; for a foundation a clean latent, scaled as in its training, at 1."""
    if isinstance(model, Foundation):
        return NoiseSpec(latent_scale=model.config.scale_factor)
    return model.config.noise


def image_norm(model: ReferSegmenter | Foundation | DenseModel[Any]) -> Literal["half", "none"]:
    """How a model's autoencoder sees images."""
    return "half" if isinstance(model, Foundation) else model.config.image_norm


def at_timestep(protocol: str, t: int, like: NoiseSpec) -> NoiseSpec:
    """A named protocol at timestep ``t``, with the latent scale, seed and so on of ``like``."""
    named = NoiseSpec.preset(protocol)
    return replace(like, noise_space=named.noise_space, embed_t=named.embed_t, noise_t=t)


def context(model: ReferSegmenter | Foundation, ids: Tensor) -> Tensor:
    """What the U-Net attends to for token ids [B, N]: a task model's text adapter is applied."""
    states = model.text(ids.to(next(model.parameters()).device)).hidden
    return model.context(states) if isinstance(model, ReferSegmenter) else states


def noisy_latents(
    model: ReferSegmenter | Foundation | DenseModel[Any],
    pixels: Tensor,
    noises: Sequence[NoiseSpec],
) -> list[Tensor]:
    """What a model's U-Net sees of pictures [I, 3, H, W] in [-1, 1] under each of several noise
    protocols: :func:`vpd.noise.encode_under`."""
    factor, norm = model.config.scale_factor, image_norm(model)
    return encode_under(model.vae, pixels, noises, factor, image_norm=norm)


def _part(fusion: str, shares: bool, layers: Sequence[str] | None, head: int | None) -> str:
    """Of layers, block and number: the rest of their names is the same for all."""
    lines = ["DAAM"] * (fusion == "daam") + ["shares"] * shares
    lines += [".".join(layer.split(".")[:2]) for layer in layers or ()]
    lines += [] if head is None else [f"head {head}"]
    return "".join(f"\n{line}" for line in lines)


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
