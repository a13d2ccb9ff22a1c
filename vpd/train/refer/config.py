"""What determines a trained referring segmenter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vpd.lora import LoraConfig
from vpd.models.unet import Recompute
from vpd.protocol import NoiseSpec
from vpd.tasks.denoising import Denoising, check_denoising
from vpd.tasks.refer_config import check_maps
from vpd.train.loop.config import LoopConfig
from vpd.train.loop.modes import check_modes

__all__ = ["ReferData", "ReferTrainConfig"]


@dataclass(frozen=True)
class ReferData:
    """What is trained on, and what is watched meanwhile."""

    name: str = "tabletop"
    """``tabletop`` is rendered; ``refcoco``, ``refcoco+``, ``refcocog``, ``refclef`` are read from
    ``root``."""
    root: str | None = None
    split_by: str | None = None
    split: str = "train-10k"
    limit: int | None = None
    """Tabletop: only the first scenes of the split."""
    subset: int | None = None
    """Only the first sentences (or objects, see ``subset_unit``) of the split, in file order."""
    val_split: str = "val"
    val_subset: int | None = None
    """The same of the validation split."""
    subset_unit: Literal["sentence", "ref"] = "sentence"
    val_limit: int | None = 200
    """Images watched during training."""
    final_limit: int | None = None
    """Images scored at its end; None for all of the split."""
    cache_dir: str | None = None
    """Where rendered scenes, latents and U-Net outputs are kept; default $VPD_CACHE or
    ~/.cache/vpd."""
    workers: int | None = None


@dataclass(frozen=True)
class ReferTrainConfig:
    """Everything that determines a trained referring segmenter. Defaults fine-tune vpd-mini on
    Tabletop."""

    out: str = "runs/refer"
    foundation: str = "vpd-mini"
    """A shipped model's name or a folder: where autoencoder, text encoder and U-Net come from."""
    weights: str | tuple[str, ...] = ()
    """Instead of a foundation: Stable Diffusion v1.5 as a single file or a diffusers folder (full
    size), and a VPD checkpoint on top of it if one is to go on from."""
    data: ReferData = field(default_factory=ReferData)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=6000, batch=8, lr=5e-4, warmup=50, ema=0.995, val_every=1500
        )
    )
    epochs: int | None = None
    """If set, the number of steps follows from it."""
    together: int = 1
    """Objects of one picture that stand side by side in a batch: their rows differ in the sentence
    alone. VPD: 1."""
    token_length: int = 24
    hidden: int = 64
    attention: tuple[int, ...] = (2, 4)
    """Strides on the latent grid whose maps the decoder sees, 1 being the finest; () for none."""
    attn_fusion: Literal["mean", "daam"] = "mean"
    """``daam``: one map per token from all layers, on the finest grid (see :mod:`vpd.daam`),
    average-pooled to every level but the coarsest."""
    attn_t_ensemble: tuple[int, ...] = ()
    """Average maps over passes at these timesteps of the noise protocol; features remain those of
    its own."""
    denoise: Denoising | None = None
    """Remove the noise of ``protocol`` (``latent_match``) again in a few steps guided by the
    sentence, and train on features of the last one."""
    scale_maps: bool = True
    """Multiply maps by the number of tokens, so that they have the scale of features. VPD does
    not."""
    protocol: str | None = None
    """Named noise protocol (:meth:`vpd.NoiseSpec.preset`); None: ``vpd-2023``, or ``noise``."""
    t: int = 0
    """Timestep of that protocol, 0 to 999."""
    noise: NoiseSpec | None = None
    """Noise protocol in full, instead of a named one."""
    fresh_noise: bool = False
    """Draw the protocol's noise anew in every step, as F-VPD's authors did. Otherwise a picture
    keeps its noise and is encoded once."""
    scale_latents: bool = True
    """Feed the U-Net latents at the scale it was pre-trained with, unless ``noise`` gives another
    one than 1. VPD does not."""
    class_weights: tuple[float, float] = (0.9, 1.1)
    """Of background and object in the cross-entropy."""
    dice_weight: float = 0.2
    """Weight of the soft Dice loss beside the cross-entropy. VPD: 0."""
    unet_lr_mult: float = 1.0
    freeze: Literal["none", "optimizer_only", "unet"] = "none"
    """``unet``: the U-Net takes no part in the training (F-VPD). ``optimizer_only``: it is left out
    of the optimizer only, autograd still computes its gradients: what F-VPD's authors ran."""
    lora: LoraConfig | None = None
    """Train low-rank changes of the U-Net's attention instead of its weights; they are written to
    ``out/lora.safetensors`` too."""
    frozen_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """How networks that do not train hold their weights meanwhile: the autoencoder, the text
    encoder, the U-Net under ``freeze: unet`` or ``lora``. What trains stays float32, and whole
    weights are scored at the end and saved. float16 is for networks that no gradient passes
    through."""
    unet_init: Literal["pretrained", "random"] = "pretrained"
    train_text: bool = False
    """Train the text encoder too. VPD does not."""
    text_adapter: bool = True
    image_norm: Literal["half", "none"] = "half"
    """``none``: leave the images in [0, 1] instead of [-1, 1]."""
    recompute: Recompute = "none"
    """What the backward computes again instead of keeping it: ``feed_forward``,
    ``attention`` or ``all`` of the U-Net (see :attr:`vpd.UNet.recompute`)."""
    feature_cache: Literal["float16", "float32", "none"] = "float16"
    """How the U-Net's outputs are kept on disk where nothing that trains comes before them: with
    ``freeze: unet``, ``text_adapter: false`` and ``train_text: false``. Each sample then goes
    through the U-Net once and a step costs the decoder alone. With any other choice, or ``none``,
    the U-Net runs in every step."""
    text_blind: bool = False
    """Empty every sentence of the training data: what can be learnt without reading. Its score is
    ``text_blind/oIoU``."""
    eval_batch: int = 64
    """Sentences of a pass when the model is scored; what is too many for the memory matters, no
    score depends on it."""
    select: Literal["last", "best"] = "last"
    """Which weights are kept: the last, or those with the best oIoU on the watched images (VPD)."""
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        before = {
            "text_adapter": self.text_adapter,
            "train_text": self.train_text,
            "lora": self.lora is not None,
        }
        check_modes(self, before)
        noise = self.noise or NoiseSpec()
        if self.protocol:
            noise = NoiseSpec.preset(self.protocol, noise_t=self.t)
        check_maps(self.attention, self.attn_fusion, self.attn_t_ensemble, noise)
        check_denoising(self.denoise, noise, self.attn_t_ensemble)

    @property
    def trains_unet(self) -> bool:
        """Whether the optimizer holds the U-Net's own weights."""
        return self.freeze == "none" and self.lora is None

    @property
    def frozen(self) -> tuple[str, ...]:
        """Networks whose weights have no part in the training."""
        unet = self.freeze == "unet" or self.lora is not None
        return ("vae", *["text"] * (not self.train_text), *["unet"] * unet)

    @property
    def weight_files(self) -> list[Path]:
        """``weights``, one or several, as paths."""
        names = (self.weights,) if isinstance(self.weights, str) else self.weights
        return [Path(name) for name in names]
