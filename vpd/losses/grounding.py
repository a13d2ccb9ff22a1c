"""Words of captions, grounded in masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from vpd._load import core

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["GroundingForm", "mask_grounding_loss"]

GroundingForm = Literal["code", "equations"]
"""How :func:`mask_grounding_loss` compares images and captions."""


def mask_grounding_loss(
    embeddings: Sequence[Tensor],
    words: Tensor,
    valid: Tensor,
    scale: Tensor,
    *,
    form: GroundingForm = "code",
    group: ProcessGroup | None = None,
) -> Tensor:
    """The grounding loss of ODISE (Xu et al. 2023, section 3.4): by what its masks and words have
    in common, each image of a batch picks its caption and each caption its image.

    With c = cos(z_i, w_k) for the N masks of an image and the K words of a caption, they are as
    similar as

    * ``code``, as the released code has it: ``g = 1/K sum_k sum_i softmax_i(scale c) scale c``;
    * ``equations`` (7 and 8 of the paper): ``g = scale/K sum_k sum_i softmax_k(scale c) c``.

    The loss of an output is ``(a + b) / 2`` for ``code`` and ``a + b`` for ``equations``. ``a`` is
    the cross-entropy of images that pick a caption, averaged over those whose caption has a word
    (over all if none has); ``b`` that of captions that pick an image, 0 for captions without a
    word, averaged over all.

    Args:
        embeddings: z of masks, for each output of the head [B, N, D], of any length.
        words: [B, K, D], those of each image's caption.
        valid: bool [B, K]: words that are some. A caption counts if any is; its others still take
            part in g.
        scale: [], what multiplies cosines: 1 / temperature.
        form: Of the two.
        group: Processes that hold the batch between them, each with as many images as it has; all
            call the loss together, forward and backward. Each gets the loss of the whole batch.
            Gradients are such that their mean over processes, as data parallelism takes it, is
            the gradient of that loss.

    Returns:
        [outputs], float32 at least. The original adds them up.

    Raises:
        ValueError: Shapes or dtypes other than these, or no image.
    """
    known = None if group is None else (group.group_name, group.size())
    return core.mask_grounding_loss(list(embeddings), words, valid, scale, form, known)
