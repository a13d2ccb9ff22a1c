"""Passes of a U-Net over pictures, sentences and noise protocols, every part of the model run as
often as it must be and no oftener."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vpd.images import to_network
from vpd.models.autoencoder import Posterior
from vpd.noise import encode_pixels, image_key, latents_under
from vpd.protocol import NoiseSpec
from vpd.tasks.foundation import Foundation
from vpd.tasks.maps import context, image_norm
from vpd.tasks.refer import ReferSegmenter
from vpd.tasks.samples import SamplePicture
from vpd.tokens import tokenize

__all__ = ["Pass", "Passes", "Row", "TextStates"]


class Row(NamedTuple):
    """What a row of a pass is about."""

    noise: int
    """Place of its protocol among those asked for."""
    image: int
    """Place of its picture in the group."""
    question: int
    """Place of its sentence among the picture's; one past the last: the empty sentence."""


@dataclass(frozen=True)
class Pass:
    """Inputs of one forward of the U-Net."""

    rows: list[Row]
    latents: Tensor
    """[S, C, h, w], one for each picture and protocol among the rows."""
    timesteps: Tensor
    """int64 [B]."""
    context: Tensor
    """[B, N, C], what the U-Net attends to."""
    index: Tensor
    """int64 [B], the latent of each row."""


class TextStates:
    """What a U-Net attends to for sentences. Each is encoded once, and again only if it has been
    forgotten since: the least recently used ones are, beyond ``keep`` bytes."""

    def __init__(self, model: ReferSegmenter | Foundation, keep: int = 2**30) -> None:
        self._model, self._keep = model, keep
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, texts: Sequence[str], batch: int) -> Tensor:
        """[len(texts), N, C] on the model's device; new ones go through the text encoder and the
        text adapter ``batch`` at a time."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(new), batch):
            part = new[start : start + batch]
            ids = tokenize(part, length=self._model.config.token_length).ids
            for text, states in zip(part, context(self._model, ids).cpu(), strict=True):
                self._known[text] = states.clone()  # of its own: a view would keep the whole batch
        for text in texts:
            self._known.move_to_end(text)
        found = torch.stack([self._known[text] for text in texts])
        while len(self._known) * found[0].nbytes > self._keep:
            self._known.popitem(last=False)
        return found.to(next(self._model.parameters()).device)


class Passes:
    """Brings groups of pictures before a model's U-Net under several noise protocols.

    A picture goes through the autoencoder once, under noise on its pixels once for each such noise;
    a sentence through text encoder and adapter once; rows of several pictures and protocols share
    a forward, those of one picture and protocol side by side, so that what precedes the text in the
    U-Net runs once for them. Noise is drawn per (seed, picture): the same at every timestep.

    Args:
        model: Its own noise protocol plays no part.
        noises: The protocols.
        batch: Rows of a forward; also pictures or sentences at a time in their encoders.
    """

    def __init__(
        self, model: ReferSegmenter | Foundation, noises: Sequence[NoiseSpec], batch: int
    ) -> None:
        self._model, self._noises, self._batch = model, list(noises), batch
        self._texts = TextStates(model)

    def __call__(self, group: Sequence[SamplePicture], blind: bool = False) -> Iterator[Pass]:
        """Every sentence of some pictures under every protocol, a picture's protocols in order.

        Args:
            group: At most ``batch`` pictures.
            blind: Ask the empty sentence of every picture too.
        """
        texts = [[q.text for q in picture.questions] + [""] * blind for picture in group]
        first = [sum(map(len, texts[:i])) for i in range(len(texts))]
        states = self._texts([text for own in texts for text in own], self._batch)
        latents = self._latents(group)
        steps = torch.tensor([noise.timestep for noise in self._noises])
        for rows in self._packed([len(own) for own in texts]):
            used = list(dict.fromkeys((row.noise, row.image) for row in rows))
            index = torch.tensor([used.index((row.noise, row.image)) for row in rows])
            yield Pass(
                rows,
                torch.stack([latents[noise][image] for noise, image in used]),
                steps[[row.noise for row in rows]].to(states.device),
                states[[first[row.image] + row.question for row in rows]],
                index.to(states.device),
            )

    def _packed(self, counts: Sequence[int]) -> Iterator[list[Row]]:
        """Rows of a forward. Those of a picture and protocol are torn apart only if they alone
        are more than a batch."""
        rows: list[Row] = []
        for image, count in enumerate(counts):
            for noise in range(len(self._noises)):
                own = [Row(noise, image, question) for question in range(count)]
                if rows and len(rows) + min(count, self._batch) > self._batch:
                    yield rows
                    rows = []
                rows += own
                while len(rows) > self._batch:
                    yield rows[: self._batch]
                    rows = rows[self._batch :]
        if rows:
            yield rows

    def _latents(self, group: Sequence[SamplePicture]) -> list[Tensor]:
        """Of each protocol: [len(group), C, h, w]."""
        config, weight = self._model.config, next(self._model.parameters())
        pixels = torch.cat([to_network(picture.image, config.image_size) for picture in group])
        pixels = pixels.to(weight.device)
        keys = [image_key(row) for row in pixels]
        norm = image_norm(self._model)
        known: dict[Hashable, Posterior] = {}
        found = []
        for noise in self._noises:
            seen = _pixels_seen(noise)
            if seen not in known:
                known[seen] = encode_pixels(self._model.vae, pixels, noise, keys, norm)
            found.append(latents_under(known[seen], noise, config.scale_factor, keys))
        return found


def _pixels_seen(noise: NoiseSpec) -> Hashable:
    """Equal for protocols under which the autoencoder sees the same pixels."""
    if not noise.changes_pixels:
        return None
    return object() if noise.seed is None else (noise.noise_t, noise.noise_key, noise.seed)
