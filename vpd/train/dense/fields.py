"""What trainings of semantic segmentation and of depth have in common."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar, Literal

from vpd.data.dense import DenseName
from vpd.images import Size, sides
from vpd.lora import LoraConfig
from vpd.models.unet import Recompute
from vpd.models.vit import ViTConfig
from vpd.protocol import NoiseSpec
from vpd.tasks.maps import at_timestep
from vpd.train.loop.config import LoopConfig
from vpd.train.loop.modes import check_modes
from vpd.train.loop.schedules import ScheduleConfig

__all__ = ["DenseData", "DenseTrainConfig"]


@dataclass(frozen=True)
class DenseData:
    """What is trained on, and what is watched meanwhile."""

    name: DenseName = "tabletop"
    """``tabletop`` is rendered, or read from ``root`` if that is given; ``folder`` is any two
    folders of pictures and masks or depths; others are read from ``root``. Segmentation:
    ``ade20k``, ``coco-stuff``, ``cityscapes``; depth: ``nyuv2``."""
    root: str | None = None
    split: str = "train-10k"
    val_split: str = "val"
    """NYUv2: ``test``."""
    limit: int | None = None
    """Only the first pictures of the split."""
    val_limit: int | None = 200
    """Pictures watched during training."""
    final_limit: int | None = None
    """Pictures scored at its end; None for all of the split."""
    images: str | None = None
    """``folder``: pictures to train on."""
    targets: str | None = None
    """``folder``: their masks, or depths, under the same names."""
    val_images: str | None = None
    """``folder``: pictures to score."""
    val_targets: str | None = None
    """``folder``: their masks or depths."""
    names: str | None = None
    """``folder`` with masks: text file with the name of a class in each line."""
    reduce_zero_label: bool | None = None
    """``folder`` with masks: stored values are class ids plus one, and 0 is no class. None: class
    ids."""
    units_per_metre: float | None = None
    """``folder`` with depths: 256 for KITTI's files, 1 for metres. None: 1000, millimetres."""
    scene: str | None = None
    """``folder`` with depths: type of the scene of all pictures. None: room."""
    cache_dir: str | None = None
    """Where rendered scenes, latents and U-Net outputs are kept; default $VPD_CACHE or
    ~/.cache/vpd."""
    workers: int | None = None
    """Processes that render; threads that read and augment, one per CPU if None."""


@dataclass(frozen=True)
class DenseTrainConfig:
    """Everything that determines a trained model with a value for every pixel."""

    out: str = "runs/dense"
    foundation: str = "vpd-mini"
    """A shipped model's name or a folder: where autoencoder, U-Net and the text encoder that reads
    the names of classes come from."""
    weights: str | tuple[str, ...] = ()
    """Instead of a foundation: Stable Diffusion v1.5 as a single file or a diffusers folder (full
    size), and an official VPD checkpoint of the task on top of it if one is to go on from."""
    backbone: Literal["unet", "vit"] = "unet"
    """What the head reads: the diffusion model's U-Net; or, to measure that against, a frozen
    vision transformer. That one is told nothing, has no attention maps and needs no foundation."""
    vit: ViTConfig = field(default_factory=ViTConfig)
    """``backbone: vit``: its shape, and the maps that are made of it. DINOv2's ViT-B/14."""
    vit_weights: str | None = None
    """``backbone: vit``: a file of DINOv2's, timm's or transformers', or ``random`` for one that
    has learnt nothing."""
    data: DenseData = field(default_factory=DenseData)
    loop: LoopConfig = field(default_factory=LoopConfig)
    epochs: int | None = None
    """If set, the number of steps follows from it. VPD: 25 for depth."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    crop: Size = 128
    """Height and width in pixels, or the side, of the pictures that are trained on and of the
    windows of a test. VPD: 512 for segmentation, 480 for depth."""
    augment: Literal["none", "flip", "full"] = "flip"
    """``full``: VPD's augmentation; pictures are read, changed and encoded anew in every step.
    ``flip``: each picture and its mirror image are encoded once, squashed to ``crop``; ``none``:
    each picture alone."""
    class_texts: str | None = None
    """Embeddings of the classes (or types of scenes): a file of `vpd classes build`, or one that
    VPD released. None: made by the foundation's text encoder from the data set's names."""
    templates: Literal["clip80", "single", "bare"] = "clip80"
    """Sentences around a name where embeddings are made: CLIP's 80, "a photo of a {}." or the name
    alone. VPD: 80 for depth."""
    protocol: str | None = None
    """Named noise protocol (:meth:`vpd.NoiseSpec.preset`); None: ``vpd-2023``, or ``noise``."""
    t: int = 0
    """Timestep of that protocol, 0 to 999."""
    noise: NoiseSpec | None = None
    """Noise protocol in full, instead of a named one."""
    fresh_noise: bool = False
    """Draw the protocol's noise anew in every step. Otherwise it depends on the picture's
    content."""
    scale_latents: bool = True
    """Feed the U-Net latents at the scale it was pre-trained with, unless ``noise`` gives another
    one than 1. VPD does not."""
    unet_lr_mult: float = 1.0
    """Factor of the U-Net's learning rate. VPD: 0.1 for segmentation, 0.01 for depth."""
    freeze: Literal["none", "optimizer_only", "unet"] = "none"
    """``unet``: the U-Net takes no part in the training. ``optimizer_only``: it is left out of the
    optimizer only, autograd still computes its gradients."""
    lora: LoraConfig | None = None
    """Train low-rank changes of the U-Net's attention instead of its weights; they are written to
    ``out/lora.safetensors`` too."""
    frozen_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """How networks that do not train hold their weights meanwhile: the autoencoder, and the U-Net
    under ``freeze: unet`` or ``lora``. What trains stays float32, and whole weights are scored at
    the end and saved. float16 is for networks that no gradient passes through."""
    unet_init: Literal["pretrained", "random"] = "pretrained"
    text_adapter: bool = True
    """Embeddings of classes, or of types of scenes, pass through VPD's text adapter, which
    trains."""
    image_norm: Literal["half", "none"] = "half"
    """``none``: leave the images in [0, 1] instead of [-1, 1]."""
    recompute: Recompute = "none"
    """What the backward computes again instead of keeping it: ``feed_forward``,
    ``attention`` or ``all`` of the U-Net (see :attr:`vpd.UNet.recompute`)."""
    feature_cache: Literal["float16", "float32", "none"] = "float16"
    """How the U-Net's outputs are kept on disk where nothing that trains comes before them: with
    ``freeze: unet``, without an adapter (``text_adapter: false``) and without ``augment: full``.
    Each picture then goes through the U-Net once and a step costs the head alone. With any other
    choice, or ``none``, the U-Net runs in every step. So are a vision transformer's, without
    ``augment: full``."""
    eval_batch: int = 4
    """Windows of a pass when the model is scored; no score depends on it."""
    select: Literal["last", "best"] = "last"
    """Which weights are kept: the last, or those with the best score on the watched pictures (VPD:
    best for depth)."""
    seed: int = 0
    progress: bool = True

    of_unet: ClassVar[tuple[str, ...]] = (
        "weights", "class_texts", "protocol", "noise", "fresh_noise", "lora", "unet_init",
        "image_norm", "recompute",
    )  # fmt: skip
    """Fields that ask for something which a vision transformer cannot do."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("augment", ("none", "flip", "full")),
            ("freeze", ("none", "optimizer_only", "unet")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if min(sides(self.crop)) < 1:
            raise ValueError(f"crop must be at least 1 pixel, got {self.crop}")
        self._check_backbone()
        check_modes(self, {self.adapter_name: self.trains_adapter, "lora": self.lora is not None})

    def _check_backbone(self) -> None:
        """Refuses a backbone without weights, or with choices that are those of another one."""
        if self.backbone not in ("unet", "vit"):
            raise ValueError(f"backbone must be one of ('unet', 'vit'), got {self.backbone!r}")
        if self.backbone == "unet":
            if self.vit_weights is not None:
                raise ValueError(f"vit_weights needs backbone=vit, got {self.vit_weights!r}")
            return
        if self.vit_weights is None:
            raise ValueError(
                "backbone=vit needs vit_weights: a file of DINOv2's or timm's, or 'random' for a "
                "transformer that has learnt nothing; got none"
            )
        usual = {own.name: own.default for own in fields(self)}
        asked = [name for name in self.of_unet if getattr(self, name) != usual[name]]
        if self.freeze == "optimizer_only":
            asked.append("freeze")
        if asked:
            raise ValueError(
                f"{asked[0]} is a choice about the U-Net, which backbone=vit does without; got "
                f"{asked[0]}={getattr(self, asked[0])!r}"
            )

    @property
    def trains_unet(self) -> bool:
        """Whether the optimizer holds the U-Net's own weights."""
        return self.backbone == "unet" and self.freeze == "none" and self.lora is None

    @property
    def trains_adapter(self) -> bool:
        """Whether something that trains makes what the U-Net is told."""
        return self.backbone == "unet" and self.text_adapter

    @property
    def adapter_name(self) -> str:
        """The field that decides that."""
        return "text_adapter"

    @property
    def keeps_time(self) -> bool:
        """Whether the U-Net is told the same time about all pictures."""
        return True

    @property
    def frozen(self) -> tuple[str, ...]:
        """Networks whose weights have no part in the training."""
        if self.backbone == "vit":
            return ("vit",)
        return ("vae", *["unet"] * (self.freeze == "unet" or self.lora is not None))

    @property
    def weight_files(self) -> list[Path]:
        """``weights``, one or several, as paths."""
        names = (self.weights,) if isinstance(self.weights, str) else self.weights
        return [Path(name) for name in names]

    def noise_at(self, scale_factor: float) -> NoiseSpec:
        """The noise protocol, for a diffusion model whose latents have that factor."""
        noise = self.noise or NoiseSpec()
        if self.scale_latents and noise.latent_scale == 1.0:
            noise = replace(noise, latent_scale=scale_factor)
        return noise if self.protocol is None else at_timestep(self.protocol, self.t, noise)
