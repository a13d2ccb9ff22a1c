"""Open-vocabulary panoptic segmentation: the categories of a picture's segments are given when it
is looked at, as words (ODISE; Xu et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vpd.data.augment import check_shares
from vpd.models.clip_image import CLIPImageEncoder
from vpd.models.clip_text import CLIPTextEncoder
from vpd.models.mask_clip import (
    category_logits,
    geometric_mean,
    mask_embeddings,
    with_no_object,
)
from vpd.models.odise_head import (
    OdiseHead,
    OdiseHeadConfig,
    OdiseOutput,
    OdiseTextConfig,
    OdiseTextHead,
)
from vpd.tasks.dense import pad_to_multiple
from vpd.tasks.mask_heads import LEVELS, asked, head_fields, padded_size, whole_picture
from vpd.tasks.odise_features import OdiseFeatures
from vpd.tasks.open_config import OpenPanopticConfig
from vpd.tasks.panoptic_results import PanopticResult
from vpd.tasks.vocabulary_texts import VocabularyTexts
from vpd.vocabulary import Vocabulary

__all__ = ["OpenPanopticSegmenter", "Sought"]

_MOST = 100.0  # that CLIP's cosines are multiplied with


class Sought(NamedTuple):
    """A vocabulary as a model compares masks with it."""

    vocabulary: Vocabulary
    texts: Tensor
    """[S, D], of all its names for the trained branch."""
    clip_texts: Tensor | None
    """The same for CLIP; None to leave what it says out."""
    seen: tuple[bool, ...]
    """By category, whether the model was trained on it."""
    alpha: float
    beta: float
    """How much CLIP counts for categories that were seen, and for the others."""


class _Masks(NamedTuple):
    """What the networks make of a picture, before words are compared with it."""

    out: OdiseOutput
    clip: Tensor | None
    """[B, Q, D], CLIP's view of each mask; None where nobody asks for it."""


class OpenPanopticSegmenter(OdiseFeatures[OpenPanopticConfig]):
    """A frozen diffusion model and CLIP, and what ODISE trains on them: the captioner, the feature
    projections, Mask2Former's head with an embedding for each mask, and the words' side of it.

    ``model.panoptic(image, vocabulary="cube, box; ring; floor")``, or ``model(...)``, takes what
    people have. Another vocabulary costs one pass of the text encoder over what is new in it.
    """

    def __init__(self, config: OpenPanopticConfig) -> None:
        super().__init__(config)
        if config.captioner == "none":
            self.clip = nn.ModuleDict({"image": CLIPImageEncoder(config.image)})
        self.clip["text"] = CLIPTextEncoder(config.text)
        self.clip.register_buffer("logit_scale", torch.tensor(math.log(_MOST)))
        self.clip.requires_grad_(False)
        maps = len(self.backbone.strides)
        if maps < LEVELS:
            raise ValueError(
                f"the head reads {LEVELS} feature maps or more, these taps give {maps}"
            )
        by_labels = config.supervision == "labels"
        self.head = OdiseHead(
            OdiseHeadConfig(
                **head_fields(config, (config.projection_dim,) * maps),
                num_classes=None if by_labels else 1,
                projection_dim=config.embedding_dim,
            )
        )
        dim = config.text.projection_dim
        assert dim is not None  # the config asks for one
        self.words = OdiseTextHead(OdiseTextConfig(dim, config.embedding_dim, null=by_labels))
        self.texts = VocabularyTexts(self._text_encoder)

    @property
    def _text_encoder(self) -> CLIPTextEncoder:
        encoder = self.clip["text"]
        assert isinstance(encoder, CLIPTextEncoder)
        return encoder

    @property
    def vocabulary(self) -> Vocabulary:
        """What was trained on.

        Raises:
            ValueError: A model whose config has no categories.
        """
        return Vocabulary(self.config.categories, self.config.things)

    @property
    def _padding(self) -> int:
        """What sides of pictures are padded to multiples of."""
        return math.lcm(self.multiple, self.config.multiple)

    def sought(
        self,
        vocabulary: Vocabulary | str | Sequence[str] | None = None,
        *,
        alpha: float | None = None,
        beta: float | None = None,
    ) -> Sought:
        """A vocabulary ready for :meth:`panoptic`; texts that were read before are not read again.

        Args:
            vocabulary: As :meth:`vpd.vocabulary.Vocabulary.of` takes it; what was trained on if
                None.
            alpha, beta: Instead of the config's.

        Raises:
            ValueError, TypeError: As :meth:`vpd.vocabulary.Vocabulary.of`; a name that is too long;
                a share out of range.
        """
        config = self.config
        shares = {
            "alpha": config.alpha if alpha is None else alpha,
            "beta": config.beta if beta is None else beta,
        }
        check_shares(**shares)
        found = self.vocabulary if vocabulary is None else Vocabulary.of(vocabulary)
        seen = (False,) * len(found)
        if config.categories:
            seen = found.seen(self.vocabulary)
        clip_texts = None
        if config.clip_branch != "none":
            clip_texts = self.texts(found.words, config.clip_templates).to(self.device)
        texts = self.texts(found.words, config.templates).to(self.device)
        return Sought(found, texts, clip_texts, seen, **shares)

    def masks(self, image: Tensor, *, last_only: bool = False) -> OdiseOutput:
        """Masks and their embeddings.

        Args:
            image: [B, 3, H, W] in [0, 1], as :meth:`pyramid` takes it.
            last_only: Gives only what the head's last layer says.
        """
        return self.head(self.pyramid(image), last_only=last_only)

    def logits(self, image: Tensor, sought: Sought) -> tuple[Tensor, Tensor]:
        """Categories and masks.

        Args:
            image: [B, 3, H, W] in [0, 1]; any size: padded with zeros to what the networks take.
            sought: Of :meth:`sought`.

        Returns:
            Logits of categories [B, Q, K + 1], "no object" last, CLIP's opinion included; of masks
            [B, Q, h, w], a grid over the padded picture.
        """
        found = self._found(image, clip=sought.clip_texts is not None)
        return self._compared(found, sought), found.out.masks[-1]

    def _found(self, image: Tensor, clip: bool) -> _Masks:
        padded = pad_to_multiple(image, self._padding)
        out = self.masks(padded, last_only=True)
        encoder, branch = self.clip["image"], self.config.clip_branch
        if not clip or branch == "none":
            return _Masks(out, None)
        assert isinstance(encoder, CLIPImageEncoder)
        return _Masks(out, mask_embeddings(encoder, 2 * padded - 1, out.masks[-1], branch=branch))

    def _compared(self, found: _Masks, sought: Sought) -> Tensor:
        """Logits of categories [B, Q, K + 1]."""
        out, owners = found.out, sought.vocabulary.owners
        (scores,) = self.words(out.embeddings, sought.texts.to(self.dtype), owners, out.scale)
        if self.config.supervision == "labels":
            nothing, scores = scores.softmax(-1)[..., -1], scores[..., :-1]
        else:
            nothing = out.logits[-1].softmax(-1)[..., -1]
        if sought.clip_texts is not None and found.clip is not None:
            scale = self.clip.get_buffer("logit_scale").exp().clamp(max=_MOST)
            other = category_logits(found.clip, sought.clip_texts.to(found.clip), owners, scale)
            weights = {"alpha": sought.alpha, "beta": sought.beta}
            scores = geometric_mean(scores, other, sought.seen, **weights)
        return with_no_object(scores, nothing)

    def panoptic(
        self,
        image: Any,
        vocabulary: Vocabulary | str | Sequence[str] | Sought | None = None,
        *,
        min_score: float | None = None,
        min_overlap: float | None = None,
        top: int = 100,
    ) -> PanopticResult:
        """The segments of a picture, in the words of a vocabulary.

        Args:
            image: Path, PIL image, uint8 array HxWx3 (or grey, RGBA, 16 bit), float array or
                tensor in [0, 1]; any size.
            vocabulary: Categories such as ``"cube, box; ring; floor"``, as
                :meth:`vpd.vocabulary.Vocabulary.of` takes them, or as :meth:`sought` returns them;
                what the model was trained on if None.
            min_score, min_overlap: Instead of the config's.
            top: Objects that ``instances`` lists at most.

        Returns:
            A :class:`vpd.tasks.panoptic_results.PanopticResult` at the picture's own size; names
            are the first ones of the categories.

        Raises:
            ValueError, TypeError, OSError: A picture that cannot be read, a vocabulary without
                names, or a share out of range.
        """
        (found,) = self.each(
            image, [vocabulary], min_score=min_score, min_overlap=min_overlap, top=top
        )
        return found

    def each(
        self,
        image: Any,
        vocabularies: Sequence[Vocabulary | str | Sequence[str] | Sought | None],
        *,
        min_score: float | None = None,
        min_overlap: float | None = None,
        top: int = 100,
    ) -> list[PanopticResult]:
        """:meth:`panoptic` under several vocabularies; the networks see the picture once."""
        config = self.config
        options = asked(config, min_score, min_overlap, top)
        picture, pixels = whole_picture(image, config.test_size, config.max_size)
        pixels = (pixels + 1) / 2
        used = (pixels.shape[-2], pixels.shape[-1])
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                asked_for = [
                    one if isinstance(one, Sought) else self.sought(one) for one in vocabularies
                ]
                clip = any(one.clip_texts is not None for one in asked_for)
                found = self._found(pixels.to(self.device, self.dtype), clip)
                logits = [self._compared(found, one)[0].float() for one in asked_for]
        finally:
            self.train(training)
        return [
            PanopticResult.from_masks(
                picture,
                own,
                found.out.masks[-1][0].float(),
                one.vocabulary.names,
                one.vocabulary.things,
                padded=padded_size(used, self._padding),
                used=used,
                **options._asdict(),
            )
            for one, own in zip(asked_for, logits, strict=True)
        ]

    def forward(  # type: ignore[override]
        self, image: Any, vocabulary: Any = None, **options: Any
    ) -> PanopticResult:
        """:meth:`panoptic`."""
        return self.panoptic(image, vocabulary, **options)
