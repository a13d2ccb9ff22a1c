"""Training of open-vocabulary panoptic segmentation under ODISE's recipe (Xu et al. 2023), with
category labels (section 3.3) or with captions (section 3.4)."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpd.data.nouns import CaptionWords, caption_words
from vpd.data.tabletop.splits import cache_beside
from vpd.losses import mask_grounding_loss
from vpd.randomness import named_seed
from vpd.tasks.evaluate_open import evaluate_open
from vpd.tasks.open_panoptic import OpenPanopticSegmenter
from vpd.train.distributed import first_in_turn, group, present, wait
from vpd.train.groups import grouped, matrix_rule
from vpd.train.loop import fit, optimizer_of
from vpd.train.mask_criterion import MaskCriterion
from vpd.train.open_config import OpenTrainConfig
from vpd.train.open_model import build_open, names_of
from vpd.train.open_table import OpenTable
from vpd.train.parts import PartsTraining, Shares
from vpd.train.saving import save_trained
from vpd.train.segment_targets import counts_of, objects_of
from vpd.vocabulary import Vocabulary

__all__ = ["OpenRun", "OpenTraining", "train"]

log = logging.getLogger("vpd")

_PARTS = ("adapter", "backbone", "head", "words")
_TEMPLATE = "a photo of a {w}."


@dataclass(frozen=True)
class OpenRun:
    """What a training works on, where Lightning does not look: only the parts that train are
    averaged and saved in checkpoints. Copies of the training share it."""

    model: OpenPanopticSegmenter
    table: OpenTable
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
        for name in _PARTS:
            part = getattr(run.model, name, None)
            if part is not None:
                self.add_module(name, part.requires_grad_(True))
        self._criterion = MaskCriterion(config)
        self._names = run.model.texts(run.vocabulary.words, run.model.config.templates)

    def setup(self, stage: str) -> None:
        self.run.table.to(self.device)

    def losses(self, step: int, rows: slice) -> dict[str, Tensor]:
        config, model = self.config, self.run.model
        batch = self.run.table.draw(step, rows)
        size = (config.crop, config.crop)
        out = model.head(model.backbone(model.taps(batch.seen), size))
        labels, masks = objects_of(batch.numbers, batch.segments)
        by_labels = config.supervision == "labels"
        if by_labels:
            labels = [self._categories(own) for own in labels]
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

    def _counts(self, step: int) -> list[int]:
        """Of this process's pictures, how many segments are to be seen."""
        parts = [self.shares.part(k) for k in range(self.shares.passes)]
        return [n for part in parts for n in counts_of(self.run.table.numbers(step, part))]

    def _categories(self, classes: Tensor) -> Tensor:
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
        texts = self.run.model.texts(sentences, "bare").to(self.device)
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
            self.run.captions(picture), rng, count=self.config.words, template=_TEMPLATE
        )
        hidden = _hidden_words(self.run.names, self.config.held_out)
        if not hidden:
            return found
        kept = [not hidden & set(one[:-1].split()) for one in found.sentences]
        empty = _TEMPLATE.replace("{w}", "")
        return CaptionWords(
            tuple(one if k else empty for one, k in zip(found.sentences, kept, strict=True)),
            tuple(v and k for v, k in zip(found.valid, kept, strict=True)),
        )

    def evaluate(self, limit: int | None, progress: bool = False) -> dict[str, float]:
        """Scores on the validation split, the same in all processes."""
        run = self.run
        return evaluate_open(
            run.model, run.val, run.names, limit=limit, progress=progress, group=group(),
            shuffled=self.config.shuffled and limit == self.config.data.final_limit,
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


def train(config: OpenTrainConfig) -> dict[str, float]:
    """Trains, or goes on from ``config.out/last.ckpt``; writes ``config.out/model``, which
    :func:`vpd.load` reads.

    Within :func:`vpd.train.distributed.join` all processes train together, each with its share of
    every batch and of the evaluations; the first one writes.

    Returns:
        Metrics of the trained model on the validation split (:func:`evaluate_open`).

    Raises:
        ValueError: Mistakes in the config, or a training set without pictures of what is not held
            out.
    """
    shares = Shares(config.loop.batch, config.loop.micro_batch, present())
    config = replace(config, progress=config.progress and shares.processes.first)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with first_in_turn():
        source, val = (
            _samples(config, split) for split in (config.data.split, config.data.val_split)
        )
    names = names_of(config, tuple(source.names), tuple(source.things))
    kept = [i for i, own in enumerate(names.names) if own not in config.held_out]
    vocabulary = Vocabulary(
        tuple(names.categories[i] for i in kept), tuple(names.things[i] for i in kept)
    )
    places = {index: place for place, index in enumerate(kept)}
    chosen = _without(source, set(range(len(names))) - set(kept)) if config.held_out else source
    model = build_open(config, vocabulary).to(device)
    keeps = config.feature_cache != "none"
    with first_in_turn():
        table = OpenTable(
            model, chosen, config.loop.batch, config.seed, flip=config.augment == "flip",
            folder=cache_beside(config.data.cache_dir, "features") if keeps else None,
            dtype=getattr(torch, config.feature_cache) if keeps else torch.float32,
        )  # fmt: skip
    if config.epochs is not None:
        steps = config.epochs * table.steps_per_epoch
        config = replace(config, loop=replace(config.loop, steps=steps))
    table.fill(config.loop.steps, config.progress)
    captions = _captions(chosen) if config.supervision == "captions" else None
    run = OpenRun(model, table, vocabulary, places, captions, val, names)
    module = OpenTraining(config, run)
    log.info("%d pictures, %d steps of %d", len(chosen), config.loop.steps, config.loop.batch)
    best = "PQ" if config.select == "best" else None
    fit(module, config.loop, Path(config.out), progress=config.progress, monitor=best)
    model.to(device)
    metrics = module.evaluate(config.data.final_limit, config.progress)
    if shares.processes.first:
        save_trained(model, config, metrics)
    wait()
    return metrics


def _samples(config: OpenTrainConfig, split: str, limit: int | None = None) -> Any:
    from vpd.data import tabletop
    from vpd.data.dense import dense_samples

    data = config.data
    cache = None if data.cache_dir is None else Path(data.cache_dir)
    where: dict[str, Any] = {"cache_dir": cache, "progress": config.progress}
    found = dense_samples(
        "panoptic", data.name, split, root=data.root, limit=limit, workers=data.workers, **where
    )
    if config.by == "shape":
        return found
    return tabletop.panoptic(found.source, by=config.by)


class _Chosen(Sequence[Any]):
    """Some samples of a data set."""

    def __init__(self, samples: Any, places: Sequence[int]) -> None:
        self._samples, self._places = samples, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        return self._samples[self._places[index]]


def _without(samples: Any, classes: set[int]) -> _Chosen:
    """Those that show none of some classes."""
    places = [
        i
        for i, sample in enumerate(samples)
        if classes.isdisjoint(segment.category for segment in sample.read_label().segments)
    ]
    if not places:
        raise ValueError("held_out: expected pictures that show nothing of it, got none")
    return _Chosen(samples, places)


def _captions(samples: Any) -> Callable[[int], Sequence[str]]:
    """Five captions of each scene of Tabletop, always the same."""
    from vpd.data import tabletop

    known: dict[int, list[str]] = {}

    def captions(picture: int) -> Sequence[str]:
        if picture not in known:
            sample = samples[picture]
            scene = sample.source.scene(sample.index)
            rng = random.Random(f"captions of {scene.spec.seed}")
            known[picture] = tabletop.captions(scene, rng)
        return known[picture]

    return captions
