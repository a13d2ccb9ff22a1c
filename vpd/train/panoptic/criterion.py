"""Mask2Former's criterion as a training has it: parts of a batch add up to the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vpd.losses import mask2former_loss
from vpd.randomness import named_generator
from vpd.train.distributed import total

__all__ = ["MaskCriterion", "Whole"]


class Whole(NamedTuple):
    """Of the batch of a step, all processes and passes together."""

    masks: float
    """Segments that are to be seen, at least 1."""
    weight: float
    """Sum of the weights of the queries' classes."""


class MaskCriterion:
    """The criterion at every output of the head: the same sum however a batch is divided.

    Args:
        config: Of the training; weights, points, ``num_queries``, ``loop.batch`` and ``seed``.

    Attributes:
        whole: What was said last by :meth:`begin`.
    """

    def __init__(self, config: Any) -> None:
        self._config = config
        self._step, self.whole = -1, Whole(1, 1)

    def __deepcopy__(self, memo: dict[int, Any]) -> MaskCriterion:
        return self

    def begin(self, step: int, counts: Callable[[], Sequence[int]], device: torch.device) -> None:
        """Sums up over all processes what a step's batch has, at its first call in each of them.

        Args:
            step: Of the training.
            counts: Segments that are to be seen in each of this process's pictures.
            device: Where processes exchange it.
        """
        if self._step == step:
            return
        own = counts()
        sums = {"masks": float(sum(own)), "weight": self._weight(own)}
        found = total({k: torch.tensor(v, device=device) for k, v in sums.items()})
        self._step = step
        self.whole = Whole(max(1.0, float(found["masks"])), float(found["weight"]))

    def __call__(
        self,
        step: int,
        rows: slice,
        logits: Sequence[Tensor],
        masks: Sequence[Tensor],
        labels: Sequence[Tensor],
        targets: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """What some rows of a step add: ``loss``, and the terms of the last output without their
        weights, ``classes``, ``masks`` and ``dice``. Arguments as of
        :func:`vpd.losses.mask2former_loss`."""
        config, whole = self._config, self.whole
        # Points of some rows of a step are the same whenever, and by whomever, they are computed.
        first = rows.indices(config.loop.batch)[0]
        found = mask2former_loss(
            logits,
            masks,
            labels,
            targets,
            weights=(config.class_weight, config.mask_weight, config.dice_weight),
            no_object=config.no_object,
            points=config.points,
            oversample=config.oversample,
            uncertain=config.uncertain,
            num_masks=whole.masks,
            generator=named_generator(masks[0].device, "points", config.seed, step, first),
        )
        share = self._weight([len(own) for own in labels]) / whole.weight
        classes = found.cross_entropy * share  # a mean by these weights
        loss = (
            config.class_weight * classes.sum()
            + config.mask_weight * found.mask.sum()
            + config.dice_weight * found.dice.sum()
        )
        terms = {"classes": classes[-1], "masks": found.mask[-1], "dice": found.dice[-1]}
        return {"loss": loss, **terms}

    def _weight(self, counts: Sequence[int]) -> float:
        """What the classes of all queries count together, for pictures of so many segments."""
        queries = self._config.num_queries
        matched = sum(min(count, queries) for count in counts)
        return matched + self._config.no_object * (len(counts) * queries - matched)
