"""Training of segmenters of named classes: what is said to their U-Net, and what the tagging
adapter learns besides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vpd.losses import asymmetric_loss
from vpd.tasks.dense import Context
from vpd.tasks.words import Words, present, words_of
from vpd.train.dense.condition_fields import ConditionedTrainConfig
from vpd.train.dense.table import DenseBatch
from vpd.train.dense.training import DenseTraining

__all__ = ["ConditionedTraining", "present_classes", "said_words"]


class ConditionedTraining(DenseTraining):
    """Adds the multi-label loss of the tagging adapter, where there is one.

    A subclass says in :meth:`seen_classes` what is there to be found.
    """

    config: ConditionedTrainConfig

    def seen_classes(self, batch: DenseBatch) -> Tensor:
        """bool [B, K]: the classes in the drawn part of each label."""
        raise NotImplementedError

    def label_classes(self, picture: int) -> Sequence[int]:
        """The classes in a picture's whole label."""
        assert self.run.present is not None
        return self.run.present(picture)

    def one_hot(self, classes: Sequence[Sequence[int]]) -> Tensor:
        """bool [B, K], of the classes of B pictures."""
        count = len(self.run.model.config.classes)
        found = torch.zeros(len(classes), count, dtype=torch.bool, device=self.device)
        for row, own in zip(found, classes, strict=True):
            row[list(own)] = True
        return found

    def tag_sums(self, context: Context | None, batch: DenseBatch) -> dict[str, Tensor]:
        """The multi-label loss of some rows as part of that of the batch, ``tag_loss``, and how
        many classes were found, said and true; {} without a tagging adapter."""
        if context is None or context.tags is None:
            return {}
        own, target = self.config.tagging, self._to_find(batch)
        logits = context.tags.float().expand(target.shape)
        loss = asymmetric_loss(
            logits,
            target,
            gamma_neg=own.gamma_neg,
            gamma_pos=own.gamma_pos,
            clip=own.clip,
            focus_grad=own.focus_grad,
        )
        said = logits.detach() > 0
        return {
            "tag_loss": loss / self.config.loop.batch,
            "tag_found": (said & target).sum().float(),
            "tag_said": said.sum().float(),
            "tag_true": target.sum().float(),
        }

    def tag_scores(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is logged of them: the loss, and the F1 score of all decisions of a step."""
        if "tag_loss" not in sums:
            return {}
        decisions = (sums["tag_said"] + sums["tag_true"]).clamp(min=1)
        return {"tag_loss": sums["tag_loss"], "tag_f1": 200.0 * sums["tag_found"] / decisions}

    def _to_find(self, batch: DenseBatch) -> Tensor:
        """bool [B, K], the classes that the tagging adapter should find."""
        if self.config.tagging.targets == "crop":
            return self.seen_classes(batch)
        return self.one_hot([self.label_classes(own) for own in batch.pictures])


def said_words(config: ConditionedTrainConfig, data: Any) -> Callable[[Any], Any] | None:
    """From a sample to what the U-Net is told about it; None where that is nothing."""
    return words_of(config.condition, config.tagging.text, data, config.words)


def present_classes(config: ConditionedTrainConfig, data: Any) -> Callable[[Any], Any] | None:
    """From a sample to the classes in its whole label, where the tagging adapter is to find
    those."""
    if config.condition != "tagging" or config.tagging.targets == "crop":
        return None
    return Words("labels", lambda sample: present(sample, data.ignore_index))
