"""Stage 2 of pre-training: CLIP, a text and an image encoder that find each other's match."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import lightning.pytorch as pl
import torch
from torch import Tensor

from vpd.losses import contrastive_loss
from vpd.models.clip import CLIP
from vpd.train.loop.batches import Resident, step_generator
from vpd.train.loop.config import LoopConfig
from vpd.train.loop.optimizer import optimizer_of
from vpd.train.pretrain.retrieval import Gallery, retrieval_probe


@dataclass(frozen=True)
class ContrastiveStage:
    """CLIP's objective and its way of training (Radford et al. 2021, section 2.5)."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=3000, batch=128, lr=1e-3, beta2=0.98, weight_decay=0.1, warmup=100, val_every=500
        )
    )
    max_scale: float = 100.0
    """Largest factor on the cosines."""

    def __post_init__(self) -> None:
        if self.loop.micro_batch is not None:
            raise ValueError(
                "the contrastive stage compares every picture with every caption of its batch: "
                f"it takes no micro_batch, got {self.loop.micro_batch}"
            )


class ContrastiveTraining(pl.LightningModule):
    """Trains both towers.

    Args:
        images: uint8 [N, H, W, 3].
        captions: int [N, captions, length], tokenised captions of each scene.
    """

    def __init__(
        self,
        clip: CLIP,
        stage: ContrastiveStage,
        images: Tensor,
        captions: Tensor,
        gallery: Gallery,
        seed: int,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.stage = stage
        self.seed = seed
        self._data = Resident(images=images, captions=captions)
        self._gallery = gallery

    def setup(self, stage: str) -> None:
        self._data.to(self.device)

    def training_step(self, _: int) -> Tensor:
        images, captions = self._data["images"], self._data["captions"]
        size, device = self.stage.loop.batch, self.device
        generator = step_generator(self.seed, self.global_step, device)
        scenes = torch.randint(len(images), (size,), generator=generator, device=device)
        which = torch.randint(captions.shape[1], (size,), generator=generator, device=device)
        pixels = images[scenes].permute(0, 3, 1, 2).float().div(127.5).sub(1)
        loss = contrastive_loss(
            self.clip.embed_images(pixels),
            self.clip.embed_text(captions[scenes, which].long()),
            self.clip.logit_scale.exp(),
        )
        self.log("loss", loss, prog_bar=True, batch_size=size)
        self.log("scale", self.clip.logit_scale.detach().exp(), batch_size=size)
        return loss

    def on_train_batch_end(self, *_: object) -> None:
        with torch.no_grad():
            self.clip.logit_scale.clamp_(max=math.log(self.stage.max_scale))

    def validation_step(self, _: int) -> None:
        self.log_dict(retrieval_probe(self.clip, self._gallery), prog_bar=True, batch_size=1)

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        total = self.stage.loop.steps
        return optimizer_of(
            [
                {"params": [p for p in self.parameters() if p.ndim > 1]},
                {"params": [p for p in self.parameters() if p.ndim <= 1], "weight_decay": 0.0},
            ],
            self.stage.loop,
            lambda step: 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / total)),
        )
