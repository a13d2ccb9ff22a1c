"""What determines a trained editor."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vpd.models.unet import Recompute
from vpd.train.loop.config import LoopConfig

__all__ = ["EditData", "EditTrainConfig"]


@dataclass(frozen=True)
class EditData:
    """Edited pairs that are trained on, and those that are watched meanwhile."""

    name: Literal["tabletop", "ip2p"] = "tabletop"
    """``tabletop`` is rendered; ``ip2p`` is a folder in InstructPix2Pix' layout."""
    root: str | None = None
    """``ip2p``: the folder with ``seeds.json``."""
    val_root: str | None = None
    """``ip2p``: another folder to watch; None: the same."""
    split: str = "train-10k"
    """``ip2p``: train (the first 90 % of the entries), val, test or all."""
    val_split: str = "val"
    limit: int | None = None
    """Only the first scenes, or entries, of the split."""
    per_scene: int = 1
    """Tabletop: edits of each scene."""
    val_limit: int = 64
    """Pairs watched."""
    cache_dir: str | None = None
    """Where rendered scenes and latents are kept; default $VPD_CACHE or ~/.cache/vpd."""
    workers: int | None = None
    """Processes that render scenes; threads that read and augment pairs, one per CPU if None."""

    def __post_init__(self) -> None:
        if self.name not in ("tabletop", "ip2p"):
            raise ValueError(f"data.name must be 'tabletop' or 'ip2p', got {self.name!r}")
        if self.name == "ip2p" and self.root is None:
            raise ValueError("data.name=ip2p is read from disk: data.root must name its folder")
        for name in ("val_limit", "per_scene"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class EditTrainConfig:
    """Everything that determines a trained editor. Defaults train vpd-mini on Tabletop."""

    out: str = "runs/edit"
    foundation: str = "vpd-mini"
    """A shipped model's name or a folder: the text-to-image model, or the editor, to start from."""
    weights: str | tuple[str, ...] = ()
    """Instead of a foundation: Stable Diffusion v1.5 or InstructPix2Pix, as a single file or a
    diffusers folder (full size), and parts to replace, such as another autoencoder."""
    data: EditData = field(default_factory=EditData)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=10000, batch=16, lr=4e-4, warmup=100, ema=0.999, val_every=2000
        )
    )
    """InstructPix2Pix: 10,000 steps of 1024, constant rate 1e-4 without warm-up, neither weight
    averaging of a short memory (0.9999) nor clipping."""
    epochs: int | None = None
    """If set, the number of steps follows from it."""
    decay_share: float = 0.0
    """Last part of the run over which the learning rate falls linearly to 0. InstructPix2Pix: 0."""
    token_length: int | None = None
    """Tokens of an instruction; None: the foundation's."""
    crop: int = 128
    """Side in pixels of the pictures that are trained on. InstructPix2Pix: 256."""
    sizes: tuple[int, int] | None = None
    """Least and largest side that a pair is resized to at random, in every step, before a random
    ``crop``. None: each pair is squashed to ``crop`` and encoded once. InstructPix2Pix' paper: 256
    to 288; its released configuration: none."""
    flip: bool = True
    """Mirror half of the pairs. Not for instructions that say left or right."""
    dropout: float = 0.05
    """Share of samples that lack their instruction alone, their picture alone, and both: thrice
    this share in all. Guidance needs it."""
    weight_cap: float = 1.0
    """The loss of timestep t is weighted by min(1 / alpha_bar_t, weight_cap), so that noisy
    timesteps count more. InstructPix2Pix: 1, no weights."""
    train_text: bool = False
    """Train the text encoder too. InstructPix2Pix does not."""
    guidance: tuple[float, float] | None = None
    """Of text and image: what the editor edits with if nothing else is asked for, as in the
    pictures of a validation. None: the foundation's (InstructPix2Pix: 7.5 and 1.5)."""
    recompute: Recompute = "none"
    """What the backward computes again instead of keeping it: ``feed_forward``,
    ``attention`` or ``all`` of the U-Net (see :attr:`vpd.UNet.recompute`)."""
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.dropout <= 1 / 3:
            raise ValueError(f"dropout must be in [0, 1/3], got {self.dropout}")
        if not 0 <= self.decay_share <= 1:
            raise ValueError(f"decay_share must be in [0, 1], got {self.decay_share}")
        if self.weight_cap < 1:
            raise ValueError(f"weight_cap must be at least 1, got {self.weight_cap}")
        if self.sizes is not None and not self.crop <= self.sizes[0] <= self.sizes[1]:
            raise ValueError(
                f"sizes must be at least crop and ascending, got {self.sizes} and crop {self.crop}"
            )

    @property
    def streamed(self) -> bool:
        """Whether pairs are changed, and encoded, anew in every step."""
        return self.sizes is not None and self.sizes != (self.crop, self.crop)

    @property
    def weight_files(self) -> list[Path]:
        """``weights``, one or several, as paths."""
        names = (self.weights,) if isinstance(self.weights, str) else self.weights
        return [Path(name) for name in names]
