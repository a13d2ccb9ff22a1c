"""A U-Net that follows its conditions more, or less, than it was trained to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from vpd._load import core

if TYPE_CHECKING:
    from vpd.diffusion.control import AttentionControl
    from vpd.models.unet import Taps, UNet

__all__ = ["Controller", "GuidedRows", "GuidedUNet", "MapWatcher"]


@dataclass(frozen=True)
class GuidedRows:
    """The batch that a guided U-Net sees: blocks of one row for each sample.

    Attributes:
        samples: Rows of a block.
        blocks: 1 without guidance, 2 or 3 with it.
        text: Whether the first block is told the text; the others never are.
    """

    samples: int
    blocks: int
    text: bool


class Controller(Protocol):
    """Which control of attention a step takes, such as :class:`vpd.diffusion.PromptToPrompt`."""

    def __call__(self, timestep: float, rows: GuidedRows, /) -> AttentionControl | None: ...


class MapWatcher(Protocol):
    """Looks at cross-attention in every step, such as :class:`vpd.diffusion.HeatMaps`: ``taps``
    says which maps, and it is called with those of the rows that are told the text,
    stride -> [B, N, h, w]."""

    @property
    def taps(self) -> Taps: ...

    def __call__(self, timestep: float, maps: dict[int, Tensor], /) -> None: ...


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
        text_guidance: 1 = none; larger follows the text more closely. One number, or one for each
            sample.
        image_guidance: Larger stays closer to the image.
        control: Asked in every step what the attention of some rows takes from others.
        maps: Shown cross-attention in every step.

    Raises:
        ValueError: Shapes that do not fit, guidance without what it needs, maps of no text.
    """

    def __init__(
        self,
        unet: UNet,
        text: Tensor,
        empty: Tensor | None = None,
        *,
        image: Tensor | None = None,
        text_guidance: float | Sequence[float] = 1.0,
        image_guidance: float = 1.0,
        control: Controller | None = None,
        maps: MapWatcher | None = None,
    ) -> None:
        from vpd.models.unet import Taps

        self.unet = unet
        if isinstance(text_guidance, (int, float)):
            text_guidance = [text_guidance]
        self._rows = core.Guidance(
            text=text,
            empty=empty,
            image=image,
            text_guidance=list(text_guidance),
            image_guidance=image_guidance,
        )
        samples = self._rows.samples()
        self.rows = GuidedRows(samples, len(self._rows.context()) // samples, self._rows.has_text())
        self._control, self._maps = control, maps
        self._taps = Taps(noise=True, features=False, attention=())
        if maps is not None:
            if not self.rows.text:
                raise ValueError("GuidedUNet: at text_guidance 0 no row has maps of the text")
            self._taps = replace(maps.taps, noise=True, features=False, rows=samples)

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
            control=None if self._control is None else self._control(timestep, self.rows),
            taps=self._taps,
        )
        assert out.noise is not None
        if self._maps is not None:
            self._maps(timestep, out.attention)
        return rows.combine(out.noise)
