"""A Trainer that logs, checkpoints and resumes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning_utilities.core.imports import RequirementCache

from vpd.memory import set_freed_memory
from vpd.nn import channels_last
from vpd.train.distributed import present, same_everywhere, trainer_options
from vpd.train.loop.config import LoopConfig, resolve_precision
from vpd.train.loop.interrupts import interruptible
from vpd.train.loop.progress import CurvesPicture
from vpd.train.loop.recipe import keep_recipe
from vpd.train.loop.records import Curves, WholeCheckpoints


class Steps:
    """Stands where Lightning wants a data loader: counts steps. Batches are drawn in the training
    step, from the step's number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


class GradientClipping(pl.Callback):
    """Clips the norm of all gradients. The Trainer's own clipping refuses fused optimizers, out of
    care for loss scaling, which bf16 does not need."""

    def __init__(self, norm: float) -> None:
        self.norm = norm

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        torch.nn.utils.clip_grad_norm_(pl_module.parameters(), self.norm)


def fit(
    module: pl.LightningModule,
    config: LoopConfig,
    folder: Path,
    *,
    progress: bool = True,
    monitor: str | None = None,
    mode: Literal["max", "min"] = "max",
) -> None:
    """Trains ``module`` for ``config.steps`` steps, going on from ``folder/last.ckpt`` if there is
    one; with the processes of :func:`vpd.train.distributed.join`, if any.

    Writes ``last.ckpt`` (and ``best.ckpt`` by the metric ``monitor``, the larger or with ``mode``
    the smaller the better), ``metrics.csv``, ``curves.png`` and TensorBoard files to ``folder``.
    The first process alone writes.
    Afterwards the module holds the averaged weights if ``config.ema`` is set; with ``monitor``, the
    best ones.
    """
    _fit(module, config, folder, progress, monitor, mode)
    if monitor is not None:
        best = torch.load(folder / "best.ckpt", weights_only=True, map_location="cpu")
        module.load_state_dict(best["state_dict"])


def fit_recipe(
    module: pl.LightningModule,
    config: Any,
    monitor: str | None = None,
    mode: Literal["max", "min"] = "max",
) -> None:
    """:func:`fit` by a task's config, which is kept in its folder: ``recipe.json``, against which
    :func:`vpd.train.loop.parts.begun` holds the config of a run that goes on."""
    if present().first:
        keep_recipe(config)
    folder = Path(config.out)
    fit(module, config.loop, folder, progress=config.progress, monitor=monitor, mode=mode)


def _fit(
    module: pl.LightningModule,
    config: LoopConfig,
    folder: Path,
    progress: bool,
    monitor: str | None,
    mode: Literal["max", "min"],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    channels_last(module)
    set_freed_memory(config.freed_memory)
    last = folder / "last.ckpt"
    resumed = same_everywhere(last.exists(), f"whether {last} is there")
    if resumed and _finished(module, config, last):
        return
    callbacks: list[pl.Callback] = [
        ModelCheckpoint(
            folder,
            filename="last",
            every_n_train_steps=config.checkpoint_every,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )
    ]
    if monitor is not None:
        callbacks.append(
            ModelCheckpoint(
                folder,
                filename="best",
                monitor=monitor,
                mode=mode,
                enable_version_counter=False,
                save_on_train_epoch_end=False,
            )
        )
    if config.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=config.ema))
    if config.clip is not None:
        callbacks.append(GradientClipping(config.clip))
    callbacks.append(CurvesPicture())
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=max(1, config.log_every // 5)))
    loggers: list[Logger] = []
    if present().first:
        loggers.append(Curves(folder))
        if RequirementCache("tensorboard"):
            loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
    trainer = pl.Trainer(
        **trainer_options(WholeCheckpoints()),
        default_root_dir=folder,
        max_steps=config.steps,
        max_epochs=-1,
        precision=resolve_precision(config.precision),  # type: ignore[arg-type]
        callbacks=callbacks,
        logger=loggers,
        log_every_n_steps=config.log_every,
        val_check_interval=config.val_every,
        check_val_every_n_epoch=None,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        enable_progress_bar=progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    with interruptible():
        trainer.fit(
            module,
            train_dataloaders=Steps(config.steps),
            val_dataloaders=Steps(1),
            ckpt_path=last if resumed else None,
            weights_only=True,
        )


def _finished(module: pl.LightningModule, config: LoopConfig, last: Path) -> bool:
    """Whether a checkpoint is of the last step; its weights, averaged ones if any, then go into the
    module. The Trainer has nothing left to do there, not even the averaging's last step."""
    checkpoint = torch.load(last, weights_only=True, map_location="cpu")
    done = checkpoint["global_step"]
    if done < config.steps:
        return False
    if done > config.steps:
        raise ValueError(
            f"{last} is of step {done}, expected at most {config.steps}; choose another folder "
            "with --out, or remove it"
        )
    module.load_state_dict(checkpoint["state_dict"])
    return True
