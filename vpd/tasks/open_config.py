"""What an open-vocabulary panoptic segmenter is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vpd.data.augment import check_shares
from vpd.models.clip_text import CLIPTextConfig
from vpd.tasks.condition_config import check_choice
from vpd.tasks.odise_config import OdiseFeaturesConfig

__all__ = ["OpenPanopticConfig", "Supervision"]

Supervision = Literal["labels", "captions"]


@dataclass(frozen=True)
class OpenPanopticConfig(OdiseFeaturesConfig):
    """An open-vocabulary panoptic segmenter; the defaults are ODISE's, trained with the labels of
    COCO, which are not given here."""

    text: CLIPTextConfig = field(default_factory=lambda: CLIPTextConfig(projection_dim=768))
    """The encoder of names; one ``projection_dim`` with ``image``."""
    categories: tuple[tuple[str, ...], ...] = ()
    """Names of the categories that were trained on, and what a picture is searched for unless
    something else is asked for."""
    things: tuple[bool, ...] = ()
    """By category, whether it has countable objects; () for all."""
    supervision: Supervision = "labels"
    """What masks learnt their embeddings from."""
    clip_branch: Literal["mask_tokens", "pool", "none"] = "mask_tokens"
    """What CLIP says about each mask: see :func:`vpd.models.mask_clip.mask_embeddings`."""
    alpha: float = 0.3
    """How much CLIP counts for categories that were trained on."""
    beta: float = 0.7
    """How much it counts for the others."""
    templates: str = "bare"
    """Sentences around names: see :func:`vpd.tasks.class_texts.templates`."""
    clip_templates: str = "single"
    """Sentences around names that CLIP compares pictures with."""
    channels: int = 256
    """Width of the head: of pixels, queries and mask features. Feed-forward parts have four times
    as many inside for pixels, eight times for queries."""
    embedding_dim: int = 256
    """Of the masks' embeddings."""
    num_queries: int = 100
    """The most segments that a picture can have."""
    heads: int = 8
    encoder_layers: int = 6
    """Of deformable attention over the three coarsest maps."""
    decoder_layers: int = 9
    """Of masked attention from queries to pixels."""
    test_size: int = 1024
    """Shorter side of a picture in a test."""
    max_size: int = 2560
    """Longer side in a test, at most."""
    min_score: float = 0.0
    """Masks of a category less likely than this are no segments."""
    min_overlap: float = 0.8
    """A segment keeps at least this share of its mask where other masks win pixels, or is none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("OpenPanopticConfig.supervision", self.supervision, ("labels", "captions"))
        check_choice(
            "OpenPanopticConfig.clip_branch", self.clip_branch, ("mask_tokens", "pool", "none")
        )
        check_shares(
            alpha=self.alpha,
            beta=self.beta,
            min_score=self.min_score,
            min_overlap=self.min_overlap,
        )
        wanted = self.text.projection_dim
        if self.image is None or not wanted or self.image.projection_dim != wanted:
            raise ValueError(
                "OpenPanopticConfig: text and image need one projection_dim, got "
                f"{wanted} and {None if self.image is None else self.image.projection_dim}"
            )
        if not 1 <= self.test_size <= self.max_size:
            raise ValueError(
                "OpenPanopticConfig: expected 1 <= test_size <= max_size, got "
                f"{self.test_size} and {self.max_size}"
            )
