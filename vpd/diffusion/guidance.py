"""A U-Net that follows its conditions more, or less, than it was trained to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from vpd._load import core

if TYPE_CHECKING:
    from vpd.models.unet import UNet

__all__ = ["GuidedUNet"]


class GuidedUNet:
    """A U-Net under classifier-free guidance, one call a step.

    With one condition (Ho and Salimans 2022): ``e(0) + text_guidance (e(text) - e(0))``. With text
    and image (Brooks et al. 2023, equation 3): ``e(0, 0) + image_guidance (e(image, 0) - e(0, 0)) +
    text_guidance (e(image, text) - e(image, 0))``, where no image is zeros. A prediction that does
    not count is not computed: with both at 1 there is one row a sample, and the result is exactly
    the conditional prediction.

    Args:
        unet: Predicts epsilon or v.
        text: Token states [B, N, context_dim].
        empty: Those of the empty sentence, [B or 1, N, context_dim]; not needed at guidance 1.
        image: Latents [B, C', h, w] that go behind the sample's channels, of a U-Net with
            ``in_channels`` C + C' (InstructPix2Pix: the unscaled mode of the autoencoder).
        text_guidance: 1 = none; larger follows the text more closely.
        image_guidance: Larger stays closer to the image.

    Raises:
        ValueError: Shapes that do not fit, guidance without what it needs.
    """

    def __init__(
        self,
        unet: UNet,
        text: Tensor,
        empty: Tensor | None = None,
        *,
        image: Tensor | None = None,
        text_guidance: float = 1.0,
        image_guidance: float = 1.0,
    ) -> None:
        from vpd.models.unet import Taps

        self.unet = unet
        self._rows = core.Guidance(
            text=text,
            empty=empty,
            image=image,
            text_guidance=text_guidance,
            image_guidance=image_guidance,
        )
        self._taps = Taps(noise=True, features=False, attention=())

    def __call__(self, seen: Tensor, timestep: float) -> Tensor:
        """The guided prediction, at least float32 [B, C, h, w].

        Args:
            seen: Samples as the U-Net sees them, [B, C, h, w].
            timestep: Whole or not.
        """
        rows = self._rows
        t = int(timestep) if timestep == int(timestep) else timestep
        out = self.unet(
            rows.latents(seen),
            t,
            rows.context(),
            image_index=rows.image_index(),
            taps=self._taps,
        )
        assert out.noise is not None
        return rows.combine(out.noise)
