"""What determines a trained semantic segmenter, and a trained depth estimator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vpd.metrics.depth import DepthCrop
from vpd.tasks.condition_config import check_choice
from vpd.train.dense.condition_fields import ConditionedTrainConfig
from vpd.train.dense.fields import DenseTrainConfig
from vpd.train.loop.config import LoopConfig
from vpd.train.loop.schedules import ScheduleConfig

__all__ = ["DepthTrainConfig", "SemanticTrainConfig"]


@dataclass(frozen=True)
class SemanticTrainConfig(ConditionedTrainConfig):
    """Everything that determines a trained semantic segmenter. Defaults train vpd-mini on
    Tabletop."""

    out: str = "runs/semantic"
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=6000, batch=16, lr=1e-3, warmup=50, ema=0.995, val_every=1500
        )
    )
    """VPD: 80,000 steps of 16, rate 8e-5 after a warm-up of 1,500 steps, weight decay 0.001,
    neither averaging nor clipping."""
    head: Literal["fpn", "uper"] = "fpn"
    """Semantic FPN with its neck, or UperNet."""
    channels: int = 64
    """Width of the head. VPD: 256; UperNet's is 512."""
    dropout: float = 0.1
    auxiliary: bool = False
    """Train an FCN head on the second coarsest map beside the head, as UperNet is trained."""
    aux_weight: float = 0.4
    """Weight of the auxiliary head's loss."""
    average: Literal["all", "valid"] = "all"
    """What the cross-entropy is divided by: ``all`` pixels of the batch (VPD), or those that have a
    class."""
    mmcv_key_quirk: bool = False
    """Groups of the optimizer as the released code has them: parameters of the U-Net with "norm" in
    their name train at the full rate without weight decay, those of its residual blocks' norms and
    of the head's with it. Otherwise the whole U-Net has its factor, and no norm decays."""
    resize_to: tuple[int, int] | None = None
    """``augment: full``: limits of the long and the short side, multiplied by a random ratio; None:
    four times the shorter side of ``crop`` and that side, as VPD's 2048 x 512."""
    ratio: tuple[float, float] = (0.5, 2.0)
    """Range of that ratio."""
    test_resize: Literal["keep_ratio", "none"] = "keep_ratio"
    """How a picture comes to the test: its shorter side becomes that of ``crop``, or as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("head", self.head, ("fpn", "uper"))
        check_choice("average", self.average, ("all", "valid"))
        if self.aux_weight < 0:
            raise ValueError(f"aux_weight must not be negative, got {self.aux_weight}")


@dataclass(frozen=True)
class DepthTrainConfig(DenseTrainConfig):
    """Everything that determines a trained depth estimator. Defaults train vpd-mini on Tabletop."""

    out: str = "runs/depth"
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=6000, batch=16, lr=1e-3, weight_decay=0.1, warmup=0, ema=0.995, val_every=1500
        )
    )
    """VPD: 25 epochs of batches of 24, highest rate 5e-4, weight decay 0.1 (on neither biases nor
    norms), neither averaging nor clipping. The loss of a part of a batch (``micro_batch``, or the
    share of a process) is its own, and that of the batch their mean."""
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(kind="triangle", power=0.9, least=0.06)
    )
    crop: int = 128
    """Side in pixels of the square pictures that are trained on, and of the windows of a test. VPD:
    480."""
    variance_focus: float = 0.5
    """How much of an error that all pixels share the loss forgives, in [0, 1]. VPD: 0.5."""
    max_depth: float = 10.0
    """Metres that depth cannot exceed."""
    embed_dim: int = 48
    """Width of the head's last convolutions. VPD: 192."""
    num_filters: int = 32
    """Channels of its transposed convolutions. VPD: 32."""
    norm_groups: int = 16
    """Groups of its group normalisations."""
    cutdepth_cast: Literal["scale", "wrap"] = "scale"
    """``augment: full``: how depth becomes a grey value in CutDepth's strips: ``scale``: depth /
    max_depth; ``wrap``: millimetres modulo 256, which is what the released code does."""
    windows: int | None = None
    """Of a test, shifted along the longer side; None: as few as cover a picture. VPD: 2."""
    flip_test: bool = True
    """Average over mirrored windows in a test."""
    metric_crop: DepthCrop = "none"
    """Pixels that count in a test. NYUv2: ``nyu_eigen``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.variance_focus <= 1:
            raise ValueError(f"variance_focus must be in [0, 1], got {self.variance_focus}")
        if not self.max_depth > 0:
            raise ValueError(f"max_depth must be positive, got {self.max_depth}")
