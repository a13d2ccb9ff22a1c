"""Attribution maps of a picture while it is drawn (DAAM; Tang et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from vpd.tokens import token_words

if TYPE_CHECKING:
    from vpd.models.unet import Taps

__all__ = ["HeatMaps"]


class HeatMaps:
    """What each token had a part in, averaged over the steps of one sampling.

    Each step's cross-attention of every layer and head is fused as by :mod:`vpd.daam` (in the
    core; no layer is kept), of the rows that are told the text only. A new one for each sampling.

    Args:
        selector: Places whose layers count (:class:`vpd.Taps`); those of the coarsest grid never
            do.

    Example:
        >>> heat = HeatMaps()
        >>> images = model.sample(["a large red ball"], steps=4, maps=heat)
        >>> heat.words("a large red ball", size=images.shape[-2:])["ball"]  # [128, 128], 0 to 1
    """

    def __init__(self, selector: str = "up_cross+down_cross") -> None:
        from vpd.models.unet import Taps

        self.taps: Taps = Taps(attention=(1,), fusion="daam", selector=selector)
        self.steps = 0
        self._sum: Tensor | None = None

    def __call__(self, timestep: float, maps: dict[int, Tensor]) -> None:
        """Adds those of a step, 1 -> [B, N, h, w]."""
        own = maps[1].float()
        self._sum = own if self._sum is None else self._sum + own
        self.steps += 1

    @property
    def maps(self) -> Tensor:
        """[B, N, h, w] on the latent grid, float32: the mean over steps.

        Raises:
            ValueError: Nothing was drawn yet.
        """
        if self._sum is None:
            raise ValueError("HeatMaps: no step was seen; give it to a sampling as maps=")
        return self._sum / self.steps

    def words(
        self, text: str, size: tuple[int, int], *, row: int = 0, absolute: bool = False
    ) -> dict[str, Tensor]:
        """The map of each word of a caption at the size of its picture.

        Args:
            text: The caption.
            size: Height and width.
            row: Which picture of the batch is that caption's.
            absolute: Probabilities; otherwise each map goes from 0 to 1.

        Returns:
            Word -> [*size]: the mean over the tokens of all its occurrences.
        """
        from vpd import daam

        maps = self.maps[row : row + 1]
        if not len(maps):
            raise ValueError(f"HeatMaps: row must be in 0..{len(self.maps) - 1}, got {row}")
        columns: dict[str, list[int]] = {}
        for span in token_words(text, maps.shape[1]):
            columns.setdefault(span.word, []).extend(span.tokens)
        return {
            word: daam.expand(daam.word_map(maps, own)[:, None], size, absolute=absolute)[0, 0]
            for word, own in columns.items()
        }
