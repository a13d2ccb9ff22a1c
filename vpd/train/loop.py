"""What every training run shares: a Trainer that logs, checkpoints and resumes, and batches that
depend on the step alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor

from vpd.memory import FreedMemory, set_freed_memory
from vpd.nn import channels_last
from vpd.train.distributed import present, same_everywhere, trainer_options
from vpd.train.parts import Shares
from vpd.train.progress import CurvesPicture
from vpd.train.records import Curves, WholeCheckpoints

Precision = Literal["auto", "32", "bf16"]


@dataclass(frozen=True)
class LoopConfig:
    """How a training run is driven."""

    steps: int = 1000
    batch: int = 16
    """Rows of a step: the *global* batch, of all processes and passes together."""
    micro_batch: int | None = None
    """Rows that a process computes at a time. It goes through its share of the batch in as many
    passes as that takes, which costs the memory of one; the gradient is that of the whole batch,
    but batch norms see micro batches. None: the whole share at once."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """``adam``: Kingma and Ba's, with the weight decay in the gradient instead of beside it (the
    F-VPD report's)."""
    lr: float = 5e-4
    weight_decay: float = 0.01
    beta2: float = 0.999
    warmup: int = 100
    """Steps over which the learning rate rises from 0."""
    ema: float | None = None
    """Decay of the averaged weights that are evaluated and kept; None for none."""
    clip: float | None = 1.0
    """Largest gradient norm; None for no clipping."""
    precision: Precision = "auto"
    """``auto``: bf16 autocast on a GPU or on a CPU with AVX-512 bf16, else float32."""
    freed_memory: FreedMemory = "kept"
    """``kept``: fastest for small networks; ``returned``: the least memory, for large ones (on the
    CPU)."""
    log_every: int = 50
    val_every: int = 1000
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        if self.optimizer not in ("adamw", "adam"):
            raise ValueError(f"optimizer must be 'adamw' or 'adam', got {self.optimizer!r}")
        for name in ("steps", "batch", "log_every", "val_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        Shares(self.batch, self.micro_batch)  # refuses what cannot be divided


def step_generator(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Randomness of one training step. It depends on (seed, step) only, so a resumed run draws
    what an uninterrupted one does."""
    return torch.Generator(device).manual_seed((seed * 1_000_003 + step) % 2**63)


class Resident:
    """Tensors that stay in memory for a whole run. Copies of a module (weight averaging makes one)
    share them."""

    def __init__(self, **tensors: Tensor) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def to(self, device: torch.device) -> None:
        self._tensors = {name: tensor.to(device) for name, tensor in self._tensors.items()}

    def __deepcopy__(self, memo: dict[int, Any]) -> Resident:
        return self


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


def resolve_precision(precision: Precision) -> str:
    """Lightning's name of a precision."""
    if precision == "32":
        return "32-true"
    native = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if precision == "bf16" or native else "32-true"


def optimizer_of(
    groups: list[dict[str, Any]], config: LoopConfig, schedule: Callable[[int], float]
) -> dict[str, Any]:
    """The config's optimizer, with a learning rate that follows ``schedule(step)`` (a factor) after
    the warm-up."""
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.optimizer]
    optimizer = kind(
        groups,
        lr=config.lr,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / max(1, config.warmup)) * schedule(step)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


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
    if checkpoint["global_step"] < config.steps:
        return False
    module.load_state_dict(checkpoint["state_dict"])
    return True
