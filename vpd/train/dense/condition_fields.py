"""What trainings of segmenters of named classes have in common: how their U-Net is told something
about a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from vpd.models.tagging_adapter import HeadNorm
from vpd.tasks.condition_config import ConditionName, TagSource, check_attention, check_choice
from vpd.train.dense.fields import DenseTrainConfig

__all__ = ["ConditionedTrainConfig", "TaggingOptions"]


@dataclass(frozen=True)
class TaggingOptions:
    """The tagging adapter, and the asymmetric loss on the classes that it finds."""

    text: TagSource = "all_classes"
    """What its queries read: the embeddings of all classes, the ``tags`` of the picture, or
    ``none``."""
    image: bool = True
    """Whether they see the picture."""
    queries: int = 32
    blocks: int = 2
    heads: int = 8
    mlp_ratio: float = 4.0
    single_cross: bool = False
    """One cross-attention to text and picture side by side."""
    head_norm: HeadNorm = "h_unit"
    """How the mean query meets the embeddings of classes: see
    :class:`vpd.TaggingAdapterConfig`."""
    targets: Literal["crop", "image"] = "crop"
    """Classes that are to be found: those in the crop, or in the whole label."""
    gamma_neg: float = 4.0
    gamma_pos: float = 0.0
    """Focus on hard negatives and positives. ASL's class has 1, RAM 7 and 0."""
    clip: float = 0.05
    """Probability below which a negative counts nothing."""
    focus_grad: Literal["none", "full"] = "none"
    """Whether gradients pass through the focus."""

    def __post_init__(self) -> None:
        check_choice("tagging.text", self.text, get_args(TagSource))
        check_choice("tagging.targets", self.targets, ("crop", "image"))
        check_choice("tagging.head_norm", self.head_norm, get_args(HeadNorm))
        if self.text == "none" and not self.image:
            raise ValueError("tagging: text=none and image=false leave nothing to read")


@dataclass(frozen=True)
class ConditionedTrainConfig(DenseTrainConfig):
    """Everything that determines a trained segmenter of named classes but its head and its
    loss."""

    condition: ConditionName = "classes"
    """What the U-Net is told about a picture: nothing (``uncond``, the empty sentence), a
    ``caption``, the names of all ``classes`` (VPD), what its CLIP embedding says (``implicit``,
    ODISE), what the ``tagging`` adapter makes of picture and tags, or the classes in its label
    (``oracle``, which uses the labels of the test too). ``text_adapter`` is of ``classes``
    alone."""
    words: str | None = None
    """``caption``, and ``tagging`` by tags: JSON file of the captions or tags of all pictures,
    by file name. None: rendered scenes of Tabletop say their own, true ones."""
    tagging: TaggingOptions = field(default_factory=TaggingOptions)
    """``tagging``: the adapter and its loss."""
    tag_weight: float = 1.0
    """``tagging``: weight of the multi-label loss of its adapter."""
    captioner: Literal["gated", "mlp"] = "gated"
    """``implicit``: ODISE's gate, or its equation's MLP."""
    image_encoder: Literal["vit_b32", "vit_b16", "vit_l14", "vit_l14_336"] = "vit_l14"
    """``implicit`` and ``tagging``, with ``weights``: which CLIP sees the picture. A foundation
    brings its own."""
    image_weights: str | None = None
    """Its weights, with ``weights``: a file of transformers' or OpenAI's."""
    attention: tuple[int, ...] = (2, 4)
    """Strides on the latent grid whose maps the head sees, 1 being the finest; () for none."""
    scale_maps: bool = True
    """Multiply maps by the number of texts, so that they have the scale of features. VPD does
    not."""
    map_grad: Literal["detach", "full"] = "detach"
    """Whether gradients pass from the head through the maps. VPD's published training: they do
    not."""

    of_unet: ClassVar[tuple[str, ...]] = (
        *DenseTrainConfig.of_unet, "condition", "words", "image_weights",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("condition", self.condition, get_args(ConditionName))
        check_choice("captioner", self.captioner, ("gated", "mlp"))
        if self.tag_weight < 0:
            raise ValueError(f"tag_weight must not be negative, got {self.tag_weight}")
        check_attention(self.condition, self.attention)
        if bool(self.weights) != (self.image_weights is not None) and self.sees:
            raise ValueError(
                f"condition={self.condition} needs image_weights with weights, and no others with "
                f"a foundation, which brings its own; got image_weights={self.image_weights}"
            )

    @property
    def sees(self) -> bool:
        """Whether an image encoder has part in what the U-Net is told."""
        by_adapter = self.condition == "tagging" and self.tagging.image
        return by_adapter or self.condition == "implicit"

    @property
    def reads(self) -> bool:
        """Whether a text encoder reads what is said about a picture."""
        by_tags = self.condition == "tagging" and self.tagging.text == "tags"
        return by_tags or self.condition == "caption"

    @property
    def trains_adapter(self) -> bool:
        if self.backbone == "vit":
            return False
        return self.condition in ("implicit", "tagging") or (
            self.condition == "classes" and self.text_adapter
        )

    @property
    def adapter_name(self) -> str:
        return "text_adapter" if self.condition == "classes" else "condition"

    @property
    def keeps_time(self) -> bool:
        return self.condition != "implicit"

    @property
    def frozen(self) -> tuple[str, ...]:
        return (*super().frozen, *["clip"] * self.sees, *["text"] * self.reads)
