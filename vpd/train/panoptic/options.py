"""What the configs of both panoptic trainings share: ODISE's loop and schedule made small, and what
they say about Mask2Former's head and criterion."""

from __future__ import annotations

from typing import Any

from vpd.data.augment import check_shares
from vpd.train.loop.config import LoopConfig
from vpd.train.loop.schedules import ScheduleConfig

__all__ = ["check_mask_options", "mask_head_fields", "mask_loop", "mask_schedule"]


def mask_loop(steps: int) -> LoopConfig:
    """The loop of trainings of vpd-mini on Tabletop."""
    return LoopConfig(
        steps=steps, batch=16, lr=5e-4, weight_decay=0.05, warmup=100, ema=0.995, clip=0.01,
        val_every=2000,
    )  # fmt: skip


def mask_schedule() -> ScheduleConfig:
    """ODISE's learning rates: drops after 8/9 and 26/27 of the steps, a warm-up from 0.067."""
    return ScheduleConfig(kind="multi_step", milestones=(0.8889, 0.9630), warmup_from=0.067)


def check_mask_options(config: Any) -> None:
    """Refuses a head or a criterion that there cannot be.

    Raises:
        ValueError: A number out of its range.
    """
    for name in ("channels", "num_queries", "heads", "decoder_layers", "points"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
    for name in ("class_weight", "mask_weight", "dice_weight", "no_object"):
        if getattr(config, name) < 0:
            raise ValueError(f"{name} must not be negative, got {getattr(config, name)}")
    check_shares(
        uncertain=config.uncertain, min_score=config.min_score, min_overlap=config.min_overlap
    )


def mask_head_fields(config: Any) -> dict[str, Any]:
    """Fields of both segmenters' configs: the head, and how its masks become segments."""
    names = (
        "channels", "num_queries", "heads", "encoder_layers", "decoder_layers", "norm_groups",
        "min_score", "min_overlap",
    )  # fmt: skip
    found = {name: getattr(config, name) for name in names}
    return {**found, "max_size": config.max_size or round(2.5 * config.crop)}
