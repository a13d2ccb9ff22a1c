"""Editing of pictures by instruction (InstructPix2Pix; Brooks et al. 2023)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vpd.images import in_range, read_image
from vpd.models.autoencoder import AutoencoderConfig, AutoencoderKL
from vpd.models.clip_text import CLIPTextConfig, CLIPTextEncoder
from vpd.models.unet import UNet, UNetConfig
from vpd.nn import Network, channels_last, uninitialised
from vpd.tasks.editor_results import EditResult
from vpd.tasks.editor_size import fitted
from vpd.tasks.foundation import Foundation
from vpd.tokens import tokenize

if TYPE_CHECKING:
    from vpd.diffusion import NoiseSource, Sampler, StepWatcher
    from vpd.diffusion.sampler import Method
    from vpd.images import RGBImage

__all__ = ["Editor", "EditorConfig"]

_FIRST = "input_blocks.0.0.weight"  # of the U-Net
_SEEDS = 2**31


@dataclass(frozen=True)
class EditorConfig:
    """An editor; the defaults are InstructPix2Pix' on Stable Diffusion v1."""

    unet: UNetConfig = field(default_factory=lambda: UNetConfig(in_channels=8))
    """Sees the noisy latents and, behind them, those of the picture to be edited."""
    vae: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text: CLIPTextConfig = field(default_factory=CLIPTextConfig)
    image_size: int = 512
    """Pixels of a picture's longer side, about, if no other resolution is asked for."""
    token_length: int = 77
    scale_factor: float = 0.18215
    """Latents are multiplied with it before noise is added; those of the picture to be edited are
    not."""
    text_guidance: float = 7.5
    """How closely an instruction is followed, if nothing else is asked for (InstructPix2Pix)."""
    image_guidance: float = 1.5
    """How close to the picture the result stays, likewise."""

    def __post_init__(self) -> None:
        expected = self.unet.out_channels + self.vae.embed_dim
        if self.unet.in_channels != expected:
            raise ValueError(
                f"EditorConfig.unet: an editor's U-Net sees {self.unet.out_channels} channels of "
                f"noisy latents and {self.vae.embed_dim} of the picture, in_channels must be "
                f"{expected}, got {self.unet.in_channels}"
            )

    @property
    def multiple(self) -> int:
        """What height and width of a picture must be multiples of."""
        return self.vae.stride * 2 ** (len(self.unet.channel_mult) - 1)


class Editor(Network):
    """Autoencoder, text encoder, and a U-Net that sees a picture beside the sample, all under their
    original parameter names.

    Example:
        >>> editor = vpd.load("vpd-mini-edit")
        >>> editor.edit("scene.png", "make the cube blue", seed=1).save("blue.png")
    """

    def __init__(self, config: EditorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EditorConfig()
        self.vae = AutoencoderKL(config.vae)
        self.text = CLIPTextEncoder(config.text)
        self.unet = UNet(config.unet)

    @classmethod
    def from_foundation(cls, foundation: Foundation, *, token_length: int | None = None) -> Editor:
        """An editor to be trained, from a text-to-image model.

        The first convolution gets channels for the picture, with weights of 0: untrained, it draws
        what the foundation does, whatever the picture.

        Args:
            foundation: Its weights are copied.
            token_length: Tokens of an instruction; the foundation's own if None.
        """
        own = foundation.config
        channels = own.unet.out_channels + own.vae.embed_dim
        config = EditorConfig(
            unet=replace(own.unet, in_channels=channels),
            vae=own.vae,
            text=own.text,
            image_size=own.image_size,
            token_length=token_length or own.token_length,
            scale_factor=own.scale_factor,
        )
        first = foundation.unet.get_parameter(_FIRST)
        model = uninitialised(lambda: cls(config), first.device, first.dtype)
        model.vae.load_state_dict(foundation.vae.state_dict())
        model.text.load_state_dict(foundation.text.state_dict())
        state = foundation.unet.state_dict()
        state[_FIRST] = with_zero_channels(first.detach(), channels)
        model.unet.load_state_dict(state)
        return channels_last(model).eval()

    @property
    def device(self) -> torch.device:
        return self.unet.get_parameter(_FIRST).device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.get_parameter(_FIRST).dtype

    def encode_text(self, texts: list[str]) -> Tensor:
        """Token states [B, token_length, C] of instructions."""
        ids = tokenize(texts, length=self.config.token_length).ids
        return self.text(ids.to(self.device)).hidden

    def encode_image(self, image: Tensor) -> Tensor:
        """What the U-Net sees of pictures to be edited.

        Args:
            image: [B, 3, H, W] in [-1, 1]; H and W multiples of ``config.multiple``.

        Returns:
            [B, C, h, w]: the mode of their latents, not scaled.
        """
        return self.vae.encode(image.to(self.device, self.dtype)).mode()

    @torch.no_grad()
    def sample(
        self,
        image: Tensor,
        text: Tensor,
        empty: Tensor,
        *,
        sampler: Sampler,
        noise: NoiseSource,
        text_guidance: float | None = None,
        image_guidance: float | None = None,
        on_step: StepWatcher | None = None,
    ) -> Tensor:
        """Edited pictures from tensors.

        Args:
            image: Latents [B, C, h, w] of :meth:`encode_image`.
            text: States [B, N, C] of instructions.
            empty: States [1, N, C] of the empty one.
            sampler: How to get from noise to latents.
            noise: Where it comes from.
            text_guidance: How closely the instruction is followed; the config's if None.
            image_guidance: How close to the picture the result stays; the config's if None.
            on_step: Told after every step.

        Returns:
            float32 [B, 3, H, W] in [-1, 1].
        """
        from vpd.diffusion import START, GuidedUNet, sample

        own, other = self.guidance(text_guidance, image_guidance)
        unet = GuidedUNet(
            self.unet, text, empty, image=image, text_guidance=own, image_guidance=other
        )
        shape = (len(image), self.config.unet.out_channels, *image.shape[-2:])
        blank = torch.empty(shape, device=image.device)
        start = sampler.initial_scale * noise(START, blank)
        latents = sample(unet, sampler, start, noise, on_step=on_step)
        pixels = self.vae.decode((latents / self.config.scale_factor).to(self.dtype))
        return pixels.float().clamp(-1, 1)

    def edit(
        self,
        image: Any,
        instruction: str | Sequence[str],
        *,
        steps: int = 100,
        text_guidance: float | None = None,
        image_guidance: float | None = None,
        sampler: Method | Sampler = "euler_ancestral",
        seed: int | Sequence[int] | None = None,
        noise: NoiseSource | None = None,
        resolution: int | None = None,
        batch: int = 8,
        on_step: StepWatcher | None = None,
    ) -> Any:
        """Edits pictures as instructions say.

        Too little change: raise ``text_guidance`` or lower ``image_guidance``. Too much: the other
        way round. Other words, another seed and more steps help too; what the autoencoder cannot
        draw, such as small faces, suffers.

        Args:
            image: Path, PIL image, uint8 array HxWx3 (or grey, RGBA, 16 bit), float array or
                tensor in [0, 1]; any size. Or a list of them.
            instruction: What to do, e.g. "make the cube blue"; an empty one changes nothing. Or a
                list of them, for one picture or for as many.
            steps: Calls of the network, if the sampler is given by name.
            text_guidance: How closely the instruction is followed; 1 = no guidance, None = the
                config's.
            image_guidance: How close to the picture the result stays; likewise.
            sampler: A method of :class:`vpd.diffusion.Sampler`, or a sampler.
            seed: Of the noise, one for all pictures or one for each: a picture comes out the same
                alone and beside others. None: drawn for each, and told in the result.
            noise: Source of the noise of all pictures instead, asked once for each batch.
            resolution: About the longer side of the result, ``config.image_size`` if None; see
                :func:`vpd.tasks.editor_size.edit_size`.
            batch: Pictures of one size that go through the networks together.
            on_step: Told after every step of a batch.

        Returns:
            An :class:`vpd.tasks.editor_results.EditResult`: the edited picture at the size of the
            rule, beside what was edited. A list of them for a list of pictures or instructions.

        Raises:
            ValueError, TypeError, OSError: A picture that cannot be read; numbers of pictures,
                instructions and seeds that differ; a seed beside a source of noise; no such
                sampler.
        """
        from vpd.diffusion import SampleNoise, Sampler

        several = isinstance(image, (list, tuple))
        texts = list(instruction)
        if isinstance(instruction, str):
            texts = [instruction] * (len(image) if several else 1)
        given = image if several else [image] * len(texts)
        side = self.config.image_size if resolution is None else resolution
        pictures = self._pictures(given, len(texts), side)
        if seed is not None and noise is not None:
            raise ValueError("expected a seed or a source of noise, got both")
        seeds = _seeds(seed, len(texts))
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        way = Sampler(sampler, steps) if isinstance(sampler, str) else sampler
        guidance = self.guidance(text_guidance, image_guidance)
        found = list(pictures)
        for rows in _together(pictures, texts, batch):
            own = noise or SampleNoise(0, [seeds[row] for row in rows])
            pixels = torch.stack([in_range(pictures[row]) for row in rows])
            with torch.no_grad():
                drawn = self.sample(
                    self.encode_image(pixels),
                    self.encode_text([texts[row] for row in rows]),
                    self.encode_text([""]),
                    sampler=way,
                    noise=own,
                    text_guidance=guidance[0],
                    image_guidance=guidance[1],
                    on_step=on_step,
                )
            values = ((drawn + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            for row, picture in zip(rows, values, strict=True):
                found[row] = picture
        truncated = tokenize(texts, length=self.config.token_length).truncated.tolist()
        told = [None] * len(texts) if noise is not None else seeds
        results = [
            EditResult(after, before, text, own_seed, *guidance, cut)
            for after, before, text, own_seed, cut in zip(
                found, pictures, texts, told, truncated, strict=True
            )
        ]
        return results if several or not isinstance(instruction, str) else results[0]

    def forward(self, image: Any, instruction: Any, **options: Any) -> Any:
        """:meth:`edit`."""
        return self.edit(image, instruction, **options)

    def guidance(self, text: float | None, image: float | None) -> tuple[float, float]:
        """By text and by image: what is asked for, or the config's where that is None."""
        own = self.config
        return (
            own.text_guidance if text is None else text,
            own.image_guidance if image is None else image,
        )

    def _pictures(self, images: Sequence[Any], count: int, resolution: int) -> list[RGBImage]:
        """Pictures at the size of editing; one that is there repeatedly is read once."""
        if len(images) != count:
            raise ValueError(
                f"expected a picture for each of {count} instructions, got {len(images)}"
            )
        known: dict[int, RGBImage] = {}
        for image in images:
            if id(image) not in known:
                known[id(image)] = fitted(read_image(image), resolution, self.config.multiple)
        return [known[id(image)] for image in images]


def with_zero_channels(weight: Tensor, channels: int) -> Tensor:
    """A convolution's weight [O, I, ...] with so many input channels, those that it lacks zero
    behind its own.

    Raises:
        ValueError: It has more.
    """
    lacking = channels - weight.shape[1]
    if lacking < 0:
        raise ValueError(f"expected at most {channels} input channels, got {weight.shape[1]}")
    return torch.cat([weight, weight.new_zeros(len(weight), lacking, *weight.shape[2:])], dim=1)


def _seeds(seed: int | Sequence[int] | None, count: int) -> list[int]:
    """A seed for each of so many pictures: one for all, one for each, or drawn."""
    if seed is None:
        dice = random.SystemRandom()
        return [dice.randrange(_SEEDS) for _ in range(count)]
    seeds = [seed] * count if isinstance(seed, int) else [int(one) for one in seed]
    if len(seeds) != count:
        raise ValueError(f"expected one seed, or one for each of {count} edits, got {len(seeds)}")
    return seeds


def _together(pictures: list[RGBImage], texts: list[str], batch: int) -> list[list[int]]:
    """Places of pictures of one size, as many together as a batch takes; those that no instruction
    changes are left out."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pictures):
        if texts[place].strip():
            sizes.setdefault(picture.shape, []).append(place)
    return [rows[i : i + batch] for rows in sizes.values() for i in range(0, len(rows), batch)]
