"""What a pre-trained model draws: contact sheets, and whether its image encoder recognises what was
asked for."""

from __future__ import annotations

import torch

from vpd.tasks.foundation import Foundation
from vpd.train.pretrain.retrieval import Gallery, recall
from vpd.viz.page import Band, Panel, Picture, page

__all__ = ["SHEET_CAPTIONS", "contact_sheet", "drawn_retrieval"]

SHEET_CAPTIONS = (
    "a large red ball",
    "a small blue cube",
    "a large striped yellow cone",
    "a small shiny green ring",
    "a large purple cylinder and a small white ball",
    "a large orange pyramid on the left and a large cyan cube on the right",
    "a large red cube in front of a large blue cylinder",
    "a small green ball at the back and a large yellow ring at the front",
)
_SEED = 7


def contact_sheet(
    model: Foundation,
    captions: tuple[str, ...] = SHEET_CAPTIONS,
    *,
    columns: int = 4,
    steps: int = 25,
) -> Picture:
    """Draws ``columns`` pictures for each caption by DDIM; always the same for the same weights."""
    generator = torch.Generator().manual_seed(_SEED)
    texts = [text for text in captions for _ in range(columns)]
    images = model.sample(texts, steps=steps, generator=generator).float().cpu()
    pixels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    bands = [
        Band([Panel(p) for p in pixels[i * columns : (i + 1) * columns]], heading=f"“{text}”")
        for i, text in enumerate(captions)
    ]
    return page(bands, columns=columns, width_in=columns * 1.3)


@torch.no_grad()
def drawn_retrieval(
    model: Foundation, gallery: Gallery, *, choices: int = 64, steps: int = 25, batch: int = 32
) -> dict[str, float]:
    """Draws a picture for every caption of a gallery and lets the model's CLIP find the
    caption among ``choices``, beside the same test on the true pictures.

    Returns:
        ``drawn/retrieval`` and ``drawn/retrieval_of_scenes``: recall at 1 in percent (chance:
        100 / choices).
    """
    clip = model.clip
    if clip is None:
        raise ValueError("drawn_retrieval needs a foundation with CLIP (FoundationConfig.clip)")
    device = clip.logit_scale.device
    generator = torch.Generator().manual_seed(_SEED)
    empty = model.encode_text([""])
    drawn, true, read = [], [], []
    for images, ids in zip(
        torch.split(gallery.images, batch), torch.split(gallery.captions, batch), strict=True
    ):
        states = model.text(ids.to(device)).hidden
        drawn.append(clip.embed_images(model.draw(states, empty, steps=steps, generator=generator)))
        true.append(clip.embed_images(images.to(device)))
        read.append(clip.embed_text(ids))
    texts = torch.cat(read)
    return {
        "drawn/retrieval": recall(torch.cat(drawn), texts, choices)["retrieval/text"],
        "drawn/retrieval_of_scenes": recall(torch.cat(true), texts, choices)["retrieval/text"],
    }
