"""Training of referring segmentation: VPD's recipe (AdamW, polynomial decay, class-weighted
cross-entropy)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from vpd.data import tabletop
from vpd.data.refer import ReferDataset
from vpd.data.tabletop.splits import cache_folder
from vpd.losses import dice_loss, weighted_cross_entropy
from vpd.models.unet import UNet, UNetOutput
from vpd.nn import channels_last
from vpd.protocol import NoiseSpec
from vpd.tasks import store
from vpd.tasks.evaluate import evaluate_refer
from vpd.tasks.refer import ReferConfig, ReferSegmenter
from vpd.tasks.samples import ReferSamples, refer_samples
from vpd.train.feature_cache import CachedFeatures
from vpd.train.loop import LoopConfig, adamw, fit, resolve_precision
from vpd.train.refer_table import (
    Batch,
    Referred,
    ReferTable,
    dataset_refs,
    reproducible,
    tabletop_refs,
)

__all__ = ["ReferData", "ReferTrainConfig", "build", "recipe", "train"]

log = logging.getLogger("vpd")


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
    val_split: str = "val"
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
    weights: tuple[str, ...] = ()
    """Instead of a foundation: Stable Diffusion v1.5 as a single file or a diffusers folder (full
    size)."""
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
    scale_maps: bool = True
    """Multiply maps by the number of tokens, so that they have the scale of features. VPD does
    not."""
    noise: NoiseSpec | None = None
    """Noise protocol; None: ``vpd-2023`` with latents at the foundation's scale (see
    ``scale_latents``)."""
    scale_latents: bool = True
    """Feed the U-Net latents at the scale it was pre-trained with. VPD does not."""
    class_weights: tuple[float, float] = (0.9, 1.1)
    """Of background and object in the cross-entropy."""
    dice_weight: float = 0.2
    """Weight of the soft Dice loss beside the cross-entropy. VPD: 0."""
    unet_lr_mult: float = 1.0
    freeze: Literal["none", "unet"] = "none"
    unet_init: Literal["pretrained", "random"] = "pretrained"
    train_text: bool = False
    """Train the text encoder too. VPD does not."""
    text_adapter: bool = True
    feature_cache: Literal["float16", "float32", "none"] = "float16"
    """How the U-Net's outputs are kept on disk where nothing that trains comes before them: with
    ``freeze: unet``, ``text_adapter: false`` and ``train_text: false``. Each sample then goes
    through the U-Net once and a step costs the decoder alone. With any other choice, or ``none``,
    the U-Net runs in every step."""
    text_blind: bool = False
    """Empty every sentence of the training data: what can be learnt without reading. Its score is
    ``text_blind/oIoU``."""
    select: Literal["last", "best"] = "last"
    """Which weights are kept: the last, or those with the best oIoU on the watched images (VPD)."""
    seed: int = 0
    progress: bool = True


class _Whole:
    """Holds the segmenter where Lightning does not look: only the parts that train are averaged
    and saved in checkpoints. Copies share it."""

    def __init__(self, model: ReferSegmenter) -> None:
        self.model = model

    def __deepcopy__(self, memo: dict[int, Any]) -> _Whole:
        return self


class ReferTraining(pl.LightningModule):
    """One run of the recipe. Its own parameters are those of the parts that train."""

    def __init__(
        self,
        model: ReferSegmenter,
        config: ReferTrainConfig,
        table: ReferTable,
        val: ReferSamples,
        cached: CachedFeatures | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self._whole = _Whole(model)
        self._table = table
        self._val = val
        self._cached = cached
        parts = {
            "text": config.train_text,
            "unet": config.freeze == "none",
            "adapter": model.config.text_adapter,
            "decoder": True,
        }
        model.requires_grad_(False)
        for name, trains in parts.items():
            if trains:
                self.add_module(name, getattr(model, name).requires_grad_(True))

    def setup(self, stage: str) -> None:
        self._table.to(self.device)

    def features(self, batch: Batch) -> UNetOutput:
        if self._cached is not None:
            return self._cached(batch.samples)
        model = self._whole.model
        with torch.set_grad_enabled(self.config.train_text):
            states = model.text(batch.ids).hidden
        return model.features(batch.latents, states, batch.index)

    def training_step(self, _: int) -> Tensor:
        batch = self._table.draw(self.global_step)
        size = (batch.masks.shape[-2], batch.masks.shape[-1])
        logits = self._whole.model.decode(self.features(batch), size)
        loss = weighted_cross_entropy(logits, batch.masks, self.config.class_weights)
        if self.config.dice_weight > 0:
            loss = loss + self.config.dice_weight * dice_loss(logits, batch.masks)
        self.log("loss", loss, prog_bar=True, batch_size=len(batch.masks))
        return loss

    def validation_step(self, _: int) -> None:
        limit = self.config.data.val_limit
        model = self._whole.model
        found = evaluate_refer(model, self._val, batch=64, limit=limit, progress=False).metrics
        self.log_dict({k: v for k, v in found.items() if "/" not in k}, batch_size=1)
        self.log("val_oIoU", found["oIoU"], prog_bar=True, logger=False, batch_size=1)

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        """VPD's groups: no weight decay on parameters with "norm" in their name, another rate for
        the U-Net."""
        config = self.config
        groups: dict[tuple[bool, bool], dict[str, Any]] = {}
        for name, parameter in self.named_parameters():
            of_unet, decays = name.startswith("unet."), "norm" not in name
            rate = config.loop.lr * (config.unet_lr_mult if of_unet else 1.0)
            group = groups.setdefault(
                (of_unet, decays),
                {
                    "params": [],
                    "lr": rate,
                    "weight_decay": config.loop.weight_decay if decays else 0.0,
                },
            )
            group["params"].append(parameter)
        total = config.loop.steps
        return adamw(
            list(groups.values()), config.loop, lambda step: max(0.0, 1 - step / total) ** 0.9
        )


def build(config: ReferTrainConfig) -> ReferSegmenter:
    """The model a run starts from: pre-trained parts, a fresh decoder and adapter."""
    torch.manual_seed(config.seed)
    if config.weights:
        from vpd.tasks.sources import build_refer

        model = build_refer([Path(w) for w in config.weights], config=_shape(config, ReferConfig()))
        if config.unet_init == "random":
            model.unet = UNet(model.config.unet)
        return channels_last(model).train()
    base = store.load_foundation(config.foundation)
    parts = ReferConfig(
        unet=base.config.unet,
        vae=replace(base.config.vae, encode_only=True),
        text=base.config.text,
        image_size=base.config.image_size,
        scale_factor=base.config.scale_factor,
    )
    model = ReferSegmenter(_shape(config, parts))
    kept = {k: v for k, v in base.vae.state_dict().items() if k in model.vae.state_dict()}
    model.vae.load_state_dict(kept)
    model.text.load_state_dict(base.text.state_dict())
    if config.unet_init == "pretrained":
        model.unet.load_state_dict(base.unet.state_dict())
    return channels_last(model)


def _shape(config: ReferTrainConfig, parts: ReferConfig) -> ReferConfig:
    """A segmenter of the networks in ``parts``, with everything that the recipe decides."""
    scale = parts.scale_factor if config.scale_latents else 1.0
    return replace(
        parts,
        noise=config.noise or NoiseSpec(latent_scale=scale),
        token_length=config.token_length,
        hidden=config.hidden,
        attention=config.attention,
        map_scale=float(config.token_length) if config.scale_maps else 1.0,
        text_adapter=config.text_adapter,
    )


def _load_data(config: ReferTrainConfig, model: ReferSegmenter) -> tuple[ReferTable, ReferSamples]:
    """The training table and the validation samples."""
    data = config.data
    pictures: Iterable[np.ndarray]
    refs: Iterable[Referred]
    if data.name == "tabletop" and data.root is None:
        where = {"cache_dir": data.cache_dir, "workers": data.workers, "progress": config.progress}
        train = tabletop.load_split(data.split, limit=data.limit, **where)  # type: ignore[arg-type]
        val = refer_samples(tabletop.load_split(data.val_split, **where))  # type: ignore[arg-type]
        pictures = (train.images[i] for i in range(len(train)))
        refs = tabletop_refs(train)
    elif data.root is None:
        raise ValueError(f"data.name={data.name} needs data.root, the folder that holds it")
    else:
        source = ReferDataset(data.root, data.name, data.split_by, data.split)
        images = sorted({ref.image_id for ref in source.refs})
        val = refer_samples(ReferDataset(data.root, data.name, data.split_by, data.val_split))
        pictures = map(source.image, images)
        refs = dataset_refs(source, images)
    if config.text_blind:
        refs = (replace(ref, sentences=("",)) for ref in refs)
    table = ReferTable(
        model, pictures, refs, config.loop.batch, config.seed, config.together,
        _cache(data, "latents"),
    )  # fmt: skip
    return table, val


def _cache(data: ReferData, kind: str) -> Path:
    return cache_folder(data.cache_dir).parent / kind


def _cached(
    config: ReferTrainConfig, model: ReferSegmenter, table: ReferTable
) -> CachedFeatures | None:
    """The U-Net's outputs for all that the run will draw, if they are the same in every epoch."""
    fixed = config.freeze == "unet" and not (config.text_adapter or config.train_text)
    if not fixed or config.feature_cache == "none":
        return None
    if not reproducible(model.config.noise):
        log.info("latents are drawn anew for this run, so the U-Net's outputs are not cached")
        return None
    return CachedFeatures(
        model,
        table,
        config.loop.steps,
        _cache(config.data, "features"),
        dtype=getattr(torch, config.feature_cache),
        bf16=resolve_precision(config.loop.precision) == "bf16-mixed",
        progress=config.progress,
    )


def recipe(config: ReferTrainConfig) -> dict[str, Any]:
    """What determines the result, without where it was made."""
    found = {k: v for k, v in asdict(config).items() if k not in ("out", "progress")}
    found["data"] = {k: v for k, v in found["data"].items() if k not in ("cache_dir", "workers")}
    return found


def train(config: ReferTrainConfig) -> dict[str, float]:
    """Trains, or goes on from ``config.out/last.ckpt``; writes ``config.out/model``, which
    :func:`vpd.load` reads.

    Returns:
        Metrics of the trained model on the validation split.
    """
    out = Path(config.out)
    model = build(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table, val = _load_data(config, model.to(device))
    if config.epochs is not None:
        steps = config.epochs * table.steps_per_epoch
        config = replace(config, loop=replace(config.loop, steps=steps))
    module = ReferTraining(model, config, table, val, _cached(config, model, table))
    trained = sum(p.numel() for p in module.parameters())
    log.info(
        "%d objects, %d sentences, %d steps of %d; %.2f M parameters",
        table.count, table.sentences, config.loop.steps, config.loop.batch, trained / 1e6,
    )  # fmt: skip
    best = config.select == "best"
    fit(module, config.loop, out, progress=config.progress, monitor="oIoU" if best else None)
    if best:
        state = torch.load(out / "best.ckpt", weights_only=True, map_location="cpu")["state_dict"]
        module.load_state_dict(state)
    metrics = evaluate_refer(
        model.to(device),
        val,
        batch=64,
        text_blind=True,
        limit=config.data.final_limit,
        progress=config.progress,
    ).metrics
    shipped = (
        config.foundation if not config.weights and config.foundation in store.shipped() else None
    )
    card = {
        "command": "vpd train, with the config below",
        "config": recipe(config),
        "metrics": metrics,
        "licence": "Apache-2.0",
    }
    store.save(model.float().cpu(), out / "model", foundation=shipped, card=card)
    return metrics
