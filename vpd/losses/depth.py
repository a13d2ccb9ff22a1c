"""The loss of monocular depth: the scale-invariant error of log depths."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vpd._load import core

__all__ = ["SilogSums", "silog_loss", "silog_sums"]


def silog_loss(
    prediction: Tensor, target: Tensor, *, variance_focus: float = 0.5, min_depth: float = 0.0
) -> Tensor:
    """Scale-invariant log error (Eigen et al. 2014, equation 4, under a root) over all valid pixels
    of the batch together.

    ``sqrt(mean(d^2) - variance_focus * mean(d)^2)`` with ``d = ln(target) - ln(prediction)``.
    Pixels are valid where ``min_depth < target < infinity``. Without one the loss is 0, and so is
    its gradient; likewise where the difference under the root is 0. Second derivatives are not
    supported.

    It is no mean over images: the loss of a batch is not that of its parts. VPD's training averages
    the losses of its processes' parts all the same. To have the loss of the whole, see
    :class:`SilogSums`.

    Args:
        prediction: Depth in metres, [B, H, W] or [B, 1, H, W]. Must be positive where the target is
            valid; elsewhere the loss becomes infinite or NaN, as the logarithm does.
        target: Same shape; 0 or NaN where nothing is known.
        variance_focus: How much of the error's common scale is forgiven, in [0, 1]; 0.5 in VPD.
        min_depth: In metres; 0 in VPD.

    Returns:
        A scalar in float32, or float64 for such predictions.

    Raises:
        ValueError: Shapes, dtypes or devices that do not fit, or a parameter out of range.
    """
    return core.silog_loss(prediction, target, variance_focus, min_depth)


class SilogSums(NamedTuple):
    """Sums of :func:`silog_sums`, each a float64 scalar; those of the parts of a batch add up to
    those of the whole.

    The gradient of the whole batch's loss, one part at a time: first all parts' sums without
    gradient, then each part again, with its own sums in place of those counted for it.

    Example:
        >>> with torch.no_grad():
        ...     parts = [vpd.losses.silog_sums(net(x), y) for x, y in batches]
        >>> whole = parts[0].plus(*parts[1:])
        >>> for (x, y), part in zip(batches, parts):
        ...     whole.minus(part).plus(vpd.losses.silog_sums(net(x), y)).loss().backward()
    """

    n: Tensor
    """Valid pixels."""
    sum: Tensor
    """Of d."""
    squares: Tensor
    """Of d^2."""

    def plus(self, *others: SilogSums) -> SilogSums:
        """The sums of all of them together."""
        return SilogSums(*(sum(each[1:], each[0]) for each in zip(self, *others, strict=True)))

    def minus(self, part: SilogSums) -> SilogSums:
        """The sums of the rest."""
        return SilogSums(*(a - b for a, b in zip(self, part, strict=True)))

    def loss(self, variance_focus: float = 0.5) -> Tensor:
        """:func:`silog_loss` of the pixels summed over, float64."""
        return core.silog_of(self.n, self.sum, self.squares, variance_focus)


def silog_sums(prediction: Tensor, target: Tensor, *, min_depth: float = 0.0) -> SilogSums:
    """Number of valid pixels, sum of d and sum of d^2 of :func:`silog_loss`; the latter two are
    differentiable.

    Raises:
        ValueError: Shapes, dtypes or devices that do not fit, or a negative ``min_depth``.
    """
    return SilogSums(*core.silog_sums(prediction, target, min_depth))
