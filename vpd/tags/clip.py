"""Tags by CLIP: the words whose texts lie nearest to the picture."""

from __future__ import annotations

import math
import os
from typing import Any

import torch

from vpd._load import core
from vpd.models.clip import CLIP, CLIPConfig
from vpd.models.clip_image import CLIPImageConfig
from vpd.models.clip_text import CLIPTextConfig
from vpd.tags.tag_set import TagSet
from vpd.tags.tagger import Tag, Tagger, squashed
from vpd.tasks.class_texts import embed_classes
from vpd.weights import StateDict, load_weights, read_state_dict

__all__ = ["ClipTagger", "read_clip"]

_HEAD_DIM = 64  # channels of a head in all published CLIP models


class ClipTagger(Tagger):
    """Zero-shot tags (Radford et al. 2021, section 3.1): a tag's score is the cosine between the
    picture and the texts of the tag.

    Cosines of unrelated pictures and texts are not 0, and differ from word to word: with published
    weights they lie at about 0.15 to 0.3. So choose by ``top`` unless you know your threshold.

    Args:
        clip: A text and an image encoder: ``vpd-mini``'s, or :func:`read_clip`.
        tags: What to look for; its templates say how, its own thresholds do not apply.
        top: At most so many tags a picture; None: all beyond the threshold.
        threshold: Cosine that tags exceed.

    Raises:
        ValueError: Neither ``top`` nor ``threshold``, or ``top`` below 1.
    """

    def __init__(
        self, clip: CLIP, tags: TagSet, *, top: int | None = 10, threshold: float | None = None
    ) -> None:
        if top is None and threshold is None:
            raise ValueError("ClipTagger: give top, threshold or both")
        if top is not None and top < 1:
            raise ValueError(f"ClipTagger: top must be at least 1, got {top}")
        self.clip, self.tag_set, self.top = clip.eval(), tags, top
        self.threshold = -math.inf if threshold is None else threshold
        self._texts = embed_classes(clip.text, tags.entries, tags.templates, joint=True)

    @torch.no_grad()
    def scores(self, picture: Any) -> torch.Tensor:
        """Cosine of each tag of the set with a picture, float32 [K].

        Args:
            picture: As for :meth:`Tagger.tags`. It is squashed to the encoder's square.
        """
        unit = squashed(picture, self.clip.config.image.image_size, bicubic=True)
        weight = self.clip.logit_scale
        pixels = torch.from_numpy(unit)[None].to(weight.device) * 2 - 1
        return self._texts @ self.clip.embed_images(pixels)[0].float().cpu()

    def tags(self, picture: Any) -> list[Tag]:
        """See :meth:`Tagger.tags`."""
        return self.tag_set.select(self.scores(picture), top=self.top, threshold=self.threshold)


def read_clip(path: str | os.PathLike[str]) -> CLIP:
    """CLIP from one file with both towers, in transformers' or OpenAI's layout; sizes are told by
    the weights. Activations are taken to be OpenAI's (``quick_gelu``).

    Raises:
        OSError: The file cannot be opened. ValueError: It holds something else.
    """
    tensors, info = read_state_dict(path)
    named = dict(core.openai_clip_to_transformers(list(tensors.items()), info.path))
    try:
        text, image = _text_config(named), _image_config(named)
        clip = CLIP(CLIPConfig(text, image, text.max_position_embeddings))
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"{info.path}: expected both towers of CLIP, got layout {info.layout!r} ({error})"
        ) from error
    load_weights(clip.text, tensors)
    load_weights(clip.image, tensors)
    if "logit_scale" in named:
        with torch.no_grad():
            clip.logit_scale.copy_(named["logit_scale"].reshape(()))
    return clip.eval()


def _text_config(named: StateDict) -> CLIPTextConfig:
    tower = "text_model"
    vocabulary, width = named[f"{tower}.embeddings.token_embedding.weight"].shape
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=len(named[f"{tower}.encoder.layers.0.mlp.fc1.weight"]),
        num_hidden_layers=_layers(named, tower),
        num_attention_heads=max(1, width // _HEAD_DIM),
        max_position_embeddings=len(named[f"{tower}.embeddings.position_embedding.weight"]),
        projection_dim=len(named["text_projection.weight"]),
    )


def _image_config(named: StateDict) -> CLIPImageConfig:
    tower = "vision_model"
    width, colors, patch, _ = named[f"{tower}.embeddings.patch_embedding.weight"].shape
    positions = len(named[f"{tower}.embeddings.position_embedding.weight"])
    return CLIPImageConfig(
        hidden_size=width,
        intermediate_size=len(named[f"{tower}.encoder.layers.0.mlp.fc1.weight"]),
        num_hidden_layers=_layers(named, tower),
        num_attention_heads=max(1, width // _HEAD_DIM),
        image_size=patch * math.isqrt(positions - 1),
        patch_size=patch,
        num_channels=colors,
        projection_dim=len(named["visual_projection.weight"]),
    )


def _layers(named: StateDict, tower: str) -> int:
    start = f"{tower}.encoder.layers."
    return 1 + max(
        int(name[len(start) :].split(".")[0]) for name in named if name.startswith(start)
    )
