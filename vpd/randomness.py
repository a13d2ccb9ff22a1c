"""Randomness by name: what is drawn depends on what it is for, not on what was drawn before."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["named_generator", "named_seed"]


def named_seed(*names: str | int) -> int:
    """A seed for what the names say together, such as ``("dropout", seed, step, row)``."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def named_generator(device: torch.device | str, *names: str | int) -> torch.Generator:
    """A generator seeded by :func:`named_seed`."""
    return torch.Generator(device).manual_seed(named_seed(*names))
