"""Where ODISE taps a diffusion model: inputs of residual blocks of the autoencoder's encoder, of
the U-Net's way up (the concatenated skip included) and of the autoencoder's decoder.

Blocks are numbered as in ODISE: those of the encoder from its finest level on, the others from
their coarsest level on. The published numbers are, on Stable Diffusion, the *last* block of the
encoder's and the decoder's two coarsest levels and of all levels of the U-Net; so these are what is
tapped of other networks too. Each is the deepest input of its level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vpd.models.autoencoder import AutoencoderConfig
from vpd.models.unet import UNetConfig

__all__ = ["BlockTap", "decoder_taps", "encoder_taps", "unet_taps"]

_LEVELS = 2  # coarsest of the autoencoder that are tapped


@dataclass(frozen=True)
class BlockTap:
    """A block whose input is a feature."""

    name: str
    """Of the block in its network, as in ``AutoencoderKL.block_names()`` and ``UNet``'s taps."""
    stride: int
    """Of its input, in pixels of what the autoencoder sees."""


def encoder_taps(vae: AutoencoderConfig, blocks: Sequence[int] | None = None) -> list[BlockTap]:
    """Of the autoencoder's encoder: block ``level * num_res_blocks + i``, fine to coarse.

    Args:
        vae: The autoencoder.
        blocks: Numbers, rising; None: the last block of each of the two coarsest levels.

    Raises:
        ValueError: Numbers that do not rise, or that the network does not have.
    """
    levels, count = len(vae.ch_mult), vae.num_res_blocks
    found = []
    for number in _numbers("encoder_blocks", blocks, levels, count, slice(-_LEVELS, None)):
        level, i = divmod(number, count)
        found.append(BlockTap(f"encoder.down.{level}.block.{i}", 2**level))
    return found


def unet_taps(
    vae: AutoencoderConfig, unet: UNetConfig, blocks: Sequence[int] | None = None
) -> list[BlockTap]:
    """Of the U-Net: ``output_blocks.<number>``, coarse to fine.

    Args:
        vae: The autoencoder that makes its latents.
        unet: The U-Net.
        blocks: Numbers, rising; None: the last block of each level.

    Raises:
        ValueError: As for the encoder; or no number at all.
    """
    levels, count = len(unet.channel_mult), unet.num_res_blocks + 1
    numbers = _numbers("unet_blocks", blocks, levels, count, slice(None))
    if not numbers:
        raise ValueError("unet_blocks: expected at least one block, got none")
    return [
        BlockTap(f"output_blocks.{number}", vae.stride * 2 ** (levels - 1 - number // count))
        for number in numbers
    ]


def decoder_taps(vae: AutoencoderConfig, blocks: Sequence[int] | None = None) -> list[BlockTap]:
    """Of the autoencoder's decoder: ``num_res_blocks + 1`` blocks a level, coarse to fine.

    Args:
        vae: The autoencoder.
        blocks: Numbers, rising; None: the last block of each of the two coarsest levels.

    Raises:
        ValueError: As for the encoder; or an autoencoder without decoder.
    """
    levels, count = len(vae.ch_mult), vae.num_res_blocks + 1
    found = []
    for number in _numbers("decoder_blocks", blocks, levels, count, slice(_LEVELS)):
        step, i = divmod(number, count)
        level = levels - 1 - step
        found.append(BlockTap(f"decoder.up.{level}.block.{i}", 2**level))
    if found and vae.encode_only:
        raise ValueError("decoder_blocks: the autoencoder is encode_only, expected one to tap")
    return found


def _numbers(
    field: str, blocks: Sequence[int] | None, levels: int, count: int, own: slice
) -> list[int]:
    """The numbers given, or the last of the ``count`` blocks of each of the levels that ``own``
    takes, in the order in which they run."""
    if blocks is None:
        return list(range(count - 1, levels * count, count)[own])
    numbers, known = list(blocks), range(levels * count)
    if numbers != sorted(set(numbers)) or not all(number in known for number in numbers):
        raise ValueError(f"{field}: expected rising numbers in 0..{known[-1]}, got {blocks}")
    return numbers
