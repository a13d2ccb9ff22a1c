"""Pre-training of a small diffusion model on Tabletop's pictures and captions, in resumable
stages."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vpd.data import tabletop
from vpd.data.files import atomic_write
from vpd.models.autoencoder import AutoencoderConfig
from vpd.models.clip_text import CLIPTextConfig
from vpd.models.unet import UNetConfig
from vpd.tasks import store
from vpd.tasks.foundation import Foundation, FoundationConfig
from vpd.tokens import tokenize
from vpd.train.denoiser import DenoiserStage, DenoiserTraining
from vpd.train.loop import fit
from vpd.train.probes import Probe, denoising_probe, make_phrases
from vpd.train.vae import VAEStage, VAETraining, encode_split, psnr
from vpd.train.world import caption_bank, vocabulary
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
    denoiser: DenoiserStage = field(default_factory=DenoiserStage)
    seed: int = 0
    cache_dir: str | None = None
    """Where rendered scenes are kept; default $VPD_CACHE or ~/.cache/vpd."""
    workers: int | None = None
    progress: bool = True


def pretrain(
    config: PretrainConfig, stage: Literal["all", "vae", "denoiser"] = "all"
) -> dict[str, float]:
    """Runs the stages that are not finished yet; an interrupted stage goes on from its last
    checkpoint.

    Writes to ``config.out``: ``vae/`` and ``denoiser/`` (checkpoints, ``metrics.csv``, TensorBoard
    files, and the stage's
    weights once it is finished), then ``model/``, a foundation that :func:`vpd.load` reads, with
    its metrics.

    Returns:
        The finished model's metrics (those of the last stage that ran).
    """
    out = Path(config.out)
    _pin(out, config)
    torch.manual_seed(config.seed)
    # Every stage starts from weights that depend on the seed alone, whether earlier stages ran
    # just now or before.
    model = _with_vocabulary(config)
    train = tabletop.load_split(
        "pretrain", config.cache_dir, config.workers, config.scenes, progress=config.progress
    )
    val = tabletop.load_split("val", config.cache_dir, config.workers, progress=config.progress)

    metrics: dict[str, float] = {}
    if _unfinished(out / "vae", model.vae):
        log.info("stage vae: %d steps", config.vae.loop.steps)
        module = VAETraining(model.vae, config.vae, train, val, config.seed)
        fit(module, config.vae.loop, out / "vae", progress=config.progress)
        device = _device()
        metrics["psnr"] = psnr(model.vae.to(device), val, len(val))
        _finish(out / "vae", model.vae, metrics)
    if stage == "vae":
        return metrics

    if _unfinished(out / "denoiser", model.text, model.unet):
        latents, val_latents, scale = _latents(model, train, val, out)
        length = model.config.token_length
        captions = caption_bank(train, config.captions_per_scene, length, config.workers)
        probe = _probe(val, val_latents * scale, config, length)
        log.info("stage denoiser: %d steps", config.denoiser.loop.steps)
        denoiser = DenoiserTraining(
            model.text,
            model.unet,
            config.denoiser,
            latents * scale,
            captions,
            tokenize([""], length=length).ids[0].to(torch.int32),
            probe,
            config.seed,
        )
        fit(denoiser, config.denoiser.loop, out / "denoiser", progress=config.progress)
        device = _device()
        model.text.to(device), model.unet.to(device)
        metrics.update(denoising_probe(model.text, model.unet, probe, device))
        _finish(out / "denoiser", nn.ModuleDict({"text": model.text, "unet": model.unet}),
                {**metrics, "scale_factor": scale})  # fmt: skip
    return {**metrics, **_assemble(model, out, config)}


def _with_vocabulary(config: PretrainConfig) -> Foundation:
    """The model of the config, with token embeddings for the words of this world only."""
    text = config.model.text
    if not text.vocab_subset:
        text = replace(text, vocab_subset=vocabulary())
    return Foundation(replace(config.model, text=text))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _pin(out: Path, config: PretrainConfig) -> None:
    """Keeps the config beside the run, and refuses to go on with another one."""
    own = {
        k: v
        for k, v in asdict(config).items()
        if k not in ("out", "cache_dir", "workers", "progress")
    }
    own = json.loads(json.dumps(own))
    path = out / "config.json"
    if path.exists() and json.loads(path.read_text()) != own:
        raise ValueError(
            f"{out} holds a run of another config ({path}); choose another "
            "folder with --out, or remove it"
        )
    with atomic_write(path) as file:
        file.write((json.dumps(own, indent=1) + "\n").encode())


def _unfinished(folder: Path, *networks: nn.Module) -> bool:
    """Loads a finished stage's weights into its networks; says whether the stage is still to be
    run."""
    path = folder / "weights.safetensors"
    if not path.exists():
        return True
    state = load_file(path)
    if len(networks) == 1:
        networks[0].load_state_dict(state)
    else:
        names = ("text", "unet")
        for name, network in zip(names, networks, strict=True):
            prefix = name + "."
            network.load_state_dict(
                {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
            )
    return False


def _finish(folder: Path, network: nn.Module, metrics: dict[str, float]) -> None:
    with atomic_write(folder / "metrics.json") as file:
        file.write((json.dumps(metrics, indent=1) + "\n").encode())
    state = {k: v.contiguous().cpu() for k, v in network.state_dict().items()}
    save_weights(state, folder / "weights.safetensors")


def _latents(
    model: Foundation, train: tabletop.TabletopSplit, val: tabletop.TabletopSplit, out: Path
) -> tuple[Tensor, Tensor, float]:
    """Unscaled latents of both splits, encoded once and kept, and 1 / their standard deviation."""
    path = out / "vae" / "latents.safetensors"
    if not path.exists():
        vae = model.vae.to(_device()).eval()
        save_weights({"train": encode_split(vae, train), "val": encode_split(vae, val)}, path)
    state = load_file(path)
    return state["train"], state["val"].float(), float(1 / state["train"][:2000].float().std())


def _probe(
    val: tabletop.TabletopSplit, latents: Tensor, config: PretrainConfig, length: int
) -> Probe:
    count = min(config.denoiser.val_scenes, len(val))
    captions = caption_bank(val, 1, length, workers=1)[:count, 0].long()
    return Probe(latents[:count], captions, make_phrases(val, count, length))


def _assemble(model: Foundation, out: Path, config: PretrainConfig) -> dict[str, Any]:
    """Writes ``model/``: the three networks, the latents' scale, and how they came about."""
    vae = json.loads((out / "vae" / "metrics.json").read_text())
    denoiser = json.loads((out / "denoiser" / "metrics.json").read_text())
    scale = denoiser.pop("scale_factor")
    model.config = replace(model.config, scale_factor=scale)
    card = {
        "data": {
            "world": f"Tabletop {tabletop.VERSION}",
            "split": "pretrain",
            "scenes": config.scenes,
        },
        "seed": config.seed,
        "config": json.loads((out / "config.json").read_text()),
        "metrics": {**vae, **denoiser},
        "licence": "Apache-2.0",
    }
    store.save(model.float().cpu(), out / "model", card=card)
    return card["metrics"]
