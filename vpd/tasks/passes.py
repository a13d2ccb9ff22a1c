"""Passes of a U-Net over pictures, sentences and noise protocols, every part of the model run as
often as it must be and no oftener."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vpd.images import to_network
from vpd.protocol import NoiseSpec
from vpd.tasks.foundation import Foundation
from vpd.tasks.maps import context, noisy_latents
from vpd.tasks.refer import ReferSegmenter
from vpd.tasks.samples import SamplePicture
from vpd.tokens import tokenize

__all__ = ["Pass", "Passes", "Row", "TextStates"]


class Row(NamedTuple):
    """What a row of a pass is about."""

    protocol: int
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
    """[S, C, h, w], one for each picture and protocol among the rows; [S, T, C, h, w] if a protocol
    has T noises."""
    timesteps: Tensor
    """int64 [B], or [B, T]."""
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
        protocols: The noises of each, as many in all: one; or, as
            :attr:`vpd.ReferConfig.noises`, one for the features and others for the maps.
        batch: Rows of a forward; also pictures or sentences at a time in their encoders.
    """

    def __init__(
        self,
        model: ReferSegmenter | Foundation,
        protocols: Sequence[Sequence[NoiseSpec]],
        batch: int,
    ) -> None:
        self._model, self._protocols, self._batch = model, list(protocols), batch
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
        steps = torch.tensor([[noise.timestep for noise in own] for own in self._protocols])
        if steps.shape[1] == 1:
            steps = steps[:, 0]
        for rows in self._packed([len(own) for own in texts]):
            used = list(dict.fromkeys((row.protocol, row.image) for row in rows))
            index = torch.tensor([used.index((row.protocol, row.image)) for row in rows])
            yield Pass(
                rows,
                torch.stack([latents[protocol][image] for protocol, image in used]),
                steps[[row.protocol for row in rows]].to(states.device),
                states[[first[row.image] + row.question for row in rows]],
                index.to(states.device),
            )

    def _packed(self, counts: Sequence[int]) -> Iterator[list[Row]]:
        """Rows of a forward. Those of a picture and protocol are torn apart only if they alone
        are more than a batch."""
        rows: list[Row] = []
        for image, count in enumerate(counts):
            for protocol in range(len(self._protocols)):
                own = [Row(protocol, image, question) for question in range(count)]
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
        """Of each protocol: [len(group), C, h, w], or [len(group), T, C, h, w]."""
        size, device = self._model.config.image_size, next(self._model.parameters()).device
        pixels = torch.cat([to_network(picture.image, size) for picture in group])
        noises = list(dict.fromkeys(noise for own in self._protocols for noise in own))
        latents = noisy_latents(self._model, pixels.to(device), noises)
        of = dict(zip(noises, latents, strict=True))
        return [
            torch.stack([of[noise] for noise in own], dim=1) if len(own) > 1 else of[own[0]]
            for own in self._protocols
        ]
