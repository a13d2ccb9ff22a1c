"""Pre-training of a small diffusion model on Tabletop, in three stages: `vae`, `contrastive`,
`denoiser`."""

from typing import Any

from vpd._lazy import public

_PUBLIC = {
    "PretrainConfig": "vpd.train.pretrain.run",
    "pretrain": "vpd.train.pretrain.run",
}

__all__ = ["PretrainConfig", "pretrain"]


def __getattr__(name: str) -> Any:
    return public(__name__, _PUBLIC, name)
