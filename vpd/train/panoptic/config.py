"""What determines a trained panoptic segmenter."""

from __future__ import annotations

from dataclasses import dataclass, field

from vpd.train.dense.condition_fields import ConditionedTrainConfig
from vpd.train.loop.config import LoopConfig
from vpd.train.loop.schedules import ScheduleConfig
from vpd.train.panoptic.options import check_mask_options, mask_loop, mask_schedule

__all__ = ["PanopticTrainConfig"]


@dataclass(frozen=True)
class PanopticTrainConfig(ConditionedTrainConfig):
    """Everything that determines a trained panoptic segmenter. Defaults train vpd-mini on
    Tabletop."""

    out: str = "runs/panoptic"
    loop: LoopConfig = field(default_factory=lambda: mask_loop(12000))
    """ODISE: 92,188 steps of 64, rate 1e-4 after a warm-up of 250 steps, weight decay 0.05 (on
    neither biases nor norms), clipping at 0.01, no averaging."""
    schedule: ScheduleConfig = field(default_factory=mask_schedule)
    crop: int = 128
    """Side in pixels of the square pictures that are trained on, and shorter side in a test. ODISE:
    1024."""
    channels: int = 64
    """Width of the head. Mask2Former: 256."""
    num_queries: int = 30
    """The most segments that a picture can have. Mask2Former: 100."""
    heads: int = 8
    """Of every attention in the head."""
    encoder_layers: int = 3
    """Of deformable attention over the three coarsest maps. Mask2Former: 6."""
    decoder_layers: int = 4
    """Of masked attention from queries to pixels. Mask2Former: 9."""
    norm_groups: int = 16
    """Groups of its group normalisations. Mask2Former: 32."""
    upsample_finest: bool = False
    """Give the head the finest map twice as large besides: masks then have half the stride."""
    class_weight: float = 2.0
    """Of the cross-entropy of classes, in the loss and in the matching, as the next two."""
    mask_weight: float = 5.0
    """Of the cross-entropy of masks."""
    dice_weight: float = 5.0
    no_object: float = 0.1
    """What queries count that should say "no object"."""
    points: int = 512
    """Places at which a mask is compared. Mask2Former: 12,544, for masks of 256 x 256."""
    oversample: float = 3.0
    """Random candidates for each of them."""
    uncertain: float = 0.75
    """Share of them that is chosen among the candidates, those where the mask is least sure."""
    scale: tuple[float, float] = (0.1, 2.0)
    """``augment: full``, large-scale jittering: range of the factor, 1 being as large as fits into
    ``crop``."""
    max_size: int | None = None
    """Longer side of a picture in a test, at most; its shorter side becomes ``crop``. None: 2.5
    times that, as ODISE's 2560."""
    min_score: float = 0.0
    """Masks of a class less likely than this are no segments."""
    min_overlap: float = 0.8
    """A segment keeps at least this share of its mask where other masks win pixels, or is none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_mask_options(self)
