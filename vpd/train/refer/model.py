"""The referring segmenter that a run starts from."""

from __future__ import annotations

from dataclasses import replace

import torch

from vpd.models.unet import UNet
from vpd.nn import channels_last
from vpd.protocol import NoiseSpec
from vpd.tasks import store
from vpd.tasks.foundation import FoundationConfig
from vpd.tasks.maps import at_timestep
from vpd.tasks.refer import ReferConfig, ReferSegmenter
from vpd.train.refer.config import ReferTrainConfig

__all__ = ["build", "empty_model"]


def build(config: ReferTrainConfig) -> ReferSegmenter:
    """The model a run starts from: pre-trained parts, a fresh decoder and adapter."""
    torch.manual_seed(config.seed)
    if config.weights:
        from vpd.tasks.sources import build_refer

        model = build_refer(config.weight_files, config=_shape(config, ReferConfig()))
        if config.unet_init == "random":
            model.unet = UNet(model.config.unet)
        return channels_last(model).train()
    base = store.load_foundation(config.foundation)
    model = ReferSegmenter(_shape(config, _parts(base.config)))
    kept = {k: v for k, v in base.vae.state_dict().items() if k in model.vae.state_dict()}
    model.vae.load_state_dict(kept)
    model.text.load_state_dict(base.text.state_dict())
    if config.unet_init == "pretrained":
        model.unet.load_state_dict(base.unet.state_dict())
    return channels_last(model)


def empty_model(config: ReferTrainConfig) -> ReferSegmenter:
    """The model of a run as it is, its weights apart: nothing is read but the foundation's
    config."""
    parts = ReferConfig() if config.weights else _parts(store.read_config(config.foundation))
    return ReferSegmenter(_shape(config, parts))


def _parts(base: FoundationConfig) -> ReferConfig:
    return ReferConfig(
        unet=base.unet,
        vae=replace(base.vae, encode_only=True),
        text=base.text,
        image_size=base.image_size,
        scale_factor=base.scale_factor,
    )


def _shape(config: ReferTrainConfig, parts: ReferConfig) -> ReferConfig:
    """A segmenter of the networks in ``parts``, with everything that the recipe decides."""
    noise = config.noise or NoiseSpec()
    if config.scale_latents and noise.latent_scale == 1.0:
        noise = replace(noise, latent_scale=parts.scale_factor)
    if config.protocol is not None:
        noise = at_timestep(config.protocol, config.t, noise)
    return replace(
        parts,
        noise=noise,
        token_length=config.token_length,
        hidden=config.hidden,
        attention=config.attention,
        attn_fusion=config.attn_fusion,
        attn_t_ensemble=config.attn_t_ensemble,
        denoise=config.denoise,
        map_scale=float(config.token_length) if config.scale_maps else 1.0,
        text_adapter=config.text_adapter,
        image_norm=config.image_norm,
    )
