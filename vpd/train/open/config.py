"""What determines a trained open-vocabulary panoptic segmenter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

from vpd.data.augment import check_shares
from vpd.losses.grounding import GroundingForm
from vpd.models.unet import Recompute
from vpd.tasks.condition_config import check_choice
from vpd.tasks.open_config import Supervision
from vpd.train.dense.fields import DenseData
from vpd.train.loop.config import LoopConfig
from vpd.train.loop.schedules import ScheduleConfig
from vpd.train.panoptic.options import check_mask_options, mask_loop, mask_schedule

__all__ = ["OpenTrainConfig"]


@dataclass(frozen=True)
class OpenTrainConfig:
    """Everything that determines a trained open-vocabulary segmenter. Defaults train vpd-mini on
    Tabletop."""

    out: str = "runs/open"
    foundation: str = "vpd-mini"
    """A shipped model's name or a folder, with CLIP: where all networks that do not train come
    from."""
    weights: str | tuple[str, ...] = ()
    """Instead of a foundation, full size: Stable Diffusion v1 (a file or a diffusers folder) and
    CLIP ViT-L/14 at 336 pixels; and an official ODISE checkpoint if one is to go on from."""
    data: DenseData = field(default_factory=DenseData)
    by: Literal["shape", "color"] = "shape"
    """Tabletop: what an object's category is."""
    vocabulary: str | None = None
    """Names of the data set's classes, in their order: a label set that comes with vpd or a file of
    one (:class:`vpd.Vocabulary`). None: the label set of the data set, or else its own names
    (:func:`vpd.vocabulary.data_vocabulary`)."""
    held_out: tuple[str, ...] = ()
    """Categories that are not trained on: pictures that show one are left out, and so are words of
    captions that name one."""
    supervision: Supervision = "labels"
    """``labels``: masks learn their categories; ``captions``: they learn to be objects, and the
    words of the picture's captions."""
    captions: str | None = None
    """``supervision: captions``: JSON file of the pictures' captions, COCO's or another by picture
    (:func:`vpd.tags.cached.read_captions`). None: rendered scenes of Tabletop say their own."""
    loop: LoopConfig = field(default_factory=lambda: mask_loop(6000))
    """ODISE: 92,188 steps of 64, rate 1e-4 after a warm-up of 250 steps, weight decay 0.05 (on
    neither biases nor norms), clipping at 0.01, no averaging."""
    epochs: int | None = None
    """If set, the number of steps follows from it."""
    schedule: ScheduleConfig = field(default_factory=mask_schedule)
    crop: int = 128
    """Side in pixels of the square pictures that are trained on, and shorter side in a test. ODISE:
    1024."""
    image_size: int | None = None
    """Side of what the diffusion model sees; None: ``crop``. ODISE: 512, so that it sees a picture
    that is trained on in four parts, and one of a test in squares as high as it, shrunk."""
    augment: Literal["none", "flip", "full"] = "flip"
    """``flip``: each picture and its mirror image, squashed to ``crop``; ``none``: each picture
    alone; ``full``: ODISE's large-scale jittering, pictures are read, changed and looked at anew in
    every step."""
    scale: tuple[float, float] = (0.1, 2.0)
    """``augment: full``: range of the factor, 1 being as large as fits into ``crop``."""
    unet_init: Literal["pretrained", "random"] = "pretrained"
    """``random``: a U-Net that has learnt nothing, to measure what the prior is worth."""
    captioner: Literal["gated", "mlp", "none"] = "gated"
    """What the U-Net is told: see :class:`vpd.ImplicitCaptionerConfig`; ``none``: the empty
    sentence."""
    learnable_time_embed: bool = True
    """Whether the captioner changes the U-Net's time embedding too."""
    steps: tuple[int, ...] = (0,)
    """Timesteps at which the U-Net is run and tapped; below 0: at step 0 without noise."""
    projection_dim: int = 64
    """Channels of the feature maps. ODISE: 512."""
    channels: int = 64
    """Width of the head. ODISE: 256."""
    embedding_dim: int = 64
    """Of the masks' embeddings. ODISE: 256."""
    num_queries: int = 30
    """The most segments that a picture can have. ODISE: 100."""
    heads: int = 8
    """Of every attention in the head."""
    encoder_layers: int = 3
    """Of deformable attention over the three coarsest maps. ODISE: 6."""
    decoder_layers: int = 4
    """Of masked attention from queries to pixels. ODISE: 9."""
    norm_groups: int = 8
    """Groups of its group normalisations. ODISE: 32."""
    class_weight: float = 2.0
    """Of the cross-entropy of categories, in the loss and in the matching, as the next two."""
    mask_weight: float = 5.0
    """Of the cross-entropy of masks."""
    dice_weight: float = 5.0
    no_object: float = 0.1
    """What queries count that should say "no object"."""
    grounding_weight: float = 1.0
    """Of the grounding of words, with captions."""
    grounding_form: GroundingForm = "code"
    words: int = 8
    """Nouns of a caption, drawn with replacement."""
    points: int = 512
    """Places at which a mask is compared. ODISE: 12,544, for masks of 256 x 256."""
    oversample: float = 3.0
    """Random candidates for each of them."""
    uncertain: float = 0.75
    """Share of them that is chosen among the candidates, those where the mask is least sure."""
    clip_branch: Literal["mask_tokens", "pool", "none"] = "mask_tokens"
    """What CLIP says about each mask in a test."""
    alpha: float | None = None
    """How much that counts for categories that were trained on; None: ODISE's 0.3, or 0.35 with
    captions."""
    beta: float | None = None
    """How much for the others; None: ODISE's 0.7, or 0.65 with captions."""
    recompute: Recompute = "none"
    """What the backward computes again instead of keeping it: ``feed_forward``,
    ``attention`` or ``all`` of the U-Net (see :attr:`vpd.UNet.recompute`). ODISE: all."""
    feature_cache: Literal["float16", "float32", "none"] = "float16"
    """How what frozen networks make of pictures before the U-Net is kept on disk, for other runs
    too; ``none``, or ``augment: full``: they run in every step."""
    shuffled: bool = True
    """Score the trained model once more with the names of things mixed up."""
    without_clip: bool = True
    """Score it once more without what CLIP says, where it has a say."""
    max_size: int | None = None
    """Longer side of a picture in a test, at most; None: 2.5 times ``crop``."""
    min_score: float = 0.0
    min_overlap: float = 0.8
    select: Literal["last", "best"] = "last"
    """Which weights are kept: the last, or those with the best PQ on the watched pictures."""
    seed: int = 0
    progress: bool = True

    lora: ClassVar[None] = None

    def __post_init__(self) -> None:
        for name, allowed in (
            ("supervision", ("labels", "captions")),
            ("augment", ("none", "flip", "full")),
            ("recompute", get_args(Recompute)),
            ("unet_init", ("pretrained", "random")),
            ("by", ("shape", "color")),
            ("feature_cache", ("float16", "float32", "none")),
        ):
            check_choice(name, getattr(self, name), allowed)
        check_mask_options(self)
        for name in ("crop", "words"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.grounding_weight < 0:
            raise ValueError(f"grounding_weight must not be negative, got {self.grounding_weight}")
        check_shares(alpha=self.clip_shares[0], beta=self.clip_shares[1])
        if self.data.name not in ("tabletop", "coco-panoptic", "ade20k-panoptic"):
            raise ValueError(
                "data.name must be one of ('tabletop', 'coco-panoptic', 'ade20k-panoptic'), got "
                f"{self.data.name!r}"
            )
        if self.by != "shape" and (self.data.name != "tabletop" or self.data.root is not None):
            raise ValueError(
                f"by={self.by} is of rendered scenes of Tabletop, got another data set"
            )
        if self.side < 1 or self.crop % self.side:
            raise ValueError(
                f"crop must be a multiple of image_size={self.side}, the windows, got {self.crop}"
            )
        if self.augment != "full" and self.side != self.crop:
            raise ValueError(
                f"image_size other than crop={self.crop} needs augment=full, got {self.side}"
            )
        if self.captions is not None and self.supervision != "captions":
            raise ValueError(f"captions needs supervision=captions, got {self.captions!r}")
        rendered = self.data.name == "tabletop" and self.data.root is None
        if self.supervision == "captions" and self.captions is None and not rendered:
            raise ValueError(
                "supervision=captions needs captions, a JSON file of the pictures' captions: "
                f"data.name={self.data.name} on disk has none of its own"
            )
        if self.supervision == "captions" and self.loop.micro_batch is not None:
            raise ValueError(
                "loop.micro_batch has no meaning with supervision=captions, which compares all "
                f"pictures of a batch, got {self.loop.micro_batch}"
            )

    @property
    def side(self) -> int:
        """Of what the diffusion model sees."""
        return self.crop if self.image_size is None else self.image_size

    @property
    def weight_files(self) -> list[Path]:
        """``weights``, one or several, as paths."""
        names = (self.weights,) if isinstance(self.weights, str) else self.weights
        return [Path(name) for name in names]

    @property
    def clip_shares(self) -> tuple[float, float]:
        """``alpha`` and ``beta``."""
        own = (0.3, 0.7) if self.supervision == "labels" else (0.35, 0.65)
        first = own[0] if self.alpha is None else self.alpha
        return first, own[1] if self.beta is None else self.beta
