"""The denoising U-Net of Stable Diffusion v1, with taps on what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from vpd._load import core
from vpd.nn import CoreModule

if TYPE_CHECKING:
    from vpd.diffusion.control import AttentionControl

__all__ = ["Recompute", "Taps", "UNet", "UNetConfig", "UNetOutput"]

Recompute = Literal["none", "feed_forward", "attention", "all"]


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a U-Net; field names are the original config's, defaults are Stable Diffusion
    v1's."""

    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    """Channels of the finest level; the time embedding has four times as many."""
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    """Channels of each level, fine to coarse, in units of ``model_channels``; the first must be
    1."""
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (4, 2, 1)
    """Strides on the latent grid that have transformers. The middle block always has one."""
    num_heads: int = 8
    transformer_depth: int = 1
    context_dim: int = 768
    norm_groups: int = 32
    """Groups of every group normalisation; keep at least two channels a group, or the time
    embedding cancels."""

    @classmethod
    def sd15(cls) -> UNetConfig:
        """Stable Diffusion v1.5: 859,520,964 parameters."""
        return cls()


@dataclass(frozen=True)
class Taps:
    """What a forward of the U-Net returns. Nothing past the last thing asked for is computed.

    The defaults give VPD's four hierarchical maps (Zhao et al. 2023, section 3.3).
    """

    noise: bool = False
    """The noise prediction."""
    features: bool = True
    """The output of each level's last decoder block without an upsampler (blocks 1, 4, 7, 11 of
    Stable Diffusion)."""
    attention: tuple[int, ...] = (2, 4)
    """Strides on the latent grid whose cross-attention maps are returned."""
    selector: str = "up_cross+down_cross"
    """Which layers are averaged: ``up_cross``, ``down_cross``, ``mid_cross`` joined by ``+``. The
    middle layer is resized
    (bilinear) to each stride asked for."""
    map_grad: Literal["detach", "full"] = "detach"
    """``detach``: maps carry no gradient, as in VPD's published training; ``full``: they do."""
    fusion: Literal["mean", "daam"] = "mean"
    """How layers become one map. ``mean``: the layers of a stride are averaged. ``daam``
    (:mod:`vpd.daam`): all selected layers but those of the coarsest grid (where named in
    ``layers`` too), each head's map resized to the finest grid, cut off below zero and averaged
    there; the result is average-pooled to each stride asked for, 1 being the finest."""
    per_head: bool = False
    """Maps of each head, [B, heads, N, h, w]: holds heads times the memory of the averaged map."""
    layers: tuple[str, ...] | None = None
    """Exactly these cross-attention layers (names as in :meth:`UNet.attention_layers`) instead of
    the selector."""
    tokens: tuple[int, ...] | None = None
    """Keep the maps of these token positions only."""
    rows: int | None = None
    """Keep the maps of the first so many rows of the batch only."""
    block_inputs: tuple[str, ...] = ()
    """Blocks (``input_blocks.3``, ``middle_block``, ``output_blocks.5``) whose input is returned;
    an output block's input
    includes the concatenated skip."""
    block_outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, allowed in (("map_grad", ("detach", "full")), ("fusion", ("mean", "daam"))):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"Taps.{name} must be one of {allowed}, got {getattr(self, name)!r}"
                )

    def _core(self) -> Any:
        fields = {**asdict(self), "map_grad": self.map_grad == "full"}
        fields["fusion"] = getattr(core.MapFusion, self.fusion)
        fields["layers"] = list(self.layers or ())
        fields["tokens"] = list(self.tokens or ())
        return core.UNetTaps(**fields)


@dataclass(frozen=True)
class UNetOutput:
    """What :class:`Taps` asked for."""

    noise: Tensor | None
    """[B, out_channels, h, w]."""
    features: tuple[Tensor, ...]
    """(F1, F2, F3, F4), fine to coarse, without maps; empty when not asked for."""
    attention: dict[int, Tensor]
    """Stride -> [B, N, h/stride, w/stride] ([B, heads, N, ...] with ``per_head``): probabilities,
    averaged over heads and layers; they sum to 1 over tokens at every pixel (with ``fusion="daam"``
    nearly so)."""
    blocks: dict[str, Tensor] = field(default_factory=dict)
    """``"output_blocks.5:input"`` -> tensor."""
    stem_rows: int = 0
    """How many rows went through what comes before the first cross-attention: those of one latent
    and timestep share it."""

    def pyramid(self) -> tuple[Tensor, ...]:
        """VPD's hierarchical maps, fine to coarse: each level's features with its averaged maps
        concatenated behind."""
        if not self.features:
            raise ValueError("pyramid() needs Taps(features=True)")
        levels = []
        for level, feature in enumerate(self.features):
            maps = self.attention.get(2**level)
            if maps is not None and maps.dim() == 5:
                raise ValueError("pyramid() needs head-averaged maps: Taps(per_head=False)")
            levels.append(feature if maps is None else torch.cat([feature, maps], dim=1))
        return tuple(levels)


class UNet(CoreModule[UNetConfig]):
    """Denoiser of latent diffusion (Rombach et al. 2022), run once as a backbone by VPD.

    Parameter names are those of the original checkpoint below ``model.diffusion_model.``.

    Example:
        >>> net = vpd.UNet(vpd.UNetConfig(model_channels=32, context_dim=64, num_heads=4))
        >>> out = net(torch.randn(1, 4, 32, 32), 1, torch.randn(1, 77, 64))
        >>> [tuple(f.shape[1:]) for f in out.pyramid()]
        [(32, 32, 32), (141, 16, 16), (205, 8, 8), (128, 4, 4)]
    """

    def __init__(
        self, config: UNetConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config or UNetConfig.sd15(), generator=generator)
        self._recompute: Recompute = "none"

    @property
    def recompute(self) -> Recompute:
        """What the backward computes again instead of keeping it since the forward: ``none``;
        ``feed_forward``, the hidden layers of the transformers, their largest tensors;
        ``attention``, the transformers; or ``all``, every block (Chen et al. 2016). Costs a
        second forward of these parts and leaves gradients as they are; second derivatives
        need ``none``."""
        return self._recompute

    @recompute.setter
    def recompute(self, value: Recompute) -> None:
        if value not in get_args(Recompute):
            raise ValueError(f"UNet.recompute must be one of {get_args(Recompute)}, got {value!r}")
        self._recompute = value

    @staticmethod
    def _build(config: UNetConfig) -> Any:
        return core.UNet(**asdict(config))

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of the four feature maps, fine to coarse, without attention maps."""
        return tuple(self._core.feature_channels())

    def attention_layers(self) -> list[tuple[str, str, int]]:
        """Every cross-attention layer as (name, place: ``down`` / ``mid`` / ``up``, stride on the
        latent grid)."""
        return self._core.attention_layers()

    def forward(
        self,
        latents: Tensor,
        timesteps: int | Tensor,
        context: Tensor,
        *,
        image_index: Tensor | None = None,
        context_mask: Tensor | None = None,
        time_bias: Tensor | None = None,
        control: AttentionControl | None = None,
        taps: Taps | None = None,
    ) -> UNetOutput:
        """One pass at a given timestep.

        Args:
            latents: [I, in_channels, h, w]; h and w multiples of ``2 ** (levels - 1)`` (8 for SD).
            timesteps: An int, int64 [B] or float [B].
            context: [B, N, context_dim], one row of token states per output row.
            image_index: int64 [B], which latent each row looks at. Without it, I == B or I == 1.
                What comes before the first cross-attention is then computed once for each
                latent and timestep.
            context_mask: bool [B, N], True = attend. Every row must attend to something.
            time_bias: [B, 4 * model_channels], added to the time embedding.
            control: What the attention of some rows takes from others:
                :class:`vpd.diffusion.AttentionControl`.
            taps: What to return; :class:`Taps` () by default.

        Raises:
            ValueError: A shape, dtype or tap that this network cannot take.
        """
        if not isinstance(timesteps, Tensor):
            timesteps = torch.tensor(timesteps, device=latents.device)
        taps = taps if taps is not None else Taps()
        out = self._core.forward(
            self.core_tensors(),
            latents,
            timesteps,
            context,
            image_index,
            context_mask,
            time_bias,
            None if control is None else control._core(),
            taps._core(),
            getattr(core.Recompute, self.recompute),
        )
        return UNetOutput(out.noise, tuple(out.features), out.attention, out.blocks, out.stem_rows)


def feature_dims(
    channels: Sequence[int], tokens: int, attention: Sequence[int] = (2, 4)
) -> tuple[int, ...]:
    """Channels of :meth:`UNetOutput.pyramid`, fine to coarse, for ``tokens`` token positions."""
    return tuple(c + (tokens if 2**level in attention else 0) for level, c in enumerate(channels))
