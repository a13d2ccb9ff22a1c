"""What determines what a U-Net is told about a picture: :mod:`vpd.tasks.conditions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vpd.images import Size
from vpd.models.clip_image import CLIPImageConfig
from vpd.models.clip_text import CLIPTextConfig
from vpd.models.tagging_adapter import TaggingAdapterConfig
from vpd.tasks.dense import DenseConfig

__all__ = ["ConditionName", "ConditionedConfig", "TagSource", "check_attention", "check_choice"]

ConditionName = Literal["uncond", "caption", "classes", "implicit", "tagging", "oracle"]
TagSource = Literal["all_classes", "tags", "none"]


@dataclass(frozen=True)
class ConditionedConfig(DenseConfig):
    """A segmenter of named classes, and what its U-Net is told."""

    attention: tuple[int, ...] = (2, 4)
    classes: tuple[str, ...] = ()
    """Names; a class's id is its place."""
    condition: ConditionName = "classes"
    """What the U-Net is told (:mod:`vpd.tasks.conditions`): nothing (``uncond``), a ``caption``,
    all ``classes`` (VPD), what its CLIP embedding says (``implicit``, ODISE), what the ``tagging``
    adapter makes of picture and tags, or the classes in its label (``oracle``)."""
    texts: int | None = None
    """``classes``: how many embeddings there are; None: one for each class."""
    token_length: int = 77
    """``uncond``, ``caption``, ``implicit``: tokens of a sentence."""
    text: CLIPTextConfig | None = None
    """``caption``, and ``tagging`` by tags: the text encoder that reads them."""
    image: CLIPImageConfig | None = None
    """``implicit`` and ``tagging``: the encoder that sees the picture; None: the tagging adapter
    reads no picture."""
    captioner: Literal["gated", "mlp"] = "gated"
    """``implicit``: see :class:`vpd.ImplicitCaptionerConfig`."""
    tagging: TaggingAdapterConfig | None = None
    """``tagging``: shape of the adapter."""
    tag_source: TagSource = "all_classes"
    """``tagging``: what its text is: the embeddings of ``all_classes``, the ``tags`` of the
    picture, or ``none``."""
    image_size: Size = 512
    """Height and width, or the side, of the pictures that it is trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.classes:
            raise ValueError(f"{self._own('classes')}: expected at least one name, got none")
        check_choice(self._own("condition"), self.condition, get_args(ConditionName))
        check_choice(self._own("tag_source"), self.tag_source, get_args(TagSource))
        check_attention(self.condition, self.attention)
        if self.vit is not None and self.condition != "uncond":
            raise ValueError(
                f"{self._own('vit')}: a vision transformer is told nothing, condition must be "
                f"uncond, got {self.condition}"
            )
        self._check_parts()

    def _own(self, field: str) -> str:
        return f"{type(self).__name__}.{field}"

    def _check_parts(self) -> None:
        """Refuses a condition without what it is made of."""
        width, tagging = self.unet.context_dim, self.tagging
        by_tags = self.condition == "tagging" and self.tag_source == "tags"
        if self.condition == "caption" or by_tags:
            self._need("text", None if self.text is None else self.text.hidden_size, width)
        if self.condition == "implicit":
            self._need("image", None if self.image is None else self.image.projection_dim)
        if self.condition == "tagging":
            self._need("tagging", None if tagging is None else tagging.dim, width)
            assert tagging is not None
            seen = None if self.image is None else self.image.hidden_size
            said = None if self.tag_source == "none" else width
            if (tagging.text_dim, tagging.image_dim) != (said, seen):
                raise ValueError(
                    f"{self._own('tagging')}: text_dim and image_dim must be {said} and {seen} "
                    "(tag_source and image), got "
                    f"{tagging.text_dim} and {tagging.image_dim}"
                )

    def _need(self, field: str, got: int | None, width: int | None = None) -> None:
        if not got or (width is not None and got != width):
            channels = "" if width is None else f" of {width} channels, as the U-Net reads"
            raise ValueError(
                f"{self._own(field)}: condition={self.condition} needs one{channels}, got "
                f"{got or 'none'}"
            )


def check_attention(condition: str, attention: tuple[int, ...]) -> None:
    """Refuses maps where a head could not read them.

    Raises:
        ValueError: Maps of the oracle's tokens.
    """
    if condition == "oracle" and attention:
        raise ValueError(
            "attention must be () with condition=oracle, whose number of tokens is another for "
            f"each picture, got {attention}"
        )


def check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raises ValueError for a value that is none of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
