"""How well pictures and captions find each other in the joint space of two encoders."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vpd.models.clip import CLIP

__all__ = ["Gallery", "recall", "retrieval_probe"]


@dataclass(frozen=True)
class Gallery:
    """Pictures and one caption of each."""

    images: Tensor  # float [N, 3, H, W] in [-1, 1]
    captions: Tensor  # int64 [N, length]


def recall(image: Tensor, text: Tensor, choices: int = 64) -> dict[str, float]:
    """Recall at 1 among ``choices`` candidates: rows are compared within consecutive groups of
    that size (chance: 100 / choices); an incomplete last group is left out unless it is the only
    one.

    Args:
        image: [N, D] embeddings, of any length.
        text: [N, D], row i belongs to image i.

    Returns:
        ``retrieval/text``: percentage of images whose nearest text is theirs; ``retrieval/image``:
        of texts whose nearest image is theirs.
    """
    if image.shape != text.shape or image.dim() != 2 or len(image) == 0 or choices < 2:
        raise ValueError(
            "recall: expected two tensors [N, D] of one shape and choices >= 2, got "
            f"{list(image.shape)}, {list(text.shape)} and {choices}"
        )
    hits = torch.zeros(2)
    count = 0
    image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
    for seen, read in zip(torch.split(image, choices), torch.split(text, choices), strict=True):
        if count and len(seen) < choices:
            break
        cosines, own = seen @ read.t(), torch.arange(len(seen), device=seen.device)
        for side in (0, 1):
            hits[side] += float((cosines.argmax(1 - side) == own).sum())
        count += len(seen)
    return {
        "retrieval/text": 100 * float(hits[0]) / count,
        "retrieval/image": 100 * float(hits[1]) / count,
    }


@torch.no_grad()
def retrieval_probe(
    clip: CLIP, gallery: Gallery, choices: int = 64, batch: int = 64
) -> dict[str, float]:
    """:func:`recall` of a gallery's pictures and captions."""
    device = clip.logit_scale.device
    seen = [clip.embed_images(part.to(device)) for part in torch.split(gallery.images, batch)]
    read = [clip.embed_text(part) for part in torch.split(gallery.captions, batch)]
    return recall(torch.cat(seen), torch.cat(read), choices)
