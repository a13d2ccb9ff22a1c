"""Training of referring segmentation: VPD's recipe (AdamW, polynomial decay, class-weighted
cross-entropy)."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor

from vpd.data import tabletop
from vpd.data.refer import ReferDataset
from vpd.losses import dice_loss, weighted_cross_entropy
from vpd.protocol import NoiseSpec
from vpd.tasks import store
from vpd.tasks.evaluate import evaluate_refer
from vpd.tasks.refer import ReferConfig, ReferSegmenter
from vpd.tasks.samples import ReferSamples, refer_samples
from vpd.train.loop import LoopConfig, adamw, fit
from vpd.train.refer_table import ReferTable, dataset_refs, tabletop_refs

__all__ = ["ReferData", "ReferTrainConfig", "train"]

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
    """Images watched during training; all of them at its end."""
    cache_dir: str | None = None
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
    text_adapter: bool = True
    select: Literal["last", "best"] = "last"
    """Which weights are kept: the last, or those with the best oIoU on the watched images (VPD)."""
    seed: int = 0
    progress: bool = True


class ReferTraining(pl.LightningModule):
    """One run of the recipe."""

    def __init__(
        self,
        model: ReferSegmenter,
        config: ReferTrainConfig,
        table: ReferTable,
        val: ReferSamples,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self._table = table
        self._val = val
        model.vae.requires_grad_(False)
        model.text.requires_grad_(False)
        model.unet.requires_grad_(config.freeze == "none")
        model.adapter.requires_grad_(config.text_adapter)

    def setup(self, stage: str) -> None:
        self._table.to(self.device)

    def training_step(self, _: int) -> Tensor:
        batch = self._table.draw(self.global_step)
        with torch.no_grad():
            states = self.model.text(batch.ids).hidden
        size = (batch.masks.shape[-2], batch.masks.shape[-1])
        logits = self.model.decode(self.model.features(batch.latents, states), size)
        loss = weighted_cross_entropy(logits, batch.masks, self.config.class_weights)
        if self.config.dice_weight > 0:
            loss = loss + self.config.dice_weight * dice_loss(logits, batch.masks)
        self.log("loss", loss, prog_bar=True, batch_size=len(batch.masks))
        return loss

    def validation_step(self, _: int) -> None:
        limit = self.config.data.val_limit
        found = evaluate_refer(self.model, self._val, batch=64, limit=limit, progress=False).metrics
        self.log_dict({k: v for k, v in found.items() if "/" not in k}, batch_size=1)
        self.log("val_oIoU", found["oIoU"], prog_bar=True, logger=False, batch_size=1)

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        """VPD's groups: no weight decay on parameters with "norm" in their name, another rate for
        the U-Net."""
        config = self.config
        groups: dict[tuple[bool, bool], dict[str, Any]] = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
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
    if config.weights:
        from vpd.tasks.sources import build_refer

        model = build_refer([Path(w) for w in config.weights], token_length=config.token_length)
        return model
    base = store.load_foundation(config.foundation)
    scale = base.config.scale_factor
    noise = config.noise or NoiseSpec(latent_scale=scale if config.scale_latents else 1.0)
    torch.manual_seed(config.seed)
    model = ReferSegmenter(
        ReferConfig(
            unet=base.config.unet,
            vae=replace(base.config.vae, encode_only=True),
            text=base.config.text,
            noise=noise,
            image_size=base.config.image_size,
            token_length=config.token_length,
            hidden=config.hidden,
            attention=config.attention,
            map_scale=float(config.token_length) if config.scale_maps else 1.0,
            text_adapter=config.text_adapter,
            scale_factor=scale,
        )
    )
    kept = {k: v for k, v in base.vae.state_dict().items() if k in model.vae.state_dict()}
    model.vae.load_state_dict(kept)
    model.text.load_state_dict(base.text.state_dict())
    if config.unet_init == "pretrained":
        model.unet.load_state_dict(base.unet.state_dict())
    return model


def _load_data(config: ReferTrainConfig, model: ReferSegmenter) -> tuple[ReferTable, ReferSamples]:
    """The training table and the validation samples."""
    data, batch, seed = config.data, config.loop.batch, config.seed
    if data.name == "tabletop" and data.root is None:
        where = {"cache_dir": data.cache_dir, "workers": data.workers, "progress": config.progress}
        train = tabletop.load_split(data.split, limit=data.limit, **where)  # type: ignore[arg-type]
        val = tabletop.load_split(data.val_split, **where)  # type: ignore[arg-type]
        pictures = (train.images[i] for i in range(len(train)))
        table = ReferTable(model, pictures, tabletop_refs(train), batch, seed)
        return table, refer_samples(val)
    if data.root is None:
        raise ValueError(f"data.name={data.name} needs data.root, the folder that holds it")
    source = ReferDataset(data.root, data.name, data.split_by, data.split)
    images = sorted({ref.image_id for ref in source.refs})
    table = ReferTable(model, map(source.image, images), dataset_refs(source, images), batch, seed)
    return table, refer_samples(ReferDataset(data.root, data.name, data.split_by, data.val_split))


def _recipe(config: ReferTrainConfig) -> dict[str, Any]:
    """What determines the result, without where it was made."""
    recipe = {k: v for k, v in asdict(config).items() if k not in ("out", "progress")}
    recipe["data"] = {k: v for k, v in recipe["data"].items() if k not in ("cache_dir", "workers")}
    return recipe


def train(config: ReferTrainConfig) -> dict[str, float]:
    """Trains, or goes on from ``config.out/last.ckpt``; writes ``config.out/model``, which
    :func:`vpd.load` reads.

    Returns:
        Metrics of the trained model on the whole validation split.
    """
    out = Path(config.out)
    model = build(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table, val = _load_data(config, model.to(device))
    if config.epochs is not None:
        steps = config.epochs * table.steps_per_epoch
        config = replace(config, loop=replace(config.loop, steps=steps))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.info(
        "%d objects, %d sentences, %d steps of %d; %.2f M parameters",
        table.count, table.sentences, config.loop.steps, config.loop.batch, trained / 1e6,
    )  # fmt: skip
    module = ReferTraining(model, config, table, val)
    best = config.select == "best"
    fit(module, config.loop, out, progress=config.progress, monitor="oIoU" if best else None)
    if best:
        state = torch.load(out / "best.ckpt", weights_only=True, map_location="cpu")["state_dict"]
        module.load_state_dict(state)
    metrics = evaluate_refer(
        model.to(device), val, batch=64, text_blind=True, progress=config.progress
    ).metrics
    shipped = (
        config.foundation if not config.weights and config.foundation in store.shipped() else None
    )
    card = {"config": _recipe(config), "metrics": metrics, "licence": "Apache-2.0"}
    store.save(model.float().cpu(), out / "model", foundation=shipped, card=card)
    return metrics
