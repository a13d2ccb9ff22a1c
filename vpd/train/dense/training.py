"""Training of models with a value for every pixel: what segmentation and depth share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from vpd.models.unet import UNetOutput
from vpd.nn import synchronize_batch_norm
from vpd.tasks.dense import Context
from vpd.train.caching.latents import with_noise
from vpd.train.caching.outputs import CachedOutputs
from vpd.train.dense.cache import Said, context_of
from vpd.train.dense.fields import DenseTrainConfig
from vpd.train.dense.table import DenseBatch, DenseTable
from vpd.train.distributed import group
from vpd.train.loop.modes import own_parts
from vpd.train.loop.optimizer import Rule, grouped, optimizer_of
from vpd.train.loop.parts import PartsTraining

__all__ = ["DenseRun", "DenseTraining"]

_HEADS = ("neck", "head", "aux_head")


@dataclass(frozen=True)
class DenseRun:
    """What a training works on. It stands where Lightning does not look: only the parts that train
    are averaged and saved in checkpoints. Copies of the training share it."""

    model: Any
    """:class:`vpd.SemanticSegmenter`, :class:`vpd.PanopticSegmenter` or
    :class:`vpd.DepthEstimator`."""
    table: DenseTable | None = None
    val: Any = None
    cached: CachedOutputs | None = None
    said: Said | None = None
    """What the U-Net is told about a picture of the table."""
    present: Callable[[int], Sequence[Any]] | None = None
    """The classes in a picture's whole label; of panoptic segmentation, its segments."""

    def __deepcopy__(self, memo: dict[int, Any]) -> DenseRun:
        return self


class DenseTraining(PartsTraining):
    """One run of a recipe. Its own parameters are those of the parts that train.

    A subclass says in :meth:`losses` what is learnt, in :meth:`rule` at which rates, and in
    :meth:`evaluate` how well.
    """

    monitor: ClassVar[str]
    """Metric that tells which weights are best."""
    mode: ClassVar[Literal["max", "min"]]

    def __init__(self, config: DenseTrainConfig, run: DenseRun) -> None:
        super().__init__(config.loop.batch, config.loop.micro_batch)
        self.config, self.run = config, run
        parts = {"unet": config.trains_unet, "adapter": config.trains_adapter}
        parts |= {name: getattr(run.model, name, None) is not None for name in _HEADS}
        own_parts(self, run.model, parts, config)

    def rule(self) -> Rule:
        """Rates and decays of the parameters."""
        raise NotImplementedError

    def evaluate(self, limit: int | None, progress: bool = False) -> dict[str, float]:
        """Scores on the validation split, the same in all processes."""
        raise NotImplementedError

    @property
    def scored(self) -> Any:
        """The model, with noise that comes again where its protocol draws it anew: so that scores
        can be repeated."""
        model, noise = self.run.model, self.run.model.config.noise
        if noise.seed is not None:
            return model
        return with_noise(model, replace(noise, seed=self.config.seed))

    @property
    def table(self) -> DenseTable:
        assert self.run.table is not None
        return self.run.table

    def setup(self, stage: str) -> None:
        self.table.to(self.device)
        synchronize_batch_norm(self.run.model, group())

    def context(self, batch: DenseBatch) -> Context | None:
        """What the U-Net is told; None where what it answers is known."""
        run = self.run
        if run.cached is not None:
            return None
        return context_of(run.model, run.said, batch.pictures, batch.seen)

    def features(self, batch: DenseBatch, context: Context | None = None) -> UNetOutput:
        """The U-Net's output under a context, :meth:`context` if none is given."""
        if self.run.cached is not None:
            return self.run.cached(batch.views)
        return self.run.model.attend(batch.latents, context or self.context(batch))

    def validation_step(self, _: int) -> None:
        found = self.evaluate(self.config.data.val_limit)
        # All processes found the same; Lightning asks for the mean over them all the same.
        options: dict[str, Any] = {"batch_size": 1, "sync_dist": group() is not None}
        self.log_dict({k: float(v) for k, v in found.items()}, **options)
        name = f"val_{self.monitor}"
        self.log(name, found[self.monitor], prog_bar=True, logger=False, **options)

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        config, loop = self.config, self.config.loop
        groups = grouped(self.named_parameters(), self.rule(), loop.lr, loop.weight_decay)
        return optimizer_of(
            groups,
            replace(loop, warmup=0),  # the schedule has mmcv's instead
            lambda step: config.schedule.factor(step, loop.steps, loop.warmup),
        )
