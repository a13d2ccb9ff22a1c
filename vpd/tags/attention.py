"""Where in a picture a tagging adapter looks for each of its tags."""

from __future__ import annotations

from torch import Tensor

__all__ = ["tag_attention"]


def tag_attention(over_tags: Tensor, over_image: Tensor, size: tuple[int, int]) -> Tensor:
    """The attention of the queries over the image, for each tag weighted by how much of the tag
    each query reads.

    Args:
        over_tags: [Q, n], attention of each query over the tags' tokens (mean over heads and
            blocks, or of one of them).
        over_image: [Q, N], over the image's tokens; a class token before the patches is left out.
        size: Rows and columns of patches.

    Returns:
        [n, rows, columns]; for each tag 1 in all, 0 for a tag that no query reads.

    Raises:
        ValueError: Shapes that do not fit.
    """
    rows, columns = size
    if over_tags.dim() != 2 or over_image.dim() != 2 or len(over_tags) != len(over_image):
        raise ValueError(
            "tag_attention: expected [Q, n] and [Q, N] of the same queries, got "
            f"{list(over_tags.shape)} and {list(over_image.shape)}"
        )
    if over_image.shape[1] - rows * columns not in (0, 1):
        raise ValueError(
            f"tag_attention: expected {rows * columns} image tokens, or one more, for "
            f"{rows} x {columns} patches, got {over_image.shape[1]}"
        )
    patches = over_image[:, over_image.shape[1] - rows * columns :]
    maps = over_tags.t() @ patches
    total = maps.sum(1, keepdim=True)
    return (maps / total.where(total > 0, 1)).reshape(-1, rows, columns)
