"""What CLIP sees in parts of pictures, and how two readings of a picture's masks become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from vpd._load import core
from vpd.models.clip_image import CLIPImageEncoder, clip_pixels

__all__ = [
    "ClipBranch",
    "MaskRule",
    "category_logits",
    "geometric_mean",
    "mask_embeddings",
    "with_no_object",
]

ClipBranch = Literal["mask_tokens", "pool"]
MaskRule = Literal["hide", "add_one"]


def mask_embeddings(
    encoder: CLIPImageEncoder,
    images: Tensor,
    masks: Tensor,
    *,
    branch: ClipBranch = "mask_tokens",
    rule: MaskRule = "hide",
) -> Tensor:
    """Places of a picture's masks in the space that CLIP's pictures and texts share.

    ``mask_tokens`` (Ding et al. 2023, MaskCLIP; ODISE's code): a copy of the class token for each
    mask attends to the class token and to the patches in which the mask's sigmoid reaches 0.5;
    nothing attends to the copies. A mask without a patch sees the class token alone.
    ``pool`` (Xu et al. 2023, ODISE's equation 9): the mean of the patches' features, each
    weighted by its share of pixels whose sigmoid exceeds 0.5; zeros for a mask without such pixels.

    Args:
        encoder: An image encoder with a projection.
        images: float [B, 3, h, w] in [-1, 1], any size; resized bilinearly to the encoder's square,
            ``config.image_size`` pixels.
        masks: Logits [B, N, h', w'], any size and number, over the same area as the pictures.
        branch: Which of the two.
        rule: For ``mask_tokens``. ``add_one`` is what newer releases of open_clip make of ODISE's
            code, which was written for release 2.0.2: they take the flags of hidden tokens for
            numbers and add them to the attention logits, so what should be hidden is seen more, and
            the copies are seen by all. For comparison with results that were made so.

    Returns:
        [B, N, projection_dim], not normalised. Gradients reach the encoder and the pictures, not
        the masks.

    Raises:
        ValueError: Other shapes or dtypes, an encoder without a projection, or an unknown branch or
            rule.

    Example:
        >>> config = vpd.CLIPImageConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
        >>> encoder = vpd.CLIPImageEncoder(config)
        >>> masks = torch.randn(1, 5, 60, 80)
        >>> mask_embeddings(encoder, torch.zeros(1, 3, 240, 320), masks).shape
        torch.Size([1, 5, 768])
    """
    pixels, tensors = clip_pixels(images), encoder.core_tensors()
    if branch not in ("mask_tokens", "pool"):
        raise ValueError(f"mask_embeddings: branch must be mask_tokens or pool, got {branch!r}")
    if rule not in ("hide", "add_one"):
        raise ValueError(f"mask_embeddings: rule must be hide or add_one, got {rule!r}")
    if branch == "pool":
        return core.mask_pooled(encoder._core, tensors, pixels, masks)
    return core.mask_tokens(encoder._core, tensors, pixels, masks, rule == "add_one")


def category_logits(
    embeddings: Tensor, texts: Tensor, owners: Sequence[int], scale: Tensor | float
) -> Tensor:
    """Cosine between an embedding and the nearest name of each category, times a scale.

    Args:
        embeddings: [..., D].
        texts: [S, D], of all names.
        owners: S numbers: whose name each is; every category 0 ... K - 1 has one.
        scale: A number or scalar; CLIP's is exp(logit_scale), at most 100.

    Returns:
        [..., K], float32 at least.

    Raises:
        ValueError: Shapes that do not fit, or a category without a name.
    """
    if not isinstance(scale, Tensor):
        scale = torch.tensor(float(scale), device=embeddings.device)
    return core.category_logits(embeddings, texts, list(owners), scale)


def geometric_mean(
    logits: Tensor, other: Tensor, seen: Sequence[bool], *, alpha: float = 0.3, beta: float = 0.7
) -> Tensor:
    """Two readings of masks as one (Xu et al. 2023, section 3.4): log(p^(1 - l) q^l), where p and q
    are the softmax over categories of the two, and l is ``alpha`` for categories that were seen in
    training, ``beta`` for the others.

    Args:
        logits: [..., K], of the trained branch.
        other: [..., K], of CLIP.
        seen: K flags, such as :meth:`vpd.vocabulary.Vocabulary.seen` gives.
        alpha, beta: Within 0 ... 1. The defaults are those of ODISE trained with labels; trained
            with captions it takes 0.35 and 0.65.

    Returns:
        [..., K], float32 at least, not normalised.

    Raises:
        ValueError: Shapes that do not fit, or a weight out of range.
    """
    return core.geometric_mean(logits, other, [bool(one) for one in seen], alpha, beta)


def with_no_object(logits: Tensor, nothing: Tensor) -> Tensor:
    """Logits with "no object" last: log([softmax(logits) (1 - nothing), nothing] + 1e-8).

    Args:
        logits: [..., K].
        nothing: [...], the probability that a mask is no object: of the null category where a model
            was trained with labels, of the objectness head where with captions.

    Returns:
        [..., K + 1], float32 at least, as
        :meth:`vpd.tasks.panoptic_results.PanopticResult.from_masks` takes them.

    Raises:
        ValueError: Shapes that do not fit.
    """
    return core.with_no_object(logits, nothing)
