"""VPD's training recipe: AdamW, polynomial decay, class-weighted cross-entropy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vpd.losses import mask_losses
from vpd.models.unet import UNetOutput
from vpd.nn import synchronize_batch_norm
from vpd.tasks.evaluate import evaluate_refer, under
from vpd.tasks.refer import ReferSegmenter
from vpd.tasks.samples import ReferSamples
from vpd.train.distributed import group
from vpd.train.loop.modes import own_parts
from vpd.train.loop.optimizer import optimizer_of
from vpd.train.loop.parts import PartsTraining
from vpd.train.refer.cache import CachedFeatures
from vpd.train.refer.config import ReferTrainConfig
from vpd.train.refer.table import Batch, ReferTable

__all__ = ["ReferTraining", "seeded"]


def seeded(model: ReferSegmenter, seed: int) -> ReferSegmenter:
    """A model whose scores can be repeated: noise is drawn from ``seed`` where its protocol has
    none."""
    noise = model.config.noise
    return model if noise.seed is not None else under(model, replace(noise, seed=seed))


class _Whole:
    """Holds the segmenter where Lightning does not look: only the parts that train are averaged
    and saved in checkpoints. Copies share it."""

    def __init__(self, model: ReferSegmenter) -> None:
        self.model = model

    def __deepcopy__(self, memo: dict[int, Any]) -> _Whole:
        return self


class ReferTraining(PartsTraining):
    """One run of the recipe. Its own parameters are those of the parts that train."""

    def __init__(
        self,
        model: ReferSegmenter,
        config: ReferTrainConfig,
        table: ReferTable | None = None,
        val: ReferSamples | None = None,
        cached: CachedFeatures | None = None,
    ) -> None:
        super().__init__(config.loop.batch, config.loop.micro_batch)
        self.config = config
        self._whole = _Whole(model)
        self._table = table
        self._val = val
        self._cached = cached
        parts = {
            "text": config.train_text,
            "unet": config.trains_unet,
            "adapter": model.config.text_adapter,
            "decoder": True,
        }
        own_parts(self, model, parts, config)

    def setup(self, stage: str) -> None:
        assert self._table is not None
        self._table.to(self.device)
        synchronize_batch_norm(self._whole.model, group())

    def features(self, batch: Batch) -> UNetOutput:
        if self._cached is not None:
            return self._cached(batch.samples)
        model = self._whole.model
        with torch.set_grad_enabled(self.config.train_text):
            states = model.text(batch.ids).hidden
        return model.features(batch.latents, states, batch.index)

    def loss(self, batch: Batch) -> Tensor:
        """What the rows of ``batch`` add to the loss of the whole batch: the cross-entropy is
        divided by the class weights of all its pixels, Dice is a mean over its rows."""
        scores = self._whole.model.scores(self.features(batch))
        weights, objects = self.config.class_weights, batch.whole_pixels
        found = mask_losses(scores, batch.masks, weights)
        background = batch.whole_rows * batch.masks[0].numel() - objects
        loss = found.cross_entropy / (weights[0] * background + weights[1] * objects)
        if self.config.dice_weight > 0:
            loss = loss + self.config.dice_weight * found.dice / batch.whole_rows
        return loss

    def losses(self, step: int, rows: slice) -> dict[str, Tensor]:
        assert self._table is not None
        return {"loss": self.loss(self._table.draw(step, rows))}

    def validation_step(self, _: int) -> None:
        assert self._val is not None
        limit = self.config.data.val_limit
        found = evaluate_refer(
            seeded(self._whole.model, self.config.seed),
            self._val,
            batch=self.config.eval_batch,
            limit=limit,
            progress=False,
            group=group(),
        ).metrics
        # All processes found the same; Lightning asks for the mean over them all the same.
        options: dict[str, Any] = {"batch_size": 1, "sync_dist": group() is not None}
        self.log_dict({k: v for k, v in found.items() if "/" not in k}, **options)
        self.log("val_oIoU", found["oIoU"], prog_bar=True, logger=False, **options)

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        """VPD's groups: no weight decay on parameters with "norm" in their name, another rate for
        the U-Net."""
        config = self.config
        groups: dict[tuple[bool, bool], dict[str, Any]] = {}
        for name, parameter in self.named_parameters():
            of_unet, decays = name.startswith(("unet.", "lora.")), "norm" not in name
            rate = config.loop.lr * (config.unet_lr_mult if of_unet else 1.0)
            group = groups.setdefault(
                (of_unet, decays),
                {
                    "params": [],
                    "lr": rate,
                    "weight_decay": config.loop.weight_decay if decays else 0.0,
                },
            )
            group["params"].append(parameter)
        total = config.loop.steps
        return optimizer_of(
            list(groups.values()), config.loop, lambda step: max(0.0, 1 - step / total) ** 0.9
        )
