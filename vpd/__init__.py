"""vpd: visual perception with pre-trained text-to-image diffusion models."""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> module that defines it. Imported on first use, so that `import vpd` stays light.
_PUBLIC = {
    "UNet": "vpd.models.unet",
    "UNetConfig": "vpd.models.unet",
    "Taps": "vpd.models.unet",
    "AutoencoderKL": "vpd.models.autoencoder",
    "AutoencoderConfig": "vpd.models.autoencoder",
    "VQModel": "vpd.models.autoencoder",
    "VQConfig": "vpd.models.autoencoder",
    "CLIPTextEncoder": "vpd.models.clip_text",
    "CLIPTextConfig": "vpd.models.clip_text",
    "CLIPImageEncoder": "vpd.models.clip_image",
    "CLIPImageConfig": "vpd.models.clip_image",
    "TextAdapter": "vpd.models.adapters",
    "TaggingAdapter": "vpd.models.tagging_adapter",
    "ImplicitCaptioner": "vpd.models.implicit_captioner",
    "ReferDecoder": "vpd.models.refer_decoder",
    "FPN": "vpd.models.fpn",
    "SemanticFPNHead": "vpd.models.fpn",
    "UperNetHead": "vpd.models.uper_head",
    "FCNHead": "vpd.models.uper_head",
    "DepthHead": "vpd.models.depth_head",
    "Mask2FormerHead": "vpd.models.mask2former",
    "OdiseHead": "vpd.models.odise_head",
    "OdiseTextHead": "vpd.models.odise_head",
    "OdiseBackbone": "vpd.models.odise_backbone",
    "NoiseSpec": "vpd.protocol",
    "ReferSegmenter": "vpd.tasks.refer",
    "SemanticSegmenter": "vpd.tasks.semantic",
    "SemanticConfig": "vpd.tasks.semantic",
    "PanopticSegmenter": "vpd.tasks.panoptic",
    "PanopticConfig": "vpd.tasks.panoptic",
    "OpenPanopticSegmenter": "vpd.tasks.open_panoptic",
    "OpenPanopticConfig": "vpd.tasks.open_config",
    "Vocabulary": "vpd.vocabulary",
    "DepthEstimator": "vpd.tasks.depth",
    "DepthConfig": "vpd.tasks.depth",
    "Editor": "vpd.tasks.editor",
    "EditorConfig": "vpd.tasks.editor",
    "cluster_features": "vpd.tasks.clusters",
    "load": "vpd.tasks.store",
    "compile": "vpd.graphs",
    "load_weights": "vpd.weights",
    "save_weights": "vpd.weights",
    "from_diffusers": "vpd.weights",
    "tokenize": "vpd.tokens",
    "ReferConfig": "vpd.tasks.refer",
    "ReferDecoderConfig": "vpd.models.refer_decoder",
    "TaggingAdapterConfig": "vpd.models.tagging_adapter",
    "ImplicitCaptionerConfig": "vpd.models.implicit_captioner",
    "FPNConfig": "vpd.models.fpn",
    "SemanticFPNHeadConfig": "vpd.models.fpn",
    "UperNetHeadConfig": "vpd.models.uper_head",
    "FCNHeadConfig": "vpd.models.uper_head",
    "DepthHeadConfig": "vpd.models.depth_head",
    "Mask2FormerConfig": "vpd.models.mask2former",
    "OdiseHeadConfig": "vpd.models.odise_head",
    "OdiseTextConfig": "vpd.models.odise_head",
    "OdiseBackboneConfig": "vpd.models.odise_backbone",
}
_MODULES = (
    "daam",
    "data",
    "diffusion",
    "kmeans",
    "lora",
    "losses",
    "memory",
    "metrics",
    "nn",
    "ops",
    "tags",
    "tokens",
    "viz",
    "weights",
)

__version__ = "0.1.0"
__all__ = [*_PUBLIC, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"vpd.{name}")
    else:
        raise AttributeError(f"module 'vpd' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
