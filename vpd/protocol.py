"""The noise protocol of a forward pass, as data: saved with every checkpoint, cache entry and
result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

__all__ = ["PRESETS", "NoiseSpec"]


@dataclass(frozen=True)
class NoiseSpec:
    """Where noise is added to the input, and what the U-Net is told about it.

    Defaults are the preset ``vpd-2023``: what the released VPD code does in every task (no noise,
    step index 1, latents not
    scaled, posterior mode).
    """

    noise_space: Literal["none", "pixel", "latent"] = "none"
    """Where noise is added, if at all: to the image in [-1, 1] before the autoencoder, or to the
    latent."""
    noise_t: int = 0
    """Training timestep 0..999 of that noise, never a scheduler index."""
    embed_t: int | Literal["match"] = 1
    """Timestep told to the U-Net; ``match`` = noise_t."""
    latent_scale: float = 1.0
    """What latents are multiplied with: 1.0 in VPD's code, 0.18215 in Stable Diffusion's
    training."""
    latent_mode: Literal["mode", "sample"] = "mode"
    """Mode of the autoencoder's posterior, or a sample from it."""
    t0_is_clean: bool = True
    """noise_t 0 means no noise at all (otherwise schedule index 0 adds sigma = 0.029)."""
    noise_key: Literal["image", "shared"] = "image"
    """``image``: noise drawn per (seed, image), the same for every t; ``shared``: one noise for
    all."""
    seed: int | None = 0
    """None: fresh noise at every call."""

    def __post_init__(self) -> None:
        choices = {
            "noise_space": ("none", "pixel", "latent"),
            "latent_mode": ("mode", "sample"),
            "noise_key": ("image", "shared"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"NoiseSpec.{name} must be one of {allowed}, got {getattr(self, name)!r}"
                )
        if not isinstance(self.noise_t, int) or not 0 <= self.noise_t < 1000:
            raise ValueError(f"NoiseSpec.noise_t must be an int in 0..999, got {self.noise_t!r}")
        if self.embed_t != "match" and (
            not isinstance(self.embed_t, int) or not 0 <= self.embed_t < 1000
        ):
            raise ValueError(
                f"NoiseSpec.embed_t must be 'match' or an int in 0..999, got {self.embed_t!r}"
            )
        if not self.latent_scale > 0:
            raise ValueError(f"NoiseSpec.latent_scale must be positive, got {self.latent_scale}")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> NoiseSpec:
        """A named protocol (see ``PRESETS``), with fields changed:
        ``NoiseSpec.preset("latent_match", noise_t=100)``."""
        if name not in PRESETS:
            raise ValueError(f"unknown noise protocol {name!r}; there are {', '.join(PRESETS)}")
        return replace(PRESETS[name], **changes)

    @staticmethod
    def check(protocol: str | None, t: int) -> None:
        """Refuses what no protocol is: an unknown name, a timestep out of range or of none.

        Raises:
            ValueError: One of them.
        """
        if protocol is not None:
            NoiseSpec.preset(protocol, noise_t=t)
        elif t:
            raise ValueError("t needs a protocol, e.g. latent_match")

    @property
    def timestep(self) -> int:
        """The timestep told to the U-Net."""
        return self.noise_t if self.embed_t == "match" else self.embed_t

    @property
    def adds_noise(self) -> bool:
        return self.noise_space != "none" and not (self.noise_t == 0 and self.t0_is_clean)

    @property
    def changes_pixels(self) -> bool:
        """Whether the autoencoder sees other images for it."""
        return self.noise_space == "pixel" and self.adds_noise

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def digest(self) -> str:
        """A short, stable hash of every field."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


PRESETS: dict[str, NoiseSpec] = {
    "vpd-2023": NoiseSpec(),
    "pixel": NoiseSpec(noise_space="pixel", embed_t=1),
    "latent_match": NoiseSpec(noise_space="latent", embed_t="match"),
    "latent_fixed": NoiseSpec(noise_space="latent", embed_t=1),
    "embed_only": NoiseSpec(noise_space="none", embed_t="match"),
    "pixel_match": NoiseSpec(noise_space="pixel", embed_t="match"),
    "odise": NoiseSpec(
        noise_space="latent",
        noise_t=0,
        embed_t=0,
        latent_scale=0.18215,
        t0_is_clean=False,
        noise_key="shared",
        seed=42,
    ),
}
"""``vpd-2023``: the released VPD code. The five protocols of the timestep study: ``pixel`` (what
its code did),
``latent_match``, ``latent_fixed``, ``embed_only``, ``pixel_match``. ``odise``: ODISE's feature
extraction."""
