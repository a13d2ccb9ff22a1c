"""One run of ODISE's recipe: what a step learns, and how it is scored."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vpd.data.nouns import CaptionWords, caption_words
from vpd.losses import mask_grounding_loss
from vpd.randomness import named_seed
from vpd.tasks.evaluate_open import evaluate_open
from vpd.tasks.open_panoptic import OpenPanopticSegmenter
from vpd.train.distributed import group
from vpd.train.loop.optimizer import grouped, matrix_rule, optimizer_of
from vpd.train.loop.parts import PartsTraining
from vpd.train.open.config import OpenTrainConfig
from vpd.train.open.table import OpenBatch, OpenPictures
from vpd.train.panoptic.criterion import MaskCriterion
from vpd.train.panoptic.segments import counts_of, objects_of
from vpd.vocabulary import Vocabulary

__all__ = ["TEMPLATE", "OpenRun", "OpenTraining"]

_PARTS = ("adapter", "backbone", "head", "words")
TEMPLATE = "a photo of a {w}."


@dataclass(frozen=True)
class OpenRun:
    """What a training works on, where Lightning does not look: only the parts that train are
    averaged and saved in checkpoints. Copies of the training share it."""

    model: OpenPanopticSegmenter
    table: OpenPictures
    vocabulary: Vocabulary
    """What is trained on."""
    places: dict[int, int]
    """From the data set's classes to its categories."""
    captions: Callable[[int], Sequence[str]] | None = None
    """Of a picture of the table."""
    val: Any = None
    names: Vocabulary | None = None
    """Of all of the data set's classes."""

    def __deepcopy__(self, memo: dict[int, Any]) -> OpenRun:
        return self


class OpenTraining(PartsTraining):
    """The criterion at every output of the head: the same sum however a batch is divided."""

    def __init__(self, config: OpenTrainConfig, run: OpenRun) -> None:
        super().__init__(config.loop.batch, config.loop.micro_batch)
        self.config, self.run = config, run
        run.model.requires_grad_(False)
        run.model.unet.recompute = config.recompute
        for name in _PARTS:
            part = getattr(run.model, name, None)
            if part is not None:
                self.add_module(name, part.requires_grad_(True))
        self._criterion = MaskCriterion(config)
        self._names = self.texts(run.vocabulary.words, run.model.config.templates)

    def setup(self, stage: str) -> None:
        self.run.table.to(self.device)

    def losses(self, step: int, rows: slice) -> dict[str, Tensor]:
        config, model = self.config, self.run.model
        batch = self.run.table.draw(step, rows)
        out = model.head(batch.maps)
        labels, masks = self.objects(batch)
        by_labels = config.supervision == "labels"
        if by_labels:
            labels = [self.categories(own) for own in labels]
            owners = self.run.vocabulary.owners
            logits = model.words(out.embeddings, self._names.to(self.device), owners, out.scale)
        else:
            labels, logits = [torch.zeros_like(own) for own in labels], out.logits
        self._criterion.begin(step, lambda: self._counts(step), self.device)
        sums = self._criterion(step, rows, logits, out.masks, labels, masks)
        if not by_labels:
            grounding = self._grounding(step, rows, batch.pictures, out.embeddings, out.scale)
            sums["loss"] = sums["loss"] + config.grounding_weight * grounding.sum()
            sums["grounding"] = grounding[-1]
        return sums

    def objects(self, batch: OpenBatch) -> tuple[list[Tensor], list[Tensor]]:
        """The data set's classes and masks of each picture's segments."""
        return objects_of(batch.numbers, batch.segments)

    def texts(self, words: Sequence[str], template: str) -> Tensor:
        """[S, D], on the CPU, of words in the space that CLIP's pictures and texts share."""
        return self.run.model.texts(words, template)

    def counts(self, step: int, rows: slice) -> list[int]:
        """How many segments are to be seen in each of some rows."""
        return counts_of(self.run.table.numbers(step, rows))

    def _counts(self, step: int) -> list[int]:
        """Of this process's pictures."""
        parts = [self.shares.part(k) for k in range(self.shares.passes)]
        return [n for part in parts for n in self.counts(step, part)]

    def categories(self, classes: Tensor) -> Tensor:
        """The vocabulary's, of the data set's classes."""
        places = [self.run.places[index] for index in classes.tolist()]
        return torch.tensor(places, dtype=torch.int64, device=classes.device)

    def _grounding(
        self,
        step: int,
        rows: slice,
        pictures: Sequence[int],
        embeddings: Sequence[Tensor],
        scale: Tensor,
    ) -> Tensor:
        """Of this process's rows, as part of the mean over processes."""
        first = rows.indices(self.config.loop.batch)[0]
        said = [self.said(step, first + i, picture) for i, picture in enumerate(pictures)]
        sentences = [sentence for own in said for sentence in own.sentences]
        texts = self.texts(sentences, "bare").to(self.device)
        words = self.run.model.words.project(texts).reshape(len(said), self.config.words, -1)
        valid = torch.tensor([own.valid for own in said], device=self.device)
        found = mask_grounding_loss(
            embeddings, words, valid, scale, form=self.config.grounding_form, group=group()
        )
        return found / self.shares.processes.count

    def said(self, step: int, place: int, picture: int) -> CaptionWords:
        """The words of a picture's caption that a step reads; none that name what is held out."""
        assert self.run.captions is not None
        rng = random.Random(named_seed("words", self.config.seed, step, place))
        found = caption_words(
            self.run.captions(picture), rng, count=self.config.words, template=TEMPLATE
        )
        hidden = _hidden_words(self.run.names, self.config.held_out)
        if not hidden:
            return found
        kept = [not hidden & set(one[:-1].split()) for one in found.sentences]
        empty = TEMPLATE.replace("{w}", "")
        return CaptionWords(
            tuple(one if k else empty for one, k in zip(found.sentences, kept, strict=True)),
            tuple(v and k for v, k in zip(found.valid, kept, strict=True)),
        )

    def evaluate(self, limit: int | None, progress: bool = False) -> dict[str, float]:
        """Scores on the validation split, the same in all processes."""
        run, final = self.run, limit == self.config.data.final_limit
        return evaluate_open(
            run.model, run.val, run.names, limit=limit, progress=progress, group=group(),
            shuffled=final and self.config.shuffled,
            without_clip=final and self.config.without_clip,
        ).metrics  # fmt: skip

    def validation_step(self, _: int) -> None:
        found = self.evaluate(self.config.data.val_limit)
        options: dict[str, Any] = {"batch_size": 1, "sync_dist": group() is not None}
        self.log_dict({k: float(v) for k, v in found.items()}, **options)
        self.log("val_PQ", found["PQ"], prog_bar=True, logger=False, **options)

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        config, loop = self.config, self.config.loop
        groups = grouped(self.named_parameters(), matrix_rule(1.0), loop.lr, loop.weight_decay)
        return optimizer_of(
            groups,
            replace(loop, warmup=0),  # the schedule has its own
            lambda step: config.schedule.factor(step, loop.steps, loop.warmup),
        )


@cache
def _hidden_words(names: Vocabulary | None, held_out: tuple[str, ...]) -> frozenset[str]:
    """Words of the names of what is held out."""
    categories = () if names is None else names.categories
    held = (category for category in categories if category[0] in held_out)
    return frozenset(word for category in held for name in category for word in name.split())
