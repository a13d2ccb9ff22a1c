"""Pre-training of a small diffusion model on Tabletop's pictures and captions, in resumable
stages."""

from __future__ import annotations

import json
import logging
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vpd.data import tabletop
from vpd.data.files import atomic_write
from vpd.models.autoencoder import AutoencoderConfig
from vpd.models.clip import CLIPConfig
from vpd.models.clip_image import CLIPImageConfig
from vpd.models.clip_text import CLIPTextConfig
from vpd.models.unet import UNetConfig
from vpd.tasks import store
from vpd.tasks.foundation import Foundation, FoundationConfig
from vpd.tokens import tokenize
from vpd.train.distributed import alone
from vpd.train.loop.fit import fit
from vpd.train.loop.recipe import check_recipe, keep_recipe
from vpd.train.pretrain.contrastive import ContrastiveStage, ContrastiveTraining
from vpd.train.pretrain.denoiser import DenoiserStage, DenoiserTraining
from vpd.train.pretrain.drawn import contact_sheet, drawn_retrieval
from vpd.train.pretrain.probes import Probe, denoising_probe, make_phrases
from vpd.train.pretrain.retrieval import Gallery, retrieval_probe
from vpd.train.pretrain.vae import VAEStage, VAETraining, encode_split, psnr
from vpd.train.pretrain.world import caption_bank, images_tensor, vocabulary
from vpd.weights import save_weights

__all__ = ["PretrainConfig", "pretrain"]

log = logging.getLogger("vpd")


def mini() -> FoundationConfig:
    """vpd-mini: Stable Diffusion v1's architecture made small, for 128-pixel pictures (latents 32
    x 32)."""
    return FoundationConfig(
        unet=UNetConfig(
            model_channels=32, num_res_blocks=1, attention_resolutions=(4, 2), num_heads=4,
            context_dim=128, norm_groups=8,
        ),
        vae=AutoencoderConfig(
            ch=24, ch_mult=(1, 2, 4), num_res_blocks=1, norm_groups=8, mid_attention=False,
        ),
        text=CLIPTextConfig(
            hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        ),
        clip=CLIPConfig(
            text=CLIPTextConfig(
                hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
                projection_dim=128,
            ),
            image=CLIPImageConfig(
                hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
                image_size=128, patch_size=16, projection_dim=128,
            ),
            token_length=64,
        ),
        image_size=128,
        token_length=64,
    )  # fmt: skip


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that determines a pre-trained model."""

    out: str = "runs/pretrain"
    model: FoundationConfig = field(default_factory=mini)
    scenes: int = 24000
    """Pictures of the ``pretrain`` split."""
    captions_per_scene: int = 32
    vae: VAEStage = field(default_factory=VAEStage)
    contrastive: ContrastiveStage = field(default_factory=ContrastiveStage)
    """Only if the model has a CLIP."""
    denoiser: DenoiserStage = field(default_factory=DenoiserStage)
    seed: int = 0
    cache_dir: str | None = None
    """Where rendered scenes are kept; default $VPD_CACHE or ~/.cache/vpd."""
    workers: int | None = None
    progress: bool = True


_DRAWN = 128  # captions whose pictures the image encoder judges
Stage = Literal["vae", "contrastive", "denoiser"]


def pretrain(config: PretrainConfig, stage: Literal["all"] | Stage = "all") -> dict[str, float]:
    """Runs the stages that are not finished yet; an interrupted stage goes on from its last
    checkpoint.

    Writes to ``config.out`` a folder per stage (checkpoints, ``metrics.csv``, ``curves.png``,
    ``pictures/``, TensorBoard files and, once it is finished, the stage's weights and metrics),
    then ``model/``, a foundation that :func:`vpd.load` reads, and ``samples.png``, what it draws.

    Returns:
        The metrics of all stages run so far.

    Raises:
        ValueError: Several processes, or ``config.out`` holds a run of another recipe.
    """
    alone("pre-training")
    out = Path(config.out)
    check_recipe(config)
    keep_recipe(config)
    run = _Pretraining(config, out)
    metrics: dict[str, float] = {}
    for name in run.stages:
        metrics.update(run.finished(name) or run.run(name))
        if stage == name:
            return metrics
    return {**metrics, **run.assemble(metrics)}


class _Pretraining:
    """The networks and the data of one run, and its stages."""

    def __init__(self, config: PretrainConfig, out: Path) -> None:
        self.config, self.out = config, out
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(config.seed)
        # Every stage starts from weights that depend on the seed alone, whether earlier stages ran
        # just now or before.
        self.model = model = _with_vocabulary(config)
        self.train, self.val = (
            tabletop.load_split(
                name, config.cache_dir, config.workers, limit, progress=config.progress
            )
            for name, limit in (("pretrain", config.scenes), ("val", None))
        )
        self.stages: dict[str, nn.Module] = {"vae": model.vae}
        if model.clip is not None:
            self.stages["contrastive"] = model.clip
        self.stages["denoiser"] = nn.ModuleDict({"text": model.text, "unet": model.unet})

    def finished(self, name: str) -> dict[str, float] | None:
        """Loads a finished stage's weights; its metrics, or None if it is still to be run."""
        folder = self.out / name
        if not (folder / "weights.safetensors").exists():
            return None
        self.stages[name].load_state_dict(load_file(folder / "weights.safetensors"))
        return json.loads((folder / "metrics.json").read_text())

    def run(self, name: str) -> dict[str, float]:
        """Trains one stage, or the rest of it, and keeps its weights and metrics."""
        log.info("stage %s: %d steps", name, getattr(self.config, name).loop.steps)
        metrics = getattr(self, f"_{name}")(self.out / name)
        with atomic_write(self.out / name / "metrics.json") as file:
            file.write((json.dumps(metrics, indent=1) + "\n").encode())
        state = {k: v.contiguous().cpu() for k, v in self.stages[name].state_dict().items()}
        save_weights(state, self.out / name / "weights.safetensors")
        return metrics

    def _vae(self, folder: Path) -> dict[str, float]:
        stage, vae = self.config.vae, self.model.vae
        module = VAETraining(vae, stage, self.train, self.val, self.config.seed)
        fit(module, stage.loop, folder, progress=self.config.progress)
        return {"psnr": psnr(vae.to(self.device), self.val, len(self.val))}

    def _denoiser(self, folder: Path) -> dict[str, float]:
        stage, model = self.config.denoiser, self.model
        length = model.config.token_length
        latents, val_latents, scale = self._latents()
        model.config = replace(model.config, scale_factor=scale)
        count = min(stage.val_scenes, len(self.val))
        captions = caption_bank(self.val, 1, length, workers=1)[:count, 0].long()
        phrases = make_phrases(self.val, count, length)
        probe = Probe(val_latents[:count] * scale, captions, phrases)
        module = DenoiserTraining(
            model.text,
            model.unet,
            stage,
            latents * scale,
            self._captions(),
            tokenize([""], length=length).ids[0].to(torch.int32),
            probe,
            self.config.seed,
            draw=lambda: contact_sheet(model),
        )
        fit(module, stage.loop, folder, progress=self.config.progress)
        model.text.to(self.device), model.unet.to(self.device)
        return {
            **denoising_probe(model.text, model.unet, probe, self.device),
            "scale_factor": scale,
        }

    def _contrastive(self, folder: Path) -> dict[str, float]:
        stage, clip = self.config.contrastive, self.model.clip
        assert clip is not None
        images, gallery = torch.from_numpy(self.train.images[:]), self._gallery()
        module = ContrastiveTraining(
            clip, stage, images, self._captions(), gallery, self.config.seed
        )
        fit(module, stage.loop, folder, progress=self.config.progress)
        return retrieval_probe(clip.to(self.device), gallery)

    def _latents(self) -> tuple[Tensor, Tensor, float]:
        """Unscaled latents of both splits, encoded once and kept, and 1 / their standard
        deviation."""
        path = self.out / "vae" / "latents.safetensors"
        if not path.exists():
            vae = self.model.vae.to(self.device).eval()
            save_weights(
                {"train": encode_split(vae, self.train), "val": encode_split(vae, self.val)}, path
            )
        state = load_file(path)
        return state["train"], state["val"].float(), float(1 / state["train"][:2000].float().std())

    def _captions(self) -> Tensor:
        """Captions of the training scenes, drawn once and kept."""
        path = self.out / "captions.safetensors"
        if not path.exists():
            length, workers = self.model.config.token_length, self.config.workers
            bank = caption_bank(self.train, self.config.captions_per_scene, length, workers)
            save_weights({"captions": bank}, path)
        return load_file(path)["captions"]

    def _gallery(self) -> Gallery:
        captions = caption_bank(self.val, 1, self.model.config.token_length, workers=1)
        return Gallery(images_tensor(self.val, slice(None)), captions[:, 0].long())

    def assemble(self, metrics: dict[str, float]) -> dict[str, Any]:
        """Writes ``model/``: the networks, the latents' scale, and how they came about; and what
        it draws."""
        model, config = self.model, self.config
        model.config = replace(model.config, scale_factor=metrics["scale_factor"])
        metrics = {k: v for k, v in metrics.items() if k != "scale_factor"}
        if model.clip is not None:
            few = Gallery(*(part[:_DRAWN] for part in astuple(self._gallery())))
            metrics.update(drawn_retrieval(model.to(self.device).eval(), few))
        contact_sheet(model).save(self.out / "samples.png")
        card = {
            "data": {
                "world": f"Tabletop {tabletop.VERSION}",
                "split": "pretrain",
                "scenes": config.scenes,
            },
            "seed": config.seed,
            "command": "vpd pretrain, with the config below",
            "config": json.loads((self.out / "recipe.json").read_text()),
            "metrics": metrics,
            "licence": "Apache-2.0",
        }
        store.save(model.float().cpu(), self.out / "model", card=card)
        return metrics


def _with_vocabulary(config: PretrainConfig) -> Foundation:
    """The model of the config, with token embeddings for the words of this world only."""

    def own_words(text: CLIPTextConfig) -> CLIPTextConfig:
        return text if text.vocab_subset else replace(text, vocab_subset=vocabulary())

    model = replace(config.model, text=own_words(config.model.text))
    if model.clip is not None:
        clip = replace(model.clip, text=own_words(model.clip.text))
        model = replace(model, clip=clip)
    return Foundation(model)
